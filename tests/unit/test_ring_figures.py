"""The node's own figures: what a window holds, what it costs in memory, what is never counted."""

from datetime import UTC, datetime, timedelta

import pytest

from hotswap.analysis.histogram import quantile
from hotswap.node.figures import FigureBook, Result, ToldCounter, VersionCounter

EPOCH = datetime(2026, 1, 31, tzinfo=UTC)


class Clock:
    """Monotonic and wall time that move together unless the wall is set."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.25
        self.skew = timedelta(0)

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds) + self.skew


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> FigureBook:
    return FigureBook(clock.monotonic, clock.wall)


def test_a_process_that_takes_over_has_the_windows_of_those_before_it(clock: Clock, book: FigureBook) -> None:
    def count(where: FigureBook, seconds: int, result: Result = Result.OK) -> None:
        for _ in range(seconds):
            where.counter("invoice", "1.0.0").record(clock.seconds, 0.004, result)
            clock.seconds += 1

    def hand_over(old: FigureBook, new: FigureBook) -> None:
        for plugin, version in old.known():
            told = ToldCounter.model_validate_json(old.told(plugin, version).model_dump_json())
            new.inherit(plugin, version, told)

    second, third = (FigureBook(clock.monotonic, clock.wall) for _ in range(2))
    count(book, 400, Result.ERROR)
    hand_over(book, second)
    count(book, 2)  # what it still had to answer, while the next one serves
    clock.seconds -= 2
    count(second, 30)
    hand_over(book, second)  # its last word holds in place of the one before
    hand_over(second, third)
    count(third, 5)
    [whole] = third.window("invoice", clock.wall() - timedelta(hours=1))
    assert (whole.requests, whole.errors, sum(whole.latency_buckets.values())) == (437, 400, 437)
    [recent] = third.window("invoice", clock.wall() - timedelta(seconds=34.5))
    assert (recent.requests, recent.errors) == (37, 0)
    assert third.counter("invoice", "1.0.0").totals().requests == 5  # Prometheus knows that counters begin anew
    clock.seconds += 26 * 3600
    third.forget({("invoice", "1.0.0")})
    [forgotten] = third.window("invoice", clock.wall() - timedelta(hours=25))
    assert forgotten.requests == 0


def test_a_window_counts_what_happened_since(clock: Clock, book: FigureBook) -> None:
    counter = book.counter("invoice", "1.0.0")
    for _ in range(10):
        counter.record(clock.seconds, 0.004, Result.OK)
        clock.seconds += 1
    counter.record(clock.seconds, 0.5, Result.ERROR)
    [whole] = book.window("invoice", clock.wall() - timedelta(minutes=1))
    assert (whole.requests, whole.errors, whole.failures) == (11, 1, 0)
    [recent] = book.window("invoice", clock.wall() - timedelta(seconds=2.9))
    assert recent.requests in (3, 4)  # the slot that holds the beginning counts whole
    assert sum(recent.latency_buckets.values()) == recent.requests
    [nothing] = book.window("invoice", clock.wall() + timedelta(seconds=5))
    assert nothing.requests == 1  # the second that is still open


def test_failures_are_errors_without_a_latency(clock: Clock, book: FigureBook) -> None:
    counter = book.counter("invoice", "1.0.0")
    counter.record(clock.seconds, 2.0, Result.FAILURE)
    counter.record(clock.seconds, 0.010, Result.OK)
    [figures] = book.window("invoice", clock.wall() - timedelta(seconds=10))
    assert (figures.requests, figures.errors, figures.failures) == (2, 1, 1)
    assert quantile(figures.latency_buckets, 1.0) < 11


def test_long_windows_come_from_minutes_and_end_after_a_day(clock: Clock, book: FigureBook) -> None:
    counter = book.counter("invoice", "1.0.0")
    for _ in range(26 * 60):  # 26 hours, one request a minute
        counter.record(clock.seconds, 0.004, Result.OK)
        clock.seconds += 60
    for hours in (1, 6, 24):
        [figures] = book.window("invoice", clock.wall() - timedelta(hours=hours))
        assert abs(figures.requests - hours * 60) <= 1, hours
    [everything] = book.window("invoice", clock.wall() - timedelta(days=9))
    assert 25 * 60 <= everything.requests <= 25 * 60 + 2
    assert counter.totals().requests == 26 * 60


def test_a_window_just_beyond_the_fine_slots_loses_nothing(clock: Clock, book: FigureBook) -> None:
    counter = book.counter("invoice", "1.0.0")
    for _ in range(900):
        counter.record(clock.seconds, 0.004, Result.OK)
        clock.seconds += 1
    for seconds in (10, 299, 301, 330, 600):
        [figures] = book.window("invoice", clock.wall() - timedelta(seconds=seconds))
        slack = 1 if seconds <= 300 else 60
        assert seconds - 1 <= figures.requests <= seconds + slack, seconds


def test_setting_the_wall_clock_moves_no_counts(clock: Clock, book: FigureBook) -> None:
    book.counter("invoice", "1.0.0").record(clock.seconds, 0.004, Result.OK)
    clock.seconds += 20
    clock.skew = timedelta(hours=-3)
    [recent] = book.window("invoice", clock.wall() - timedelta(seconds=5))
    assert recent.requests == 0


def test_slots_are_dropped_as_time_passes() -> None:
    counter = VersionCounter(0.0)
    for second in range(3_000):
        counter.record(float(second), 0.004, Result.OK)
    assert len(counter._seconds) <= 303
    assert len(counter._minutes) == 49


def test_plugins_are_apart_and_versions_in_order(clock: Clock, book: FigureBook) -> None:
    for plugin, version in (("b", "2.0.0"), ("a", "1.1.0"), ("a", "1.0.0")):
        book.counter(plugin, version).record(clock.seconds, 0.001, Result.OK)
    assert [item.version for item in book.window("a", clock.wall() - timedelta(seconds=9))] == ["1.0.0", "1.1.0"]
    assert book.window("c", clock.wall()) == ()


def test_counters_are_forgotten_only_when_unused_for_a_day(clock: Clock, book: FigureBook) -> None:
    book.counter("a", "1.0.0").record(clock.seconds, 0.001, Result.OK)
    book.counter("a", "2.0.0").record(clock.seconds, 0.001, Result.OK)
    clock.seconds += 24 * 3600
    book.forget({("a", "2.0.0")})
    assert [version for _, version in book.keys()] == ["1.0.0", "2.0.0"]  # noqa: SIM118 - a method of its own
    clock.seconds += 2 * 3600
    book.forget({("a", "2.0.0")})
    assert [version for _, version in book.keys()] == ["2.0.0"]  # noqa: SIM118 - a method of its own


def test_a_counter_with_a_request_just_now_is_not_forgotten(clock: Clock, book: FigureBook) -> None:
    counter = book.counter("a", "1.0.0")
    clock.seconds += 30 * 3600
    counter.record(clock.seconds, 0.001, Result.OK)
    book.forget(set())
    [figures] = book.window("a", clock.wall() - timedelta(seconds=9))
    assert figures.requests == 1
