"""Spans of tenants' calls, for those that are traced: an id on the way in, the span itself in the router's sweep.

A call is traced when its caller's trace is sampled, or by the sampling rate when it brings none, and never more than
CALLS_A_SECOND of them: the flag is the caller's word. Made without a tracer, whose start and end cost 30 us a call, on
the loop; here that is 2 us, and the rest is done once a second. Neighbours: hotswap.node.router calls begin, end and
flush; hotswap.telemetry exports.
"""

import random
import re
import time
from collections.abc import Callable
from time import monotonic_ns

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from hotswap.node.exchange import Exchange
from hotswap.node.refusals import Refusal
from hotswap.tracing import SpanName, attributes

CALLS_A_SECOND = 50
"""Of one node. A span costs 8 us here and 40 us in the exporter's thread, which holds the interpreter's lock meanwhile: 0.25 % of
a core at this rate (measured: docs/telemetry.md)."""

_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
_ODD = b"13579bdf"
"""Last digits of flags that say sampled."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OK = Status(StatusCode.UNSET)
_FAILED = Status(StatusCode.ERROR)


class CallSpan:
    """A traced call: its ids, and when it began (nanoseconds, monotonic)."""

    __slots__ = ("began", "parent", "span_id", "trace_id")

    def __init__(self, trace_id: int, parent: int) -> None:
        self.trace_id = trace_id
        self.parent = parent
        """The caller's span; 0 without one."""
        self.span_id = random.getrandbits(64) or 1
        self.began = monotonic_ns()

    def traceparent(self) -> bytes:
        return b"00-%032x-%016x-01" % (self.trace_id, self.span_id)


class CallSpans:
    def __init__(
        self,
        record: Callable[[ReadableSpan], None],
        resource: Resource,
        sampling_rate: float,
        node: str,
        environment: str,
        calls_a_second: int = CALLS_A_SECOND,
    ) -> None:
        self._record = record
        self._resource = resource
        self._rate = sampling_rate
        self._node = node
        self._environment = environment
        self._most = self._left = calls_a_second
        self._ended: list[tuple[CallSpan, int, tuple[str, str, str, str], Refusal | None]] = []
        self._scope = InstrumentationScope("hotswap.node")

    def begin(self, exchange: Exchange) -> None:
        """Hot path: decide; a traced call bears our span as the parent of whatever its plugin does."""
        given = exchange.traceparent
        if given:
            if given[-1] not in _ODD or not self._left:
                return
            found = _PARENT.fullmatch(given)
            if found is None:
                return
            call = CallSpan(int(found[1], 16), int(found[2], 16))
        elif self._left and random.random() < self._rate:
            call = CallSpan(random.getrandbits(128) or 1, 0)
        else:
            return
        self._left -= 1
        exchange.span = call
        exchange.traceparent = call.traceparent()

    def end(self, exchange: Exchange, call: CallSpan, refusal: Refusal | None) -> None:
        """Keep what is known of it until the next flush. `refusal`: what it got in place of a result."""
        version = exchange.host.ref.version if exchange.host is not None else ""
        about = (exchange.plugin, version, exchange.tenant, exchange.method)
        self._ended.append((call, monotonic_ns(), about, refusal))

    def flush(self) -> None:
        """Once a second: hand over what has ended, and allow as many again."""
        self._left = self._most
        ended, self._ended = self._ended, []
        wall = time.time_ns() - monotonic_ns()
        for call, at, (plugin, version, tenant, method), refusal in ended:
            facts = {
                "plugin": plugin,
                "version": version,
                "tenant": tenant,
                "method": method,
                "node": self._node,
                "environment": self._environment,
            }
            told: dict[str, str | int] = {**attributes(facts)}
            told["http.response.status_code"] = refusal.status if refusal else 200
            if refusal:
                told["error.type"] = refusal.code
            parent = SpanContext(call.trace_id, call.parent, is_remote=True, trace_flags=_SAMPLED)
            self._record(
                ReadableSpan(
                    name=SpanName.EXECUTE,
                    context=SpanContext(call.trace_id, call.span_id, is_remote=False, trace_flags=_SAMPLED),
                    parent=parent if call.parent else None,
                    resource=self._resource,
                    attributes=told,
                    kind=SpanKind.SERVER,
                    status=_FAILED if refusal and refusal.status >= 500 else _OK,
                    start_time=call.began + wall,
                    end_time=at + wall,
                    instrumentation_scope=self._scope,
                )
            )
