"""A small real HTTP server that speaks Prometheus's query API and a webhook's, and misbehaves on demand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: threading.Event | None = None

    @classmethod
    def of(cls, document: Any, status: int = 200, **headers: str) -> "Reply":
        return cls(status, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})


def scalar(value: str) -> Reply:
    return Reply.of({"status": "success", "data": {"resultType": "scalar", "result": [1767268800.1, value]}})


def vector(*values: str) -> Reply:
    series = [{"metric": {"pod": str(n)}, "value": [1767268800.1, value]} for n, value in enumerate(values)]
    return Reply.of({"status": "success", "data": {"resultType": "vector", "result": series}})


class MetricsServer:
    """`answer` decides each reply; `requests` keeps what came."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Reply] = lambda request: vector()
        self.port = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @contextmanager
    def serving(self) -> Iterator["MetricsServer"]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
                outer.requests.append(request)
                reply = outer.answer(request)
                if reply.hang is not None:
                    reply.hang.wait(10)
                try:
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body)))
                    self.send_header("Connection", "close")
                    self.end_headers()
                    self.wfile.write(reply.body)
                except (BrokenPipeError, ConnectionResetError):
                    return  # the client gave up on us, as it should

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = False
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
