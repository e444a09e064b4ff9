"""One channel to a plugin host, from outside: calls out, answers in. What the node and a router of its own share.

`HostChannel` is the hot path: `submit` and `data_received` make no task, take no lock and parse no JSON body. Everything a
host sends is hostile: a frame out of order, of an unknown id or over its cap ends the channel and the host. Neighbours:
hotswap.runtime.handle is the node's, hotswap.node.mirrored_hosts a router process's; they know how a host ends.
"""

import asyncio
import contextlib
import mmap
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic
from typing import cast

from hotswap.ports.hosts import Reply
from hotswap.runtime import protocol
from hotswap.runtime.in_flight import Done, InFlight
from hotswap.runtime.masking import SecretMask
from hotswap.runtime.protocol import Fault, FrameError, Kind
from hotswap.runtime.tenant_ledger import TenantLedger

MAX_IN_FLIGHT = 4096
"""Calls sent and not answered, those that timed out included. Past it a host is refused more: it does not keep up."""
WRITE_BUFFER_BYTES = 32 * 1024 * 1024
"""Unsent bytes past which further calls are refused: a host that does not read must not grow the node."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The words that a host writes for one line into the memory it shares (hotswap.runtime.protocol)."""

    memory: mmap.mmap
    line: int = 0

    @property
    def begun_at(self) -> int:
        return protocol.marks_at(self.line) + protocol.BEGUN_AT

    def watermark(self) -> int:
        """Id of the last request of the line that the host began."""
        last: int = protocol.WATERMARK.unpack_from(self.memory, protocol.marks_at(self.line))[0]
        return last


class HostChannel(asyncio.Protocol, ABC):
    """See hotswap.ports.hosts.CallTaker. Belongs to one event loop."""

    def __init__(
        self, name: str, max_reply_bytes: int, marks: Marks, mask: SecretMask, ledger: TenantLedger | None
    ) -> None:
        """`mask` takes secrets out of what the host says; `ledger` knows which settings the host has by this channel."""
        self._name = name
        self._marks = marks
        self._watermark = marks.memory
        self._begun_at = marks.begun_at
        self._mask = mask
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._decoder = protocol.FrameDecoder(protocol.host_caps(max_reply_bytes))
        self._in_flight = InFlight(self._name, self._give_up, self.unbegun)
        self._sent = 0
        self._transport: asyncio.Transport | None = None
        self._alive = False
        self._congested = False

    @property
    def alive(self) -> bool:
        return self._alive

    @property
    def in_flight(self) -> int:
        return len(self._in_flight.calls)

    def unbegun(self) -> int:
        if not self._alive:
            return 0
        begun: int = protocol.BEGUN.unpack_from(self._watermark, self._begun_at)[0]
        # A host can write what it likes there: it then gets more or fewer calls, never more than it owes answers to.
        return min((self._sent - begun) & protocol.REQUEST_ID_MASK, len(self._in_flight))

    def submit(
        self, method: str, tenant: str, body: bytes, timeout: float, done: Done, traceparent: bytes = b""
    ) -> None:
        if not self._alive:
            self._refuse(done, Reply(False, self._end_reason().encode(), limit="DIED", started=False))
            return
        if self._congested or len(self._in_flight) >= MAX_IN_FLIGHT:
            self._refuse(done, Reply(False, b"the host does not keep up: its backlog is full", started=False))
            return
        request_id = self._in_flight.new_id()
        try:
            deadline_us = int(min((monotonic() + max(0.0, timeout)) * 1e6, protocol.MAX_DEADLINE_US))
            if len(traceparent) != protocol.TRACEPARENT_BYTES:
                traceparent = b""
            frame = protocol.encode_call(request_id, method.encode(), tenant.encode(), deadline_us, body, traceparent)
        except UnicodeEncodeError:
            self._refuse(done, Reply(False, b"the method or the tenant is not text", invalid=True, started=False))
            return
        except struct.error:
            long = f"the method or the tenant is longer than {protocol.MAX_NAME_BYTES} bytes"
            self._refuse(done, Reply(False, long.encode(), invalid=True, started=False))
            return
        if self._ledger is not None and (settings := self._ledger.before_call(tenant)):
            frame = settings + frame
        self._in_flight.add(request_id, timeout, done)
        self._sent += 1
        cast(asyncio.Transport, self._transport).write(frame)

    async def drain(self, grace: timedelta) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds()):
                await self._in_flight.drained()
        return not self._in_flight.calls

    async def drained(self) -> None:
        """Until nothing is in flight."""
        await self._in_flight.drained()

    # What who owns it knows

    @abstractmethod
    def _end_reason(self) -> str:
        """Why it is not alive, in words."""

    @abstractmethod
    def _distrust(self, what: str) -> None:
        """The host broke the protocol: neither the channel nor the host is any use."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False

    def data_received(self, data: bytes) -> None:
        calls = self._in_flight.calls
        try:
            for request_id, kind, payload in self._decoder.feed(data):
                call = calls.pop(request_id, None) if kind == Kind.RESULT else None
                if call is not None:
                    self._in_flight.answer(call[1], Reply(True, payload))
                else:
                    self._other_frame(request_id, kind, payload)
        except FrameError as fault:
            self._distrust(str(fault))
        self._in_flight.wake_idle()

    def _other_frame(self, request_id: int, kind: int, payload: bytes) -> None:
        """Any but a result that somebody waits for. Raises FrameError."""
        if request_id in self._in_flight.abandoned and kind in (Kind.RESULT, Kind.ERROR, Kind.PONG):
            self._in_flight.abandoned.discard(request_id)
        elif kind == Kind.ERROR:
            self._error(request_id, self._fault_in(payload))
        else:
            raise FrameError(f"a frame of kind {kind} for request {request_id}, which waits for none")

    def _fault_in(self, payload: bytes) -> Fault:
        """Without secrets: its text goes to callers, logs and reports. Raises FrameError."""
        fault = protocol.decode_fault(payload)
        return replace(fault, message=self._mask.clean(fault.message), kind=self._mask.clean(fault.kind))

    def _error(self, request_id: int, fault: Fault) -> None:
        call = self._in_flight.calls.pop(request_id, None)
        if call is None:
            raise FrameError(f"an error for request {request_id}, which waits for none")
        reply = Reply(False, fault.message.encode(), fault.kind, fault.limit, fault.unknown_method, fault.invalid)
        self._in_flight.answer(call[1], reply)

    def _refuse(self, done: Done, reply: Reply) -> None:
        self._loop.call_soon(self._in_flight.answer, done, reply)

    def _answer_all(self, reason: str, limit: str, *, only_unseen: bool = False) -> None:
        if self._watermark.closed:  # its launch was cancelled while it connected: no call was ever sent
            return
        self._in_flight.answer_all(self._marks.watermark(), reason.encode(), limit, only_unseen=only_unseen)

    def _give_up(self, request_id: int) -> None:
        self._write(protocol.encode(request_id, Kind.CANCEL))

    def _write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)
