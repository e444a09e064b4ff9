"""What the router processes of a node counted, added up: gauges, refusals, and every version's figures.

The half of hotswap.node.router_pool that hotswap.node.metrics and admin ask (as RouterGauges).
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Any

from hotswap.node.figures import FigureBook, Slot
from hotswap.node.journal import name_of
from hotswap.node.router_process import RouterProcess

FIGURES_PATIENCE = 1.0
"""Seconds that somebody who asks for figures waits for a router's last ones; the platform's patience is 2 s."""


class PoolFigures:
    """Gauges are as the routers told last, a quarter of a second ago at most; `refresh` makes all of it the present."""

    def __init__(self, book: FigureBook) -> None:
        self.deaths = 0
        """Routers that ended unasked."""
        self._book = book
        self._processes: dict[int, RouterProcess] = {}
        self._refused_before: Counter[str] = Counter()
        """By routers that have ended."""

    @property
    def processes(self) -> list[RouterProcess]:
        """Those that there are, started a moment ago or serving."""
        return [process for process in self._processes.values() if not process.gone]

    @property
    def live(self) -> list[RouterProcess]:
        """Those that serve."""
        return [process for process in self._processes.values() if process.live]

    @property
    def routers(self) -> int:
        return len(self.live)

    @property
    def connections(self) -> int:
        return self._gauge("connections")

    @property
    def in_flight(self) -> int:
        return self._gauge("in_flight")

    @property
    def waiting(self) -> int:
        return self._gauge("waiting")

    @property
    def queued(self) -> int:
        return self._gauge("queued")

    @property
    def unsettled(self) -> int:
        """Requests that have ended and are not among the figures yet (hotswap.node.strain)."""
        return self._gauge("unsettled")

    @property
    def metered(self) -> int:
        return self._gauge("metered")

    @property
    def refused(self) -> Counter[str]:
        return sum((Counter(process.refused) for process in self._processes.values()), self._refused_before.copy())

    def _gauge(self, name: str) -> int:
        return sum(process.gauges.get(name, 0) for process in self._processes.values())

    async def refresh(self) -> None:
        """Have all tell what they counted until now; one that does not answer in time is left out."""
        await asyncio.gather(*(process.ask(FIGURES_PATIENCE, kill=False) for process in self.live))

    def absorb(self, counts: Sequence[Sequence[Any]]) -> None:
        """What a router has counted since it told last."""
        now = monotonic()
        for plugin, version, told in counts:
            slot = Slot(now, told["requests"], told["errors"], told["failures"], dict(told["buckets"]))
            turned_away, buckets = told.get("flood", (0, ()))
            flood = Slot(now, turned_away, turned_away, turned_away, dict(buckets)) if turned_away or buckets else None
            self._book.counter(plugin, version).absorb(now, slot, told["rejected"], flood)

    def buried(self, process: RouterProcess) -> None:
        """It has ended: what it counted for good stays counted, and what it did not live to tell is read from its journal."""
        self._refused_before.update(process.refused)
        process.refused = {}
        now = monotonic()
        untold = process.journal.since(process.notes)
        process.journal.close()
        for plugin, version in self._book.keys() if untold else ():
            if (counted := untold.get(name_of(plugin, version))) is not None:
                self._book.counter(plugin, version).absorb(now, *counted)
