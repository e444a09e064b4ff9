"""One version of one plugin on this node: its processes, who takes a call, its standby, its sleep while nobody calls.

Neighbours: hotswap.node.seat keeps each process alive, hotswap.node.supervisor decides which versions there are,
hotswap.node.router asks `pick` for every request, hotswap.node.eviction decides who sleeps. One event loop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from time import monotonic

from hotswap.domain.analysis import HostReport
from hotswap.domain.errors import HotSwapError
from hotswap.domain.routes import ArtifactRef
from hotswap.node.cores import Cores
from hotswap.node.figures import VersionCounter
from hotswap.node.seat import PROBE_TIMEOUT, HostState, Seat
from hotswap.ports.hosts import HostHandle, HostLauncher, HostSpec

log = logging.getLogger(__name__)

NO_GRACE = timedelta(0)


@dataclass(slots=True)
class Tally:
    """Of all versions on this node together, those unloaded included, since it started."""

    takeovers: int = 0
    """Times that a standby took over from a process that died."""
    reloads: int = 0
    """Times that an evicted version was loaded again."""
    evictions: dict[str, int] = field(default_factory=lambda: {"idle": 0, "budget": 0})
    """By reason."""
    own_bytes: int = 0
    """Memory that only the hosts have, as last measured; 0 without a budget."""
    budget_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lineup:
    """Who serves a version now, for routers in processes of their own."""

    serving: tuple[HostHandle, ...]
    standby: HostHandle | None
    evicted: bool
    back_at: float
    """When the first of its processes is started next, by time.monotonic; 0.0 = one is up, or about to be."""


class SupervisedHost:
    """Keeps the processes of a version alive from `load` (or `keep_trying`) until `retire`.

    There are as many that serve as the manifest's `concurrency` says, and a standby if one is asked for. The router
    asks `pick` for every request, so that a swap is one reference and requests in flight stay with their process.
    """

    def __init__(
        self,
        ref: ArtifactRef,
        prepare: Callable[[ArtifactRef], Awaitable[HostSpec]],
        launcher: HostLauncher,
        counter: VersionCounter,
        probe_every: timedelta,
        changed: Callable[[str], None],
        cores: Cores | None = None,
        tally: Tally | None = None,
    ) -> None:
        """`prepare` fetches and unpacks; `changed(plugin)` is called whenever a process comes or goes."""
        self.ref = ref
        self.counter = counter
        self.asked = False
        """Whether anybody asked for a process since hotswap.node.eviction looked last."""
        self.used_at = monotonic()
        """When it was last seen in use, or loaded."""
        self._prepare = prepare
        self._launcher = launcher
        self._probe_every = probe_every.total_seconds()
        self._changed = changed
        self._cores = cores or Cores()
        self._tally = tally or Tally()
        self._kept = False
        """Loaded or being tried, and not retired."""
        self._serving: list[Seat] = [self._new_seat()]
        self._standby: Seat | None = None
        self._live: list[HostHandle] = []
        """The processes of `_serving`. One that has just died may still be here."""
        self._inherited_crashes = 0
        self._turn = 0
        self._leaving: set[asyncio.Task[None]] = set()

    def _new_seat(self) -> Seat:
        return Seat(self.ref, self._launch, self._probe_every, self._seat_changed)

    @property
    def _seats(self) -> Sequence[Seat]:
        return self._serving if self._standby is None else (*self._serving, self._standby)

    @property
    def processes(self) -> int:
        """How many serve now."""
        return len(self._live)

    # -- who takes a call ----------------------------------------------------------------------------------------

    def pick(self) -> HostHandle | None:
        """Hot path: the live process that should take the next call, None while there is none.

        The least busy one; in place of one that has died its standby, at once. An evicted version begins to load.
        """
        self.asked = True
        live = self._live
        if len(live) == 1 and live[0].alive:
            return live[0]
        return self._choose()

    def _choose(self) -> HostHandle | None:
        if self.evicted:
            self.wake()
            return None
        best: HostHandle | None = None
        least = 0
        live = self._live
        self._turn += 1  # among equals each has its turn: one core must not get all of a light load
        for index in range(len(live)):
            handle = live[(index + self._turn) % len(live)]
            if not handle.alive:
                if self._stand_in():
                    return self._choose()
                continue
            busy = handle.in_flight
            if best is None or busy < least:
                best, least = handle, busy
        return best

    def _stand_in(self) -> bool:
        """Put the standby where a process has died, and the dead one's seat in its place; False when it cannot be."""
        spare = self._standby
        if spare is None or spare.alive is None:
            return False
        for index, seat in enumerate(self._serving):
            if seat.alive is None:
                self._serving[index], self._standby = spare, seat
                spare.took_over()
                self._tally.takeovers += 1
                log.info("the standby of %s %s took over", self.ref.plugin, self.ref.version, extra=self._fields())
                self._list_live()
                return True
        return False

    def _list_live(self) -> None:
        self._live = [seat.handle for seat in self._serving if seat.handle is not None]

    def _seat_changed(self, seat: Seat) -> None:
        if seat.handle is not None:
            self.counter.loaded(seat.load_ms)
            self.used_at = monotonic()
        self._list_live()
        self._stand_in()
        self._changed(self.ref.plugin)

    # -- life ----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Fetch, verify, unpack, launch every process, ping. Raises what went wrong; `retire` then, or `keep_trying`."""
        self._kept = True
        spec = await self._prepare(self.ref)
        self._add_seats(spec)
        await first_fault([partial(self._load, seat, spec) for seat in self._serving])

    async def _load(self, seat: Seat, spec: HostSpec) -> None:
        seat.install(await self._start(seat, spec))
        seat.keep()

    def keep_trying(self, fault: HotSwapError) -> None:
        """After a failed `load`: count as crashed and go on trying in the background."""
        self._kept = True
        for seat in self._serving:
            seat.keep_trying(fault)

    def stand_by(self, wanted: bool) -> None:
        """Have a standby from now on, made in the background, or none. Repeats are fine."""
        if wanted and self._standby is None and self._kept:
            self._standby = self._new_seat()
            if not self.evicted:
                self._standby.keep()
        elif not wanted and self._standby is not None:
            seat, self._standby = self._standby, None
            self._serving[0].crashes += seat.crashes  # the version's count of crashes must never fall
            self._release(seat)

    @property
    def has_standby(self) -> bool:
        return self._standby is not None

    def hurry(self) -> None:
        """Restart now what is down, load now what was evicted: somebody needs this version."""
        self.wake()
        for seat in self._seats:
            seat.hurry()

    async def ensure(self) -> None:
        """Return when every serving process is up; try to start now those that are down and raise why if that fails."""
        self.wake()
        await first_fault([seat.ensure for seat in self._serving])

    def back_within(self, seconds: float) -> bool:
        """Whether it is worth waiting that long for it: not when the next start is later than that."""
        return any(seat.back_within(seconds) for seat in self._serving)

    async def retire(self, grace: timedelta) -> None:
        """Stop keeping it alive, wait at most `grace` for what is in flight, end the processes. Repeats are fine."""
        self._kept = False
        self._live = []
        if self._standby is not None:
            seat, self._standby = self._standby, None
            self._release(seat)
        await asyncio.gather(*(seat.retire(grace) for seat in self._serving), *self._leaving)
        for seat in self._serving:
            self._free_core(seat)

    def _release(self, seat: Seat) -> None:
        self._free_core(seat)
        task = asyncio.create_task(seat.retire(NO_GRACE), name=f"end a standby of {self.ref.plugin} {self.ref.version}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def renew(self, worn: Callable[[HostHandle], bool]) -> None:
        """Have fresh processes take over from those that are worn, soon; nothing is lost."""
        for seat in self._seats:
            if seat.handle is not None and worn(seat.handle):
                seat.renew()

    # -- sleep ---------------------------------------------------------------------------------------------------

    @property
    def evicted(self) -> bool:
        return self._serving[0].state is HostState.EVICTED

    @property
    def settled(self) -> bool:
        """Every process is up and nothing is in flight on any: it may be evicted without anybody noticing."""
        return self._kept and all(
            seat.state is HostState.READY and (seat.handle is None or not seat.handle.in_flight) for seat in self._seats
        )

    def inherit_crashes(self, crashes: int) -> None:
        """Add those before this process of the node; a later word replaces an earlier one."""
        self._serving[0].crashes += crashes - self._inherited_crashes
        self._inherited_crashes = crashes

    def handles(self) -> list[HostHandle]:
        """Every live process, the standby's included."""
        return [seat.handle for seat in self._seats if seat.handle is not None]

    def evict(self) -> None:
        """End its processes until somebody asks for it. Only when `settled`; out of use before this returns."""
        for seat in reversed(self._seats):  # the standby first, or it would take over
            seat.evict()

    def wake(self) -> None:
        """Load again what was evicted."""
        if self.evicted:
            self._tally.reloads += 1
            self.used_at = monotonic()
            for seat in self._seats:
                seat.keep()

    # -- making a process ----------------------------------------------------------------------------------------

    async def _launch(self, seat: Seat) -> HostHandle:
        spec = await self._prepare(self.ref)
        self._add_seats(spec)
        return await self._start(seat, spec)

    async def _start(self, seat: Seat, spec: HostSpec) -> HostHandle:
        if seat is not self._standby and seat.core is not None:
            spec = spec.model_copy(update={"core": seat.core})
        handle = await self._launcher.launch(spec)
        try:
            await handle.ping(PROBE_TIMEOUT)  # the warm-up call: no request meets a host that never answered
        except BaseException:
            await handle.close()
            raise
        return handle

    def _add_seats(self, spec: HostSpec) -> None:
        """As many as the manifest says, once it is known: each of several is pinned to a core of its own.

        A standby is not: the core that will be free is not known until a process dies, so the system places it.
        """
        if len(self._serving) >= spec.concurrency:
            return
        started = any(seat.kept for seat in self._serving)
        self._serving += [self._new_seat() for _ in range(spec.concurrency - len(self._serving))]
        for seat in self._serving:
            seat.core = self._cores.take()
            if started:
                seat.keep()

    def _free_core(self, seat: Seat) -> None:
        if seat.core is not None:
            self._cores.give_back(seat.core)
            seat.core = None

    # -- telling -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> HostState:
        """Of the version: Ready when at least one process serves."""
        return HostState.READY if self._live else self._serving[0].state

    def lineup(self) -> Lineup:
        """A process that died and was not reported yet may be in it."""
        standby = self._standby.handle if self._standby is not None else None
        return Lineup(tuple(self._live), standby, self.evicted, min(seat.back_at for seat in self._serving))

    @property
    def faulty(self) -> bool:
        """A serving process is down, or its latest probe failed."""
        return any(seat.state is HostState.CRASHED or seat.probe_failures > 0 for seat in self._serving)

    @property
    def crashes(self) -> int:
        """Of all its processes, ever; never falls."""
        return sum(seat.crashes for seat in self._seats)

    @property
    def last_error(self) -> str:
        return next((seat.last_error for seat in self._serving if seat.last_error), "")

    async def probe(self) -> float:
        """Ask every serving process now, loading the version if it was evicted; returns the slowest's milliseconds.

        Raises HostFailed, PluginError: the first fault; each process counts its own consecutive failures.
        """
        if self.evicted:
            await self.ensure()
        answers = await asyncio.gather(*(seat.probe() for seat in self._serving), return_exceptions=True)
        slowest = 0.0
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            slowest = max(slowest, answer)
        return slowest

    def reports(self) -> list[HostReport]:
        """Every process, the standby last."""
        tier = self._launcher.sandbox_tier
        reports = [seat.report(tier, standby=False) for seat in self._serving]
        if self._standby is not None:
            reports.append(self._standby.report(tier, standby=True))
        return reports

    def _fields(self) -> dict[str, str]:
        return {"plugin": self.ref.plugin, "version": self.ref.version}


async def first_fault(work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Do all of it in parallel; the first failure stops the others and is raised."""
    if len(work) == 1:
        await work[0]()
        return
    try:
        async with asyncio.TaskGroup() as group:
            for part in work:
                group.create_task(_run(part))
    except BaseExceptionGroup as faults:
        raise faults.exceptions[0] from None


async def _run(part: Callable[[], Awaitable[None]]) -> None:
    await part()
