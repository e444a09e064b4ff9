"""Which of tenants' calls are traced, and what is known of each when it has ended. The router's side of their spans.

A call is traced when its caller's trace is sampled, or by the sampling rate when it brings none, and never more than
CALLS_A_SECOND of them: the flag is the caller's word. Costs 2 us a call, on the loop. What ended is handed over once a
second: to hotswap.node.call_spans, which makes spans of it, or to the node (hotswap.node.router_worker), which does that.
"""

import random
import re
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import NamedTuple

from hotswap.node.exchange import Exchange
from hotswap.node.refusals import Refusal

CALLS_A_SECOND = 50
"""Of one node. A span costs 8 us here and 40 us in the exporter's thread, which holds the interpreter's lock meanwhile: 0.25 % of
a core at this rate (measured: docs/telemetry.md)."""

_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
_ODD = b"13579bdf"
"""Last digits of flags that say sampled."""


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


class EndedCall(NamedTuple):
    """Plain numbers and text, so that it can go from one process to another. Times as in CallSpan."""

    trace_id: int
    parent: int
    span_id: int
    began: int
    ended: int
    plugin: str
    version: str
    tenant: str
    method: str
    status: int
    code: str
    """Of the error it got in place of a result, or ""."""


class TracedCalls:
    def __init__(
        self,
        sampling_rate: float,
        hand_over: Callable[[Sequence[EndedCall]], None],
        calls_a_second: int = CALLS_A_SECOND,
    ) -> None:
        self._rate = sampling_rate
        self._hand_over = hand_over
        self._most = self._left = calls_a_second
        self._ended: list[EndedCall] = []

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
        self._ended.append(
            EndedCall(
                call.trace_id,
                call.parent,
                call.span_id,
                call.began,
                monotonic_ns(),
                exchange.plugin,
                version,
                exchange.tenant,
                exchange.method,
                refusal.status if refusal else 200,
                refusal.code if refusal else "",
            )
        )

    def flush(self) -> None:
        """Once a second: hand over what has ended, and allow as many again."""
        self._left = self._most
        ended, self._ended = self._ended, []
        if ended:
            self._hand_over(ended)
