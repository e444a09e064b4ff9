"""How a node's process ends, and what the one that takes its place is told of what it counted."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from hotswap.config import NodeSettings
from hotswap.domain.analysis import FloodFigures, VersionFigures
from hotswap.node.admin import AdminServer
from hotswap.node.backlog import FIRST_WINDOW
from hotswap.node.figures import FigureBook, ToldCounter
from hotswap.node.handover import Predecessor, Successor
from hotswap.node.handover_link import Counted
from hotswap.node.orders import Orders
from hotswap.node.reconcile import Reconciler
from hotswap.node.succession import Succession, drain_grace
from tests.http.router_client import QUICK, Bench, bench, request
from tests.unit.node_fakes import eventually, order

QUEUED = 5
LIMITS = replace(QUICK, connections=2000, queued=QUEUED, read_seconds=60, write_seconds=60, idle_seconds=60)


@pytest.mark.parametrize(("invoke_timeout", "grace"), [(5, 35), (30, 35), (31, 36), (600, 605)])
def test_what_runs_at_the_end_may_take_as_long_as_a_request_may(invoke_timeout: int, grace: int) -> None:
    assert drain_grace(NodeSettings(invoke_timeout=timedelta(seconds=invoke_timeout))) == timedelta(seconds=grace)


class Around:
    """What a process that ends has besides its router: an admin port, and routes that it follows."""

    async def close(self) -> None: ...

    async def catch_up(self) -> None: ...

    async def beat(self) -> None: ...

    def start(self) -> None: ...

    async def follow_to_the_end(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Next:
    """The process that takes the place, and what it was told until when."""

    book: FigureBook = field(default_factory=FigureBook)
    words: list[str] = field(default_factory=list)

    async def released(self, counted: Iterable[Counted]) -> None:
        self._hear(counted, "released")

    async def also(self, counted: Iterable[Counted]) -> None:
        self._hear(counted, "also")

    async def gone(self, counted: Iterable[Counted]) -> None:
        self._hear(counted, "gone")

    def _hear(self, counted: Iterable[Counted], word: str) -> None:
        for one in counted:
            self.book.inherit(one.plugin, one.version, one.told)
        self.words.append(word)

    def knows(self) -> VersionFigures:
        [found] = self.book.window("invoice", datetime.now(UTC) - timedelta(minutes=1))
        return found


class Before:
    """The process before this one, which still answers its last requests."""

    def __init__(self, told: Counted) -> None:
        self.told = told
        self.ends = asyncio.Event()

    async def taken(self, inherit: object) -> None: ...

    async def until_gone(self, inherit: object) -> None:
        await self.ends.wait()
        inherit(self.told)  # type: ignore[operator]
        await asyncio.Event().wait()


@dataclass
class Old:
    made: Bench
    succession: Succession
    after: Next = field(default_factory=Next)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def lets_go(self) -> None:
        await self.succession.let_go(cast(Successor, self.after), self.stop)


@asynccontextmanager
async def ending(folder: Path) -> AsyncIterator[Old]:
    async with bench(LIMITS, timedelta(minutes=5)) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        node = NodeSettings(data_dir=folder, drain_idle=timedelta(0))
        around = Around()
        succession = Succession(
            node,
            made.supervisor,
            made.book,
            made.router,
            cast(AdminServer, around),
            cast(Orders, around),
            cast(Reconciler, around),
        )
        yield Old(made, succession)


async def flooded(made: Bench, turned_away: int) -> None:
    """One tenant has more under way than the version takes, and so many requests were turned away a moment ago."""
    for _ in range(FIRST_WINDOW + 1 + QUEUED):
        wire = await made.wire()
        before = made.router.in_flight
        await wire.send(request("hold", "flood"))
        await eventually(lambda before=before: made.router.in_flight > before)
    made.router.queues.settle()
    assert {(await made.call("hold", "flood")).status for _ in range(turned_away)} == {503}


def answer_all(made: Bench) -> None:
    for host in made.launcher.live():
        host.begins = 1000
        host.release()


async def test_what_is_held_back_of_a_busy_version_is_told_at_the_end(tmp_path: Path) -> None:
    async with ending(tmp_path) as old:
        await flooded(old.made, 3)
        old.stop.set()
        end = asyncio.create_task(old.lets_go())
        await eventually(lambda: old.after.words)
        while not end.done():
            answer_all(old.made)
            await asyncio.sleep(0.002)
        await end
        assert old.after.words[-1] == "gone"
        knows = old.after.knows()
        assert (knows.requests, knows.failures) == (3 + FIRST_WINDOW + 1 + QUEUED, 3)
        assert knows.flood is not None
        assert knows.flood.turned_away == 3


async def test_it_is_told_when_it_is_known_who_is_to_blame_while_connections_stay(tmp_path: Path) -> None:
    async with ending(tmp_path) as old:
        await flooded(old.made, 3)
        end = asyncio.create_task(old.lets_go())
        await eventually(lambda: "also" in old.after.words)
        assert old.after.knows().flood == FloodFigures(turned_away=3)
        assert old.after.words == ["released", "also"]
        old.stop.set()
        while not end.done():
            answer_all(old.made)
            await asyncio.sleep(0.002)
        await end


async def test_what_the_process_before_told_last_is_told_on(tmp_path: Path) -> None:
    told = ToldCounter(seconds=[(0.0, 1, 0, 0, [])], minutes=[])
    before = Before(Counted(plugin="old-plugin", version="1.0.0", crashes=0, told=told))
    async with ending(tmp_path) as old:
        await old.succession.take_over(cast(Predecessor, before))
        await old.succession.close(replaced=True)
        held = await old.made.wire()
        await held.send(request("hold"))
        await eventually(lambda: old.made.router.in_flight == 1)
        end = asyncio.create_task(old.lets_go())
        await eventually(lambda: old.after.words == ["released"])
        before.ends.set()
        await eventually(lambda: ("old-plugin", "1.0.0") in old.made.book.known())
        old.stop.set()
        answer_all(old.made)
        await end
        assert ("old-plugin", "1.0.0") in old.after.book.known()
