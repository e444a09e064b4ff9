"""A small api for the command line's tests: routes answer by functions, every request is kept."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

DEPLOYMENT_ID = "dep_0123456789abcdef0123456789abcdef"

TOKENS = {"admin": "token-of-admin", "approver": "token-of-approver"}


Run = Callable[..., int]
"""Types a command line; the exit code."""


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Answer = tuple[int, Any] | list[str] | None
"""Status and JSON; or server-sent events as blocks of text, then the connection is closed; or None = hang up."""

Route = Callable[[Asked], Answer]


@dataclass
class FakeApi:
    """routes["GET /api/v1/nodes"] = lambda asked: (200, {...})."""

    routes: dict[str, Route] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def on(self, what: str, *answers: Answer) -> None:
        """Give these answers one after the other; the last for ever."""
        left = list(answers)
        self.routes[what] = lambda asked: left.pop(0) if len(left) > 1 else left[0]

    def last(self, what: str) -> Asked:
        return [asked for asked in self.asked if f"{asked.method} {asked.path}" == what][-1]

    def count(self, what: str) -> int:
        return sum(f"{asked.method} {asked.path}" == what for asked in self.asked)

    def stack(self) -> dict[str, Any]:
        """What stack.json would say."""
        users = [{"user": user, "roles": [user.capitalize()], "token": token} for user, token in TOKENS.items()]
        return {"apiUrl": self.url, "users": users}


def refusal(
    status: int, code: str, message: str, details: list[dict[str, str]] | None = None, trace: str = "trace-1"
) -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": message, "details": details or [], "traceId": trace}}


def listing(*items: dict[str, Any]) -> tuple[int, Any]:
    count = len(items)
    page = {"total": count, "limit": 20, "offset": 0, "hasMore": False, "nextOffset": None}
    return 200, {"items": list(items), **page}


def sse(event: str, data: dict[str, Any], event_id: int | None = None) -> str:
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n"


def line(sequence: int, message: str, kind: str = "step") -> str:
    data = {"sequence": sequence, "at": "2026-01-31T12:00:00Z", "kind": kind, "message": message, "data": {}}
    return sse("timeline", data, sequence)


def deployment(status: str = "InProgress", **more: Any) -> dict[str, Any]:
    """A deployment's JSON in the middle of a canary, as the api gives it."""
    host = {
        "plugin": "phone-format",
        "version": "2.0.0",
        "state": "Ready",
        "pid": 4711,
        "sandboxTier": "standard",
        "inFlight": 2,
        "crashes": 0,
        "probeFailures": 0,
        "memoryBytes": 12_582_912,
        "loadMs": 4.2,
        "lastError": "",
    }
    metric = {
        "metric": "error-rate",
        "outcome": "Pass",
        "n": 241,
        "estimate": 0.0041,
        "lower": 0.0001,
        "upper": 0.031,
        "threshold": 0.05,
        "baselineN": 802,
        "baselineEstimate": 0.0025,
        "explanation": "fine",
    }
    document: dict[str, Any] = {
        "deploymentId": DEPLOYMENT_ID,
        "plugin": "phone-format",
        "environment": "Staging",
        "strategy": "Canary",
        "toVersion": "2.0.0",
        "fromVersion": "1.0.0",
        "status": status,
        "initiatedBy": "admin",
        "reason": "",
        "stepNumber": 5,
        "stepCount": 12,
        "stepTitle": "observe at 30 %",
        "setWeightPercent": 30,
        "routeGeneration": 4,
        "waitingFor": "",
        "nodes": [{"nodeId": "node-1", "state": "Ready", "generation": 4, "hosts": [host], "detail": ""}],
        "verdict": {
            "outcome": "Pass",
            "reason": "241 requests of 2.0.0 are within every limit",
            "metrics": [metric],
            "candidateRequests": 241,
            "baselineRequests": 802,
            "actualWeightPercent": 28.9,
            "nodesHeard": ["node-1"],
            "nodesSilent": [],
            "takenAt": "2026-01-31T12:00:09Z",
            "window": "PT3S",
        },
        "approvals": [],
        "approvalsRequired": 1,
        "planHash": "a" * 64,
        "digest": "b" * 64,
        "outcomeReason": "",
        "whatToDo": "",
        "requestedAt": "2026-01-31T12:00:00Z",
        "startedAt": "2026-01-31T12:00:01Z",
        "finishedAt": None,
        "rolledBackAt": None,
        "sequence": 12,
        "progressPercent": 42,
        "workflowId": "deployment/Staging/phone-format",
        "runId": "run",
        "links": {"self": "", "events": "", "temporalUi": ""},
    }
    return {**document, **more}


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """A FakeApi on a loopback port of its own."""
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, parts.path, query, headers, body)
            api.asked.append(asked)
            route = api.routes.get(f"{self.command} {parts.path}")
            answer = route(asked) if route else refusal(404, "NOT_FOUND", f"no {parts.path}")
            self.close_connection = True
            if answer is None:
                return
            if isinstance(answer, list):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write("".join(answer).encode())
                return
            status, document = answer
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header(
                "Connection", "close"
            )  # unsaid, the client would send its next request into the closed one
            if status == 429:
                self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(content)

        do_GET = _serve  # noqa: N815 - the standard library calls it by this name
        do_POST = _serve  # noqa: N815
        do_PUT = _serve  # noqa: N815
        do_DELETE = _serve  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
