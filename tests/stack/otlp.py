"""A real OTLP/HTTP receiver for tests: takes what the processes export, decodes it, and waits for what a test wants to see.

`with OtlpReceiver() as spans:` serves on a free port of the loopback until the block is left.
"""

import gzip
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KEPT = 100_000
"""Spans; the oldest go first."""


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came over the wire; ids as hexadecimal digits, times in nanoseconds."""

    service: str
    instance: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    failed: bool
    facts: dict[str, Any] = field(hash=False)
    links: tuple[tuple[str, str], ...] = ()
    said: tuple[str, ...] = ()
    """The status' message and every event, exceptions with their texts, for who looks for what must not be there."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A process that was killed in the middle of an export."""


class OtlpReceiver:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[ReceivedSpan] = []
        self.faults: list[str] = []
        """What came and was no trace request."""
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="otlp", daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self) -> dict[str, str]:
        """Variables that make a process export to it soon: the SDK's own default is every 5 s."""
        return {
            "HOTSWAP_TELEMETRY__OTLP_ENDPOINT": self.endpoint,
            "HOTSWAP_TELEMETRY__SAMPLING_RATE": "1.0",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self, trace_id: str = "") -> list[ReceivedSpan]:
        """All, or those of one trace, in the order of their beginnings."""
        with self._changed:
            found = [span for span in self._spans if not trace_id or span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.start)

    def wait(self, holds: Callable[[list[ReceivedSpan]], bool], trace_id: str = "", within: float = 60.0) -> bool:
        """Until it holds of the spans (of a trace). Blocking: call it in a thread. False when it never did."""
        with self._changed:
            return self._changed.wait_for(
                lambda: holds([span for span in self._spans if not trace_id or span.trace_id == trace_id]), within
            )

    def _take(self, path: str, body: bytes) -> None:
        with self._changed:
            if path != "/v1/traces":
                self.faults.append(f"POST {path}")
                return
            self._spans += decoded(body)
            del self._spans[:-KEPT]
            self._changed.notify_all()

    def _handler(receiver) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the request below
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        return Handler


def decoded(body: bytes) -> Iterator[ReceivedSpan]:
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        process = _facts(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield ReceivedSpan(
                    service=str(process.get("service.name", "")),
                    instance=str(process.get("service.instance.id", "")),
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    facts=_facts(span.attributes),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    said=(span.status.message, *(f"{one.name} {_facts(one.attributes)}" for one in span.events)),
                )


def _facts(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}
