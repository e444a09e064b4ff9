"""Who is to blame for what a busy version turned away."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.domain.analysis import FloodFigures, VersionFigures
from hotswap.node.figures import FigureBook, Result, Slot, ToldCounter
from hotswap.node.journal import Counted, Journal, JournalMemory
from hotswap.node.pool_figures import PoolFigures
from hotswap.node.strain import CROWD, Settled, Strain
from tests.unit.node_fakes import ref


class Stretch:
    """A version under strain, and what it came to."""

    def __init__(self) -> None:
        self.settled: list[Settled] = []
        self.strain = Strain(ref("1.0.0"), self.settled.append)

    def passes(
        self, asked: Mapping[str, int], taken: int, away: int, waiting: int = CROWD, elsewhere: bool = False
    ) -> Settled:
        """One stretch: who asked how often, how many had their turn (and ended), how many were turned away."""
        for tenant, count in asked.items():
            for _ in range(count):
                self.strain.asked(tenant, waiting)
        for _ in range(taken):
            self.strain.taken()
            self.strain.record(1.0, 0.3, Result.OK)
        for _ in range(away):
            self.strain.turned_away(elsewhere=elsewhere)
        self.strain.settle()
        return self.settled[-1]

    def fades(self) -> int:
        """Settled until it is at rest; how often that was."""
        before = len(self.settled)
        while self.strain.active:
            self.strain.settle()
        return len(self.settled) - before


ALIKE = {f"tenant-{number}": 20 for number in range(10)}


@pytest.mark.parametrize(
    ("asked", "taken", "away", "flood"),
    [
        ({"flood": 600, "a": 20, "b": 30}, 200, 450, True),
        ({"flood": 600, "a": 100, "b": 100}, 200, 600, True),  # without the flood, just enough for both
        ({"flood": 600, "a": 100, "b": 101}, 200, 601, False),  # without it, one too many all the same
        ({"only": 600}, 200, 400, True),
        (ALIKE, 100, 100, False),
        (ALIKE, 0, 200, False),
        ({"large": 120, **ALIKE}, 199, 121, False),
    ],
)
def test_it_is_a_flood_if_without_its_tenant_there_was_enough_for_all(
    asked: dict[str, int], taken: int, away: int, flood: bool
) -> None:
    settled = Stretch().passes(asked, taken, away)
    if flood:
        assert settled.flood is not None
        assert (settled.flood.requests, settled.flood.failures, sum(settled.flood.buckets.values())) == (
            away,
            away,
            taken,
        )
        assert (settled.counted.requests, settled.counted.errors, settled.counted.buckets) == (taken, 0, {})
    else:
        assert settled.flood is None
        assert (settled.counted.requests, settled.counted.failures) == (taken + away, away)
        assert sum(settled.counted.buckets.values()) == taken


@pytest.mark.parametrize(
    ("asked", "waiting", "aside"),
    [
        ({"a": 100, "b": 60}, CROWD, True),
        ({"a": 100, "b": 60}, CROWD - 1, False),  # the ordinary life of a busy version
        (ALIKE, 5 * CROWD, False),
    ],
)
def test_latencies_beside_a_crowd_of_one_tenant_are_put_aside(asked: dict[str, int], waiting: int, aside: bool) -> None:
    settled = Stretch().passes(asked, sum(asked.values()), 0, waiting)
    assert bool(settled.counted.buckets) is not aside
    assert settled.counted.requests == sum(asked.values())
    assert (settled.flood is not None) is aside


def test_errors_of_the_plugin_count_in_a_flood_as_ever() -> None:
    stretch = Stretch()
    for _ in range(100):
        stretch.strain.asked("flood", CROWD)
    stretch.strain.record(1.0, 0.1, Result.ERROR)
    stretch.strain.turned_away()
    stretch.strain.settle()
    [settled] = stretch.settled
    assert (settled.counted.requests, settled.counted.errors) == (1, 1)


def test_a_node_full_of_others_requests_is_no_fault_of_the_version() -> None:
    settled = Stretch().passes(ALIKE, 0, 50, elsewhere=True)
    assert settled.counted.requests == 0
    assert settled.flood is not None
    assert settled.flood.failures == 50


def test_a_version_that_ends_a_call_every_other_second_has_served_something_in_between() -> None:
    stretch = Stretch()
    for number in range(20):
        settled = stretch.passes({"flood": 50} | ({"a": 1} if number % 4 == 1 else {}), number % 2, 49)
        assert number == 0 or settled.flood is not None, number


@pytest.mark.parametrize(("late", "flood"), [({"flood": 40, "a": 3}, True), (dict.fromkeys("abcdef", 4), False)])
def test_who_waited_in_vain_for_longer_than_is_remembered_asked_until_now(late: dict[str, int], flood: bool) -> None:
    stretch = Stretch()
    for tenant, count in late.items():
        for _ in range(count):
            stretch.strain.asked(tenant, CROWD)
    stretch.fades()
    for _ in range(5):
        stretch.strain.taken()
    for tenant, count in late.items():
        for _ in range(count):
            stretch.strain.came_late(tenant)
    assert stretch.strain.active, "or nobody would settle it"
    stretch.strain.settle()
    assert (stretch.settled[-1].flood is not None) is flood
    assert stretch.settled[-1].counted.failures == (0 if flood else 24)


def test_a_version_that_takes_nothing_while_time_runs_out_hangs_also_for_its_only_tenant() -> None:
    stretch = Stretch()
    for _ in range(60):
        stretch.strain.asked("only", CROWD)
        stretch.strain.came_late("only")
    stretch.strain.settle()
    assert stretch.settled[-1].flood is None
    assert stretch.settled[-1].counted.failures == 60


def test_who_is_decided_for_anew_has_asked_but_once() -> None:
    stretch = Stretch()
    for _ in range(5):
        stretch.strain.asked("a", CROWD)
        stretch.strain.settle()
        stretch.strain.withdrawn("a", 1.0)
    assert stretch.passes({"flood": 50, "a": 1}, 1, 49).flood is not None


def test_what_is_held_back_is_settled_also_when_all_who_waited_were_decided_for_anew() -> None:
    stretch = Stretch()
    stretch.strain.asked("a", CROWD)
    stretch.strain.record(1.0, 0.3, Result.OK)
    stretch.strain.withdrawn("a", 0.0)
    assert stretch.strain.active
    stretch.strain.settle()
    assert stretch.settled[-1].counted.requests == 1


def test_old_stretches_fade_until_it_is_at_rest() -> None:
    stretch = Stretch()
    stretch.passes({"flood": 1000}, 10, 900)
    assert stretch.fades() < 60


def test_the_flooder_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    stretch = Stretch()
    for _ in range(3):
        stretch.passes({"acme": 500, "b": 1}, 100, 300)
    [record] = caplog.records
    assert "tenant acme asks for more of invoice 1.0.0 than it serves" in record.getMessage()


def whole_and_flood(book: FigureBook, clock: Callable[[], datetime]) -> tuple[int, int, int, FloodFigures | None]:
    [found] = book.window("invoice", clock() - timedelta(minutes=1))
    return found.requests, found.failures, sum(found.latency_buckets.values()), found.flood


def test_figures_hold_floods_apart_and_in_the_whole_also_of_router_processes_and_after_a_hand_over() -> None:
    def wall() -> datetime:
        return datetime(2026, 1, 31, tzinfo=UTC)

    book, next_book, third = (FigureBook(lambda: 1000.5, wall) for _ in range(3))
    flood = Slot(0.0, buckets={300: 40})
    flood.turned_away(60)
    counted = Counted("invoice", "1.0.0", Journal(JournalMemory().descriptor))
    counted.record(1000.5, 0.01, Result.OK)
    counted.absorb(1000.5, Slot(0.0, requests=40), flood=flood)
    PoolFigures(book).absorb(json.loads(json.dumps([["invoice", "1.0.0", counted.taken()]])))
    assert counted.taken() is None
    expected = (101, 60, 41, FloodFigures(turned_away=60, latency_buckets={300: 40}))
    assert whole_and_flood(book, wall) == expected
    totals = book.counter("invoice", "1.0.0").totals()
    assert (totals.requests, totals.failures) == (101, 60)
    for old, new in ((book, next_book), (next_book, third)):
        new.inherit("invoice", "1.0.0", ToldCounter.model_validate_json(old.told("invoice", "1.0.0").model_dump_json()))
        assert whole_and_flood(new, wall) == expected


def test_figures_without_a_flood_say_nothing_of_it_that_an_older_worker_would_refuse() -> None:
    assert "flood" not in VersionFigures(version="1.0.0", requests=3).model_dump_json()
