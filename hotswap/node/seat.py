"""One place for one process of a version: started, probed, replaced and restarted alone. Serving never waits for any of it.

Neighbours: hotswap.node.hosts makes a version of one or more seats and says how a process is launched, hotswap.ports.hosts
makes the processes. Everything happens on one event loop.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from enum import StrEnum
from functools import partial
from time import monotonic

from hotswap.domain.analysis import HostReport
from hotswap.domain.base import bounded
from hotswap.domain.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    ArtifactTooLarge,
    HostFailed,
    HotSwapError,
    InvalidInput,
    PluginError,
)
from hotswap.domain.routes import ArtifactRef
from hotswap.ports.hosts import HostHandle

log = logging.getLogger(__name__)

PROBE_TIMEOUT = timedelta(seconds=5)
"""Longest wait for a ping: a thousand times the specification's p50 for a probe."""

FIRST_BACKOFF, LAST_BACKOFF = 0.05, 10.0
"""Seconds before the second and before every late restart of a host that keeps dying; doubled in between.

The first restart waits for nothing: a host that lived well and was killed is back in the time of a load.
"""

HOPELESS_BACKOFF = 60.0
"""Seconds before trying again what a repeat hardly helps (a corrupt or missing artifact): it costs a download."""

BUG_BACKOFF = 0.5
"""Seconds after an error nobody foresaw: long enough not to spin, short enough not to leave a version down."""

STEADY_SECONDS = 10.0
"""A host that lived this long starts its backoff anew when it dies."""

MAX_PROBE_FAILURES = 3
"""Consecutive failed liveness probes before a host is replaced (spec section 4)."""

REPLACED_GRACE = timedelta(seconds=5)
"""How long a host that fails its probes may finish what it has after its replacement took over."""

EVICTED_GRACE = RENEWED_GRACE = timedelta(seconds=30)
"""For what is in flight on a process that is well and goes: the request timeout. An evicted one has nothing in flight, but
for what a router process gave it a moment ago."""

_HOPELESS = (ArtifactMissing, ArtifactCorrupt, ArtifactTooLarge, InvalidInput)


class HostState(StrEnum):
    STARTING = "Starting"
    READY = "Ready"
    STANDBY = "Standby"  # ready, serves nobody, takes over when a process of its version dies
    EVICTED = "Evicted"  # ended for want of requests or of memory; the next request loads it again
    DRAINING = "Draining"
    CRASHED = "Crashed"
    STOPPED = "Stopped"


class Seat:
    """Keeps one process alive from `install` (or `keep`, `keep_trying`) until `evict` or `retire`.

    `handle` is the live process, or None while it is down. A swap is one reference: requests in flight stay with the
    process that has them.
    """

    def __init__(
        self,
        ref: ArtifactRef,
        launch: Callable[["Seat"], Awaitable[HostHandle]],
        probe_every: float,
        changed: Callable[["Seat"], None],
    ) -> None:
        """`launch` makes a process that has answered its warm-up call; `changed` is called whenever `handle` changes.

        `probe_every`: seconds.
        """
        self.ref = ref
        self.handle: HostHandle | None = None
        self.state = HostState.STARTING
        self.crashes = 0
        self.probe_failures = 0
        self.load_ms = 0.0
        self.last_error = ""
        self.core: int | None = None
        """The one processor core its processes are pinned to, None = the system's choice."""
        self._launch = launch
        self._probe_every = probe_every
        self._changed = changed
        self._keeper: asyncio.Task[None] | None = None
        self._stir = asyncio.Event()
        self._backoff = 0.0
        self._ready_at = 0.0
        self._retry_at = 0.0
        self._attempts: list[asyncio.Future[None]] = []
        """Who waits for the outcome of the next start."""
        self._worn: HostHandle | None = None
        """The process that is to be replaced although it is well."""
        self._leaving: HostHandle | None = None
        """The process that drains, for reports."""
        self._endings: set[asyncio.Task[None]] = set()
        """Processes that are out of use and on their way out."""

    @property
    def alive(self) -> HostHandle | None:
        """The process, if it can take a call now: one that has just died may not have been reported yet."""
        handle = self.handle
        return handle if handle is not None and handle.alive else None

    @property
    def kept(self) -> bool:
        """Whether it is being kept alive, by `keep` and all that call it."""
        return self._keeper is not None

    # -- life ----------------------------------------------------------------------------------------------------

    def install(self, handle: HostHandle) -> None:
        """Let a fresh process take the seat."""
        self.handle = handle
        self.state = HostState.READY
        self.probe_failures = 0
        self.load_ms = handle.load_ms
        self._ready_at = monotonic()
        self._stir.clear()
        handle.on_exit(partial(self._exited, handle))
        if not handle.alive:  # it died before anybody listened
            self._exited(handle, "ended right after it was ready")
            return
        self._settle(None)
        self._changed(self)

    def keep(self) -> None:
        """Keep a process alive from now on: start one if there is none, restart it when it dies. Repeats are fine."""
        if self._keeper is None:
            if self.handle is None and self.state is HostState.EVICTED:
                self.state = HostState.STARTING
            self._keeper = asyncio.create_task(
                self._keep(),
                name=f"keep {self.ref.plugin} {self.ref.version}",
                context=contextvars.Context(),  # it outlives the order that began it, whose trace is over
            )

    def keep_trying(self, fault: HotSwapError) -> None:
        """After a failed first start: count as crashed and go on trying in the background."""
        if self.handle is None:
            self._failed(fault)
        self.keep()

    def hurry(self) -> None:
        """Restart now if down: somebody needs this version."""
        if self.handle is None:
            self._backoff = 0.0
            self._stir.set()
            self.keep()

    async def ensure(self) -> None:
        """Return when it is up; when it is down, try to start it now and raise why if that fails."""
        if self.handle is None:
            attempt = asyncio.get_running_loop().create_future()
            self._attempts.append(attempt)
            self.hurry()
            await attempt

    def back_within(self, seconds: float) -> bool:
        """Whether it is worth waiting that long for it: not when the next start is later than that."""
        return self.back_at - monotonic() <= seconds

    @property
    def back_at(self) -> float:
        """When it starts next, by time.monotonic; 0.0 = it is up, or about to be."""
        return 0.0 if self.handle is not None else self._retry_at

    def renew(self) -> None:
        """Have a fresh process take over from the present one, soon; nothing is lost. Repeats are fine."""
        self._worn = self.handle
        self._stir.set()

    def took_over(self) -> None:
        """It was a standby and serves from now on: its time of being steady begins."""
        self._ready_at = monotonic()

    def evict(self) -> None:
        """End the process, on which nothing is in flight, and start no other until `keep`. Out of use before this returns."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
        handle, self.handle = self.handle, None
        self.state = HostState.EVICTED
        self._backoff = self._retry_at = 0.0
        self._see_off(self._wind_up(keeper, handle))
        self._changed(self)

    async def _wind_up(self, keeper: asyncio.Task[None] | None, handle: HostHandle | None) -> None:
        try:
            if keeper is not None:
                await asyncio.wait({keeper})
        finally:
            if handle is not None:
                await self._end(handle, EVICTED_GRACE)

    def _see_off(self, ending: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(ending, name=f"end {self.ref.plugin} {self.ref.version}")
        self._endings.add(task)
        task.add_done_callback(self._seen_off)

    def _seen_off(self, task: asyncio.Task[None]) -> None:
        self._endings.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("ending a host failed", exc_info=fault, extra=self._fields())

    async def retire(self, grace: timedelta) -> None:
        """Stop keeping it alive, wait at most `grace` for what is in flight, end the process. Repeats are fine."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
        self._settle(HostFailed(f"{self.ref.plugin} {self.ref.version} was unloaded"))
        handle, self.handle = self.handle, None
        if handle is not None:
            self.state = HostState.DRAINING
            self._leaving = handle
            await self._end(handle, grace)
        if endings := set(self._endings):
            for ending in endings:
                if not grace:
                    ending.cancel()  # it still closes its process
            await asyncio.wait(endings)
        self.state = HostState.STOPPED

    def _settle(self, fault: HotSwapError | None) -> None:
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            if attempt.done():
                continue
            if fault is None:
                attempt.set_result(None)
            else:
                attempt.set_exception(fault)

    async def _end(self, handle: HostHandle, grace: timedelta) -> None:
        try:
            if grace and not await handle.drain(grace):
                log.warning(
                    "%d requests of %s %s ran on after %s and are cut",
                    handle.in_flight,
                    self.ref.plugin,
                    self.ref.version,
                    grace,
                    extra=self._fields(),
                )
        finally:
            await handle.close()

    def _exited(self, handle: HostHandle, reason: str) -> None:
        if handle is not self.handle:
            return
        if monotonic() - self._ready_at >= STEADY_SECONDS:
            self._backoff = 0.0
        self.handle = None
        self.state = HostState.CRASHED
        self.crashes += 1
        self.last_error = bounded(reason)
        log.warning(
            "the host of %s %s died (%s), crash %d; restarting it",
            self.ref.plugin,
            self.ref.version,
            self.last_error,
            self.crashes,
            extra=self._fields(),
        )
        self._stir.set()
        self._changed(self)

    # -- keeping it alive ----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            try:
                if self.handle is None:
                    await self._restart()
                elif self.handle is self._worn:
                    self._worn = None
                    await self._replace(self.handle, RENEWED_GRACE)
                else:
                    await self._watch(self.handle)
            except Exception:
                # Nobody awaits this task: a bug below must neither end the keeping nor spin.
                log.exception("keeping %s %s alive failed", self.ref.plugin, self.ref.version, extra=self._fields())
                await asyncio.sleep(BUG_BACKOFF)

    async def _restart(self) -> None:
        if self._backoff:
            self._retry_at = monotonic() + self._backoff
            self._changed(self)  # whoever waits can know now that it takes longer
            await self._pause(self._backoff)
            self._retry_at = 0.0
        try:
            handle = await self._launch(self)
        except HotSwapError as fault:
            self._failed(fault)
        else:
            self._back_off()  # until it has been steady
            self.install(handle)

    def _back_off(self) -> None:
        self._backoff = min(max(self._backoff * 2, FIRST_BACKOFF), LAST_BACKOFF)

    def _failed(self, fault: HotSwapError) -> None:
        self.state = HostState.CRASHED
        self.last_error = bounded(fault.message)
        self._settle(fault)
        if isinstance(fault, _HOPELESS):
            self._backoff = HOPELESS_BACKOFF
        else:
            self._back_off()
        log.warning(
            "%s %s does not start (%s: %s); trying again in %.2f s",
            self.ref.plugin,
            self.ref.version,
            type(fault).__name__,
            self.last_error,
            self._backoff,
            extra=self._fields(),
        )

    async def _pause(self, seconds: float) -> bool:
        """Wait; True when stirred before the time was over."""
        self._stir.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._stir.wait()
        except TimeoutError:
            return False
        return True

    async def _watch(self, handle: HostHandle) -> None:
        if await self._pause(self._probe_every) or handle is not self.handle:
            return
        try:
            await self.probe()
        except (HostFailed, PluginError) as fault:
            log.warning(
                "%s %s failed probe %d in a row: %s",
                self.ref.plugin,
                self.ref.version,
                self.probe_failures,
                bounded(fault.message),
                extra=self._fields(),
            )
            is_sick = self.probe_failures >= MAX_PROBE_FAILURES and handle is self.handle
            if is_sick and await self._replace(handle, REPLACED_GRACE):
                self.crashes += 1

    async def _replace(self, old: HostHandle, grace: timedelta) -> bool:
        """Start a fresh process, swap, then end the old one: what it still can answer is not lost. False when none starts."""
        try:
            fresh = await self._launch(self)
        except HotSwapError as fault:
            self.last_error = bounded(fault.message)
            log.warning("no replacement: %s", self.last_error, extra=self._fields())
            return False
        self.install(fresh)
        self._see_off(self._end(old, grace))  # aside: the fresh one is looked after meanwhile
        return True

    async def probe(self) -> float:
        """Ask the process now; returns milliseconds. Raises HostFailed, PluginError; counts consecutive failures."""
        handle = self.handle
        if handle is None:
            raise HostFailed(f"is down: {self.last_error or 'starting'}")
        try:
            milliseconds = await handle.ping(PROBE_TIMEOUT)
        except (HostFailed, PluginError) as fault:
            if handle is self.handle:
                self.probe_failures += 1
                self.last_error = bounded(fault.message)
            raise
        if handle is self.handle:
            self.probe_failures = 0
        return milliseconds

    # -- telling -------------------------------------------------------------------------------------------------

    def report(self, sandbox_tier: str, *, standby: bool) -> HostReport:
        """`sandbox_tier`: to report while there is no process."""
        handle = self.handle or self._leaving
        return HostReport(
            plugin=self.ref.plugin,
            version=self.ref.version,
            state=HostState.STANDBY if standby and self.state is HostState.READY else self.state,
            pid=handle.pid if handle else None,
            sandbox_tier=handle.sandbox_tier if handle else sandbox_tier,
            in_flight=handle.in_flight if handle else 0,
            crashes=self.crashes,
            probe_failures=self.probe_failures,
            memory_bytes=handle.memory_bytes() if handle else 0,
            load_ms=self.load_ms,
            last_error=self.last_error,
        )

    def _fields(self) -> dict[str, str]:
        return {"plugin": self.ref.plugin, "version": self.ref.version}
