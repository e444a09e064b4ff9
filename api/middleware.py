"""Around every request: request id, trace, security headers, what is left of a limit, figures, and the answer to what
nobody expected.

One pure ASGI layer, so that event streams pass through unbuffered. Neighbours: api.errors words the 500.
"""

import logging
import re
import secrets
import time
from math import ceil
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import internal_error
from api.facts import facts_of_path
from api.metrics import UNROUTED, ApiMetrics
from hotswap.ports.limits import Taken
from hotswap.tracing import parent_of

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")
_UNTRACED = frozenset({"/health", "/ready", "/metrics"})
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class RequestContext:
    """`scope["state"]` carries `trace_id` (32 hex digits) and `request_id` to everything inside."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._tracer = trace.get_tracer("hotswap.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in _UNTRACED:
            await self._answer(scope, receive, send, trace.INVALID_SPAN)
            return
        parent = parent_of(Headers(scope=scope))
        with self._tracer.start_as_current_span(
            scope["method"],
            context=parent,
            kind=SpanKind.SERVER,
            record_exception=False,
        ) as span:
            await self._answer(scope, receive, send, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: trace.Span) -> None:
        began = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["trace_id"] = _trace_id(span)
        state["request_id"] = _request_id(scope)
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = state["request_id"]
                headers["X-Trace-Id"] = state["trace_id"]
                if (taken := state.get("limit")) is not None:
                    _tell(headers, taken)
                self._count(scope, status, time.perf_counter() - began, span)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as fault:
            log.exception(
                "unexpected error on %s %s (trace %s)",
                scope["method"],
                scope["path"],
                state["trace_id"],
                extra=facts_of_path(scope),
            )
            span.set_attribute("error.type", type(fault).__name__)  # its text may quote the request
            if status:  # the answer has begun; ending the connection is all that is left
                raise
            await internal_error(state["trace_id"])(scope, receive, send_on)

    def _count(self, scope: Scope, status: int, seconds: float, span: trace.Span) -> None:
        route = getattr(scope.get("route"), "path", UNROUTED)
        method = scope["method"] if route != UNROUTED else "(any)"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        span.update_name(f"{method} {route}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))


def _tell(headers: MutableHeaders, taken: Taken) -> None:
    """What is left of the limit that this request counted against; `local` while each process counts for itself."""
    headers["X-RateLimit-Limit"] = str(taken.limit)
    headers["X-RateLimit-Remaining"] = str(taken.remaining)
    headers["X-RateLimit-Reset"] = str(ceil(time.time() + taken.reset.total_seconds()))
    headers["X-RateLimit-Policy"] = "shared" if taken.shared else "local"


def _trace_id(span: trace.Span) -> str:
    """The span's trace; a random one where no tracer runs, so that a log line can always be found."""
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else secrets.token_hex(16)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.match(given) else secrets.token_hex(16)
