"""The queues of all busy versions of a router: a Backlog each, pumped whenever a process has begun what it had.

Neighbours: hotswap.node.backlog has the order and the bounds, hotswap.node.router decides and hands over.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

from hotswap.node.backlog import FIRST_WINDOW, Backlog
from hotswap.node.exchange import Exchange
from hotswap.node.figures import Result
from hotswap.node.routes import Route
from hotswap.node.serving import Recorder, ServedVersion
from hotswap.node.strain import STRETCH_SECONDS, Settled, Strain
from hotswap.ports.hosts import CallTaker

POLL_SECONDS = 0.001
"""Between looks at processes that begin calls without ending any, while requests wait for them."""


@dataclass(frozen=True, slots=True)
class Together:
    """Several routers call the same processes; each gives them its part of what they take."""

    routers: int
    answered: Callable[[ServedVersion], int]
    """Calls that the version's processes have answered, of all routers; less than before when a process was replaced."""


class Queues:
    """Belongs to one event loop. `size` is how many requests wait, all versions together."""

    def __init__(
        self,
        limit: int,
        in_flight_per_host: int,
        submit: Callable[[Exchange, ServedVersion], bool],
        turn_away: Callable[[Exchange], None],
        together: Together | None = None,
    ) -> None:
        """`submit(exchange, host)`: its turn at this version has come; False when that was too late. `turn_away`: there is
        no room for it.
        """
        self.size = 0
        self._limit = limit
        self._in_flight_per_host = in_flight_per_host
        self._submit = submit
        self._turn_away = turn_away
        self._loop = asyncio.get_running_loop()
        self._backlogs: dict[ServedVersion, Backlog] = {}
        """Versions that were too busy at least once: what was learned of them stays while they are routed."""
        self._together = together
        self._routers = together.routers if together is not None else 1
        self._pumping = False
        self._poller: asyncio.TimerHandle | None = None
        self._strains: dict[ServedVersion, Strain] = {}
        """Of the same versions as `_backlogs`."""
        self._settler: asyncio.TimerHandle | None = None

    @property
    def known(self) -> bool:
        """Whether any version was too busy so far. While none was, calls under way tell enough."""
        return bool(self._backlogs)

    @property
    def unsettled(self) -> int:
        """Requests that have ended and are counted when their stretch is over, a second later at most."""
        return sum(strain.unsettled for strain in self._strains.values())

    def is_behind(self, host: ServedVersion, handle: CallTaker) -> bool:
        """Whether the process has enough before it, or others wait for its version already."""
        backlog = self._backlogs.get(host)
        if backlog is None:
            return self._is_full(handle, FIRST_WINDOW // self._routers)
        return backlog.size > 0 or self._is_full(handle, self._part(host, backlog))

    def _part(self, host: ServedVersion, backlog: Backlog) -> int:
        """This router's part of the window of one process, rounded up: what one leaves free no other may fill at once."""
        return math.ceil((backlog.window // (host.processes or 1) or 1) / self._routers)

    def _is_full(self, handle: CallTaker, window: int) -> bool:
        """`window` is that of one process."""
        return handle.unbegun() >= window or handle.in_flight >= self._in_flight_per_host

    def add(self, exchange: Exchange, host: ServedVersion) -> None:
        """Let it wait for its turn; whoever is too much is told at once."""
        backlog = self._backlogs.get(host)
        if backlog is None:
            backlog = self._backlogs[host] = Backlog(self._routers)
        strain = self._strain(host)
        strain.asked(exchange.tenant, backlog.size)
        full = self.size >= self._limit
        turned_away = exchange if full else backlog.offer(exchange, monotonic())
        if turned_away is None:
            self.size += 1
        else:
            strain.turned_away(elsewhere=full and backlog.size < self.size / 2)
            if turned_away is exchange:
                self._turn_away(exchange)
            else:
                # Later: its connection may go on with a request that turns the next one away, as deep as a client likes.
                self._loop.call_soon(self._turn_away, turned_away)
        if self._poller is None and self.size:
            self._poller = self._loop.call_later(POLL_SECONDS, self._poll)

    def leave(self, exchange: Exchange) -> None:
        """Its client has gone."""
        assert exchange.backlog is not None
        exchange.backlog.leave(exchange, monotonic())
        self.size -= 1

    def ended(self, host: ServedVersion) -> None:
        """A call has ended while requests wait: perhaps for this version."""
        backlog = self._backlogs.get(host)
        if backlog is not None and backlog.size:
            if self._together is None:
                backlog.ended(monotonic())
            self._pump(host, backlog)

    def _pump(self, host: ServedVersion, backlog: Backlog) -> None:
        """Hand over who waits for the version, as far as its process has begun what it has."""
        if self._pumping:
            return
        self._pumping = True
        try:
            if self._together is not None:
                backlog.answered(monotonic(), self._together.answered(host))
            window = self._part(host, backlog)
            while backlog.size and ((handle := host.pick()) is None or not self._is_full(handle, window)):
                exchange = backlog.take(monotonic())
                self.size -= 1
                if self._submit(exchange, host):
                    self._strains[host].taken()
                else:
                    self._strains[host].withdrawn(exchange.tenant, monotonic() - exchange.started)
                    backlog.came_late()
        finally:  # a fault with one request must not keep all others waiting for ever
            self._pumping = False

    def of(self, plugin: str) -> list[Exchange]:
        """Everybody who waits for a version of the plugin, in turn, to be decided for anew; they wait here no more."""
        everybody = []
        now = monotonic()
        for host, backlog in self._backlogs.items():
            if backlog.size and host.ref.plugin == plugin:
                for exchange in self._taken([backlog]):
                    self._strains[host].withdrawn(exchange.tenant, now - exchange.started)
                    everybody.append(exchange)
        return everybody

    def came_late(self, exchange: Exchange, host: ServedVersion, now: float) -> None:
        """Its time is over, most of which the version was too busy for it: as if it had been turned away."""
        strain = self._strains.get(host)
        if strain is not None and (strain.active or exchange.turn_came):
            strain.came_late(exchange.tenant)
        else:  # nobody waits there but in the process itself, or it is routed no more
            host.counter.record(now, now - exchange.started, Result.FAILURE)

    def forget(self, routes: Iterable[Route]) -> None:
        """Drop what was learned of versions that no route names any more."""
        if self._backlogs:
            routed = {host for route in routes for host in route.hosts.values()}
            kept = {host: backlog for host, backlog in self._backlogs.items() if backlog.size or host in routed}
            self._backlogs = kept
            for host in [host for host in self._strains if host not in kept]:
                self._strains.pop(host).settle()

    def close(self) -> list[Exchange]:
        """Everybody who waits; nobody is pumped any more."""
        if self._poller is not None:
            self._poller.cancel()
        if self._settler is not None:
            self._settler.cancel()
        self.settle()
        return self._taken(self._backlogs.values())

    def _taken(self, backlogs: Iterable[Backlog]) -> list[Exchange]:
        now = monotonic()
        everybody = [exchange for backlog in backlogs for exchange in backlog.empty(now)]
        self.size -= len(everybody)
        return everybody

    def counts(self, host: ServedVersion) -> Recorder:
        """Where a call that has ended is counted: held back while it may be a flood that made it slow."""
        strain = self._strains.get(host)
        return strain if strain is not None and strain.active else host.counter

    def _strain(self, host: ServedVersion) -> Strain:
        strain = self._strains.get(host)
        if strain is None:

            def settle(settled: Settled) -> None:
                host.counter.absorb(monotonic(), settled.counted, flood=settled.flood)

            strain = self._strains[host] = Strain(host.ref, settle)
        if self._settler is None:
            self._settler = self._loop.call_later(STRETCH_SECONDS, self._settle)
        return strain

    def busy(self) -> set[tuple[str, str]]:
        """Plugin and version of those that something may be held back of."""
        return {(host.ref.plugin, host.ref.version) for host, strain in self._strains.items() if strain.active}

    def settle(self) -> None:
        """Count what is held back."""
        for strain in self._strains.values():
            if strain.active:
                strain.settle()

    def _settle(self) -> None:
        """A stretch is over."""
        self.settle()
        self._settler = self._loop.call_later(STRETCH_SECONDS, self._settle) if self._strains else None

    def _poll(self) -> None:
        self._poller = self._loop.call_later(POLL_SECONDS, self._poll)
        for host, backlog in list(self._backlogs.items()):
            if backlog.size:
                self._pump(host, backlog)
        if not self.size:
            self._poller.cancel()
            self._poller = None
