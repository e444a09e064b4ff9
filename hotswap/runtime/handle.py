"""The node's side of one plugin host: its channel, its answers, its end. Implements hotswap.ports.hosts.HostHandle.

Made by hotswap.runtime.launcher; the hot path is hotswap.runtime.channel's. Everything a host sends is hostile: a frame out
of order, of an unknown id or over its cap kills it.
"""

import asyncio
import contextlib
import mmap
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from time import perf_counter
from typing import cast

from hotswap.domain.errors import HostFailed, NotFound, PluginError, SandboxUnavailable
from hotswap.ports.hosts import HostSpec, Line, Reply
from hotswap.runtime import exits, process_memory, protocol
from hotswap.runtime.channel import HostChannel, Marks
from hotswap.runtime.egress import EgressGate
from hotswap.runtime.limits import WORDS
from hotswap.runtime.masking import SecretMask
from hotswap.runtime.output import PluginOutput
from hotswap.runtime.protocol import Fault, FrameError, Kind
from hotswap.runtime.tenant_ledger import TenantLedger

KILL_PATIENCE = 5.0
"""Seconds for SIGKILL to be reported; it takes 1-2 ms, so after this the zygote itself hangs."""


class ZygoteHost(HostChannel):
    """See hotswap.ports.hosts.LinedHost. Besides: `peak_memory_bytes`, `output_limited` and `kill`."""

    def __init__(
        self,
        spec: HostSpec,
        tier: str,
        watermark: mmap.mmap,
        output: PluginOutput,
        *,
        mask: SecretMask | None = None,
        ledger: TenantLedger | None = None,
        gate: EgressGate | None = None,
        lines: "SpareLines | None" = None,
        cpu_limit: int | None,
        close_grace: float,
        order_kill: Callable[[int], None],
        zygote_hangs: Callable[[], None],
    ) -> None:
        name = f"host of {spec.plugin} {spec.version}"
        super().__init__(name, spec.max_reply_bytes, Marks(watermark), mask or SecretMask(), ledger)
        self._spec = spec
        self._tier = tier
        self._output = output
        self._gate = gate
        self._lines = lines or SpareLines()
        self._cpu_limit = cpu_limit
        self._close_grace = close_grace
        self._order_kill = order_kill
        self._zygote_hangs = zygote_hangs
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._pid = 0
        self._load_ms = 0.0
        self._isolated = False
        self._closing = False
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._lost = False
        self._exit: exits.Exit | None = None
        self._forced: exits.Verdict | None = None
        self._verdict: exits.Verdict | None = None
        self._ended = asyncio.Event()
        self._exit_callbacks: list[Callable[[str], None]] = []

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def sandbox_tier(self) -> str:
        return self._tier

    @property
    def load_ms(self) -> float:
        return self._load_ms

    @property
    def output_limited(self) -> bool:
        """Whether the plugin wrote more to stdout and stderr than is kept (OUTPUT_LIMIT)."""
        return self._output.limited

    async def invoke(self, method: str, tenant: str, body: bytes, timeout: timedelta) -> bytes:
        answer: asyncio.Future[Reply] = self._loop.create_future()

        def done(reply: Reply) -> None:
            if not answer.done():  # the caller was cancelled meanwhile
                answer.set_result(reply)

        self.submit(method, tenant, body, timeout.total_seconds(), done)
        reply = await answer
        if reply.ok:
            return reply.body
        message = reply.body.decode("utf-8", "replace")
        if reply.unknown_method:
            raise NotFound(f"{self._name}: {message}")
        if reply.kind and not reply.limit:
            raise PluginError(message, reply.kind)
        raise HostFailed(f"{self._name}: {message}", reply.limit or "DIED")

    async def ping(self, timeout: timedelta) -> float:
        if not self._alive:
            raise HostFailed(self._end_text(), "DIED")
        started = perf_counter()  # the loop's clock may stand still within a turn
        request_id = self._in_flight.new_id()
        answer: asyncio.Future[None] = self._loop.create_future()
        self._pings[request_id] = answer
        self._write(protocol.encode(request_id, Kind.PING))
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await answer
        except TimeoutError:
            message = f"{self._name} did not answer a probe within {timeout.total_seconds():g} s"
            raise HostFailed(message, "TIMEOUT") from None
        finally:
            if self._pings.pop(request_id, None) is not None:
                self._in_flight.abandoned.add(request_id)
                self._give_up(request_id)
        return (perf_counter() - started) * 1000

    async def close(self) -> None:
        if not self._closing and not self._ended.is_set():
            self._closing = True
            self._alive = False
            self._write(protocol.encode(0, Kind.CLOSE))
            self._answer_all("the host was closed", "DIED")
        await self._end_within(self._close_grace)

    async def kill(self) -> None:
        """As `close`, without letting the plugin say good-bye."""
        self._closing = True
        self._alive = False
        self._order_kill(self._pid)
        await self._end_within(KILL_PATIENCE)

    def on_exit(self, callback: Callable[[str], None]) -> None:
        if not self._ended.is_set():
            self._exit_callbacks.append(callback)
        elif not self._closing:
            self._loop.call_soon(callback, self._end_text())

    def memory_bytes(self) -> int:
        return 0 if self._ended.is_set() else process_memory.memory(self._pid, "VmRSS:")

    def own_memory_bytes(self) -> int:
        if self._ended.is_set():
            return 0
        own = process_memory.own_memory(self._pid)
        if own and self._tier == "strong":  # process 1 of its namespaces ends with it
            own += process_memory.own_memory(int(process_memory.status(self._pid, "PPid:") or 0))
        return own or self.memory_bytes()

    def peak_memory_bytes(self) -> int:
        """Largest resident set so far; after the end what the kernel counted."""
        return self._exit.peak_bytes if self._exit is not None else process_memory.memory(self._pid, "VmHWM:")

    # Lines of others

    def take_line(self) -> Line | None:
        return None if self._ended.is_set() else self._lines.take()

    @property
    def lines_left(self) -> int:
        return len(self._lines)

    @property
    def verdict(self) -> tuple[str, str]:
        return (
            (self._verdict.limit, self._verdict.reason) if self._verdict is not None else ("DIED", self._end_reason())
        )

    def distrust(self, what: str) -> None:
        if self._ended.is_set():
            return
        if what:
            self._distrust(what)
        else:
            self._order_kill(self._pid)

    # What the launcher tells

    async def wait_ready(self, ordered_at: float) -> None:
        """Until READY; `ordered_at` by time.perf_counter. Raises HostFailed or SandboxUnavailable; the caller then kills."""
        limit = self._spec.load_timeout.total_seconds()
        try:
            async with asyncio.timeout(limit):
                await self._ready
        except TimeoutError:
            raise HostFailed(f"{self._name} did not load within {limit:g} s", "TIMEOUT") from None
        self._load_ms = (perf_counter() - ordered_at) * 1000

    def forked(self, pid: int) -> None:
        self._pid = pid
        if self._closing:  # its launch was cancelled before it had a pid
            self._order_kill(pid)

    def exited(self, end: exits.Exit) -> None:
        """The zygote reaped the process. What it said before may still be in the channel: that is read first."""
        self._exit = end
        if self._lost:
            self._finish(self._forced or exits.judge(end, self._cpu_limit))

    def never_ran(self, reason: str) -> None:
        """There is no process (any more) that the zygote could report: not forked, or gone with the zygote."""
        self._finish(self._forced or exits.Verdict("DIED", reason))

    # asyncio.Protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel closed: what the plugin never saw is answered at once, the rest when the zygote tells the reason."""
        self._alive = False
        self._lost = True
        if self._exit is not None:
            self._finish(self._forced or exits.judge(self._exit, self._cpu_limit))
        elif not self._ended.is_set():
            self._answer_all("the host is gone and never began this call", "DIED", only_unseen=True)
            self._order_kill(self._pid)  # a host that only shut its channel must not live on

    def _other_frame(self, request_id: int, kind: int, payload: bytes) -> None:
        loading = not self._ready.done()
        if kind == Kind.ISOLATED and loading and not self._isolated:
            self._isolated = True
        elif kind == Kind.READY and loading and self._isolated:
            self._alive = not self._closing
            if self._spec.config_defaults:
                self._write(protocol.encode_settings("", 0, self._spec.config_defaults, {}))
            self._ready.set_result(None)
        elif kind == Kind.FAILED and loading:
            self._load_failed(self._fault_in(payload))
        elif loading:
            raise FrameError(f"a frame of kind {kind} before READY")
        elif kind == Kind.PONG and request_id in self._pings:
            _settle(self._pings.pop(request_id), None)
        else:
            super()._other_frame(request_id, kind, payload)

    def _error(self, request_id: int, fault: Fault) -> None:
        if ping := self._pings.pop(request_id, None):
            failed = HostFailed(f"{self._name}: {fault.message}", fault.limit or "DIED")
            _settle(ping, PluginError(fault.message, fault.kind) if fault.kind and not fault.limit else failed)
            return
        super()._error(request_id, fault)

    def _load_failed(self, fault: Fault) -> None:
        if fault.limit == "SANDBOX" and not self._isolated:
            self._ready.set_exception(SandboxUnavailable(fault.message))
            return
        limit = fault.limit if fault.limit in WORDS else "LOAD_FAILED"
        named = f"{fault.kind}: {fault.message}" if fault.kind else fault.message
        self._ready.set_exception(HostFailed(f"{self._name} could not load: {named}", limit))

    def _end_reason(self) -> str:
        if self._verdict is not None:
            return self._verdict.reason
        return "the host was closed" if self._closing else "the host is gone"

    def _end_text(self) -> str:
        return f"{self._name}: {self._end_reason()}"

    def _distrust(self, what: str) -> None:
        self._alive = False
        self._forced = exits.Verdict("BAD_REPLY", f"the host broke the protocol ({what}) and was killed")
        cast(asyncio.Transport, self._transport).abort()
        self._order_kill(self._pid)

    async def _end_within(self, seconds: float) -> None:
        for patience in (seconds, KILL_PATIENCE):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._ended.wait()
                    return
            self._order_kill(self._pid)
        self._zygote_hangs()
        await self._ended.wait()

    def _finish(self, verdict: exits.Verdict) -> None:
        """The process is no more. Everyone who waits learns it, once."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._alive = False
        self._verdict = verdict
        self._answer_all(verdict.reason, verdict.limit)
        for waiting in (*self._pings.values(), self._ready):
            _settle(waiting, HostFailed(self._end_text(), verdict.limit))
        self._pings.clear()
        if not self._ready.cancelled():
            self._ready.exception()  # nobody need be waiting for it any more
        cast(asyncio.Transport, self._transport).abort()
        self._in_flight.close()
        self._output.close()
        self._watermark.close()
        self._lines.close()
        if self._gate is not None:
            self._gate.close()
        callbacks, self._exit_callbacks = self._exit_callbacks, []
        for callback in () if self._closing else callbacks:
            self._loop.call_soon(callback, self._end_text())


class SpareLines:
    """The node's ends of channels that nobody was given yet, numbered from 1."""

    def __init__(self, channels: Iterable[socket.socket] = (), watermark: int = -1) -> None:
        """Takes over the descriptors; `watermark` is that of the memory in which every line has its marks."""
        self._channels = deque(enumerate(channels, 1))
        self._watermark = watermark

    def __len__(self) -> int:
        return len(self._channels)

    def take(self) -> Line | None:
        if not self._channels:
            return None
        index, channel = self._channels.popleft()
        return Line(index, channel.detach(), os.dup(self._watermark))

    def close(self) -> None:
        """Repeats are fine."""
        while self._channels:
            self._channels.popleft()[1].close()
        if self._watermark >= 0:
            os.close(self._watermark)
            self._watermark = -1


def _settle(waiting: asyncio.Future[None], fault: Exception | None) -> None:
    if waiting.done():
        return
    if fault is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(fault)
