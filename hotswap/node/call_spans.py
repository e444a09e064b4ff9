"""Spans of tenants' calls, made of what the router knows of those that are traced (hotswap.node.traced_calls).

Made without a tracer, whose start and end cost 30 us a call, on the loop: here all is done once a second. Neighbours:
hotswap.node.front gives it to the router, or to several; hotswap.telemetry exports.
"""

import time
from collections.abc import Callable, Sequence
from time import monotonic_ns

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from hotswap.node.traced_calls import CALLS_A_SECOND, EndedCall, TracedCalls
from hotswap.tracing import SpanName, attributes

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OK = Status(StatusCode.UNSET)
_FAILED = Status(StatusCode.ERROR)


class CallSpans(TracedCalls):
    def __init__(
        self,
        record: Callable[[ReadableSpan], None],
        resource: Resource,
        sampling_rate: float,
        node: str,
        environment: str,
        calls_a_second: int = CALLS_A_SECOND,
    ) -> None:
        super().__init__(sampling_rate, self.record, calls_a_second)
        self.sampling_rate = sampling_rate
        self._record = record
        self._resource = resource
        self._node = node
        self._environment = environment
        self._scope = InstrumentationScope("hotswap.node")

    def record(self, ended: Sequence[EndedCall]) -> None:
        """Make spans of these and hand them to the exporter."""
        wall = time.time_ns() - monotonic_ns()
        for call in ended:
            facts = {
                "plugin": call.plugin,
                "version": call.version,
                "tenant": call.tenant,
                "method": call.method,
                "node": self._node,
                "environment": self._environment,
            }
            told: dict[str, str | int] = {**attributes(facts)}
            told["http.response.status_code"] = call.status
            if call.code:
                told["error.type"] = call.code
            parent = SpanContext(call.trace_id, call.parent, is_remote=True, trace_flags=_SAMPLED)
            self._record(
                ReadableSpan(
                    name=SpanName.EXECUTE,
                    context=SpanContext(call.trace_id, call.span_id, is_remote=False, trace_flags=_SAMPLED),
                    parent=parent if call.parent else None,
                    resource=self._resource,
                    attributes=told,
                    kind=SpanKind.SERVER,
                    status=_FAILED if call.status >= 500 else _OK,
                    start_time=call.began + wall,
                    end_time=call.ended + wall,
                    instrumentation_scope=self._scope,
                )
            )
