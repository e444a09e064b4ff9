"""The fair, bounded queue of a busy version: order, bounds, who is turned away, what it learns. Time is given, never read."""

from types import SimpleNamespace
from typing import cast

import pytest

from hotswap.node.backlog import (
    BURST_SECONDS,
    FIRST_RATE,
    FIRST_WINDOW,
    MAX_WINDOW,
    MIN_BURST,
    MIN_WINDOW,
    MODEST,
    START_DELAY,
    Backlog,
)
from hotswap.node.exchange import Exchange

NOW = 50.0


def exchange(tenant: str, number: int = 0) -> Exchange:
    return cast(Exchange, SimpleNamespace(tenant=tenant, number=number, backlog=None))


def fill(backlog: Backlog, tenant: str, count: int, now: float = NOW) -> list[Exchange]:
    """Offer `count` requests; returns who was turned away for them."""
    away = [backlog.offer(exchange(tenant, number), now) for number in range(count)]
    return [one for one in away if one is not None]


def served(backlog: Backlog, count: int, now: float = NOW) -> list[str]:
    return [backlog.take(now).tenant for _ in range(count)]


def drained_at(rate: float, seconds: float = 1.0) -> tuple[Backlog, float]:
    """A backlog that has stood for `seconds` before a version that takes `rate` requests/s; and when that is."""
    backlog = Backlog()
    fill(backlog, "filler", 60)
    now = NOW
    while now < NOW + seconds:
        now += 1 / rate
        backlog.take(now)
        backlog.offer(exchange("filler"), now)
    return backlog, now


def test_tenants_take_turns_and_each_keeps_its_own_order() -> None:
    backlog = Backlog()
    fill(backlog, "flood", 6)
    fill(backlog, "acme", 2)
    fill(backlog, "globex", 1)
    assert served(backlog, 9) == ["flood", "acme", "globex", "flood", "acme", "flood", "flood", "flood", "flood"]
    fill(backlog, "acme", 5)
    assert [cast(SimpleNamespace, backlog.take(NOW)).number for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_burst_waits_and_what_is_beyond_it_is_turned_away_newest_first() -> None:
    backlog = Backlog()
    room = int(FIRST_RATE * BURST_SECONDS)
    away = fill(backlog, "acme", room + 3)
    assert backlog.size == room
    assert [cast(SimpleNamespace, one).number for one in away] == [room, room + 1, room + 2]
    assert all(one.backlog is None for one in away)


def test_a_flood_pays_for_itself_and_others_find_room() -> None:
    backlog = Backlog()
    room = int(FIRST_RATE * BURST_SECONDS)
    fill(backlog, "flood", room)
    assert {one.tenant for one in fill(backlog, "acme", 10)} == {"flood"}
    assert {one.tenant for one in fill(backlog, "flood", 10)} == {"flood"}
    assert backlog.size == room
    assert served(backlog, 20).count("acme") == 10
    fill(backlog, "globex", room)  # a second flood takes half and no more
    assert {one.tenant for one in fill(backlog, "acme", 5)} <= {"flood", "globex"}


def test_a_queue_that_stands_is_overload_and_only_one_more_window_waits() -> None:
    backlog, now = drained_at(2000)
    assert backlog.overloaded
    assert backlog.window == pytest.approx(2000 * START_DELAY, abs=1)
    while backlog.size > 2:
        backlog.take(now)
    fill(backlog, "filler", 100, now)
    assert backlog.size == backlog.window
    while backlog.size:
        backlog.take(now)
    fill(backlog, "filler", 100, now + 0.01)
    assert backlog.size == backlog.window  # having been empty for a moment makes no burst of it


def test_overload_ends_when_the_queue_is_empty_half_of_the_time() -> None:
    backlog, now = drained_at(2000)
    while backlog.size:
        backlog.take(now)
    for _ in range(200):  # 40 % empty: it is busy yet
        now += 0.004
        fill(backlog, "acme", 1, now)
        now += 0.006
        backlog.take(now)
    assert [backlog.overloaded] == [True]  # mypy would take a plain one for a promise that it stays so
    for _ in range(200):  # 60 % empty
        now += 0.006
        fill(backlog, "acme", 1, now)
        now += 0.004
        backlog.take(now)
    assert not backlog.overloaded
    fill(backlog, "acme", 500, now)
    assert backlog.size > MIN_BURST


def test_a_pause_ends_overload() -> None:
    backlog, now = drained_at(2000)
    while backlog.size:
        backlog.take(now)
    fill(backlog, "acme", 500, now + 60)
    assert backlog.size == pytest.approx(2000 * BURST_SECONDS, rel=0.05)


def test_in_overload_who_is_modest_beside_others_finds_room_a_little_longer() -> None:
    backlog, now = drained_at(3 / START_DELAY + 1)
    assert (backlog.overloaded, backlog.window) == (True, 3)
    while backlog.size > 3:
        backlog.take(now)
    assert {one.tenant for one in fill(backlog, "filler", 5, now)} == {"filler"}
    assert backlog.size == 3
    assert fill(backlog, "acme", MODEST, now) == []
    assert fill(backlog, "acme", 1, now) != []
    others = [backlog.offer(exchange(f"t{number}"), now) for number in range(40)]
    assert others[:2] == [None, None]
    assert backlog.size == 3 * MODEST


@pytest.mark.parametrize(
    ("rate", "window"), [(20, MIN_WINDOW), (200, MIN_WINDOW), (5000, 25), (20_000, 100), (500_000, MAX_WINDOW)]
)
def test_the_window_is_what_drains_in_five_milliseconds(rate: float, window: int) -> None:
    backlog, _ = drained_at(rate, seconds=3)
    assert backlog.window == pytest.approx(window, rel=0.1, abs=1)


def test_who_came_too_late_was_not_taken_by_the_version() -> None:
    backlog = Backlog()
    fill(backlog, "acme", 500)
    for second in range(60):
        backlog.take(NOW + second)
    assert backlog.window == MIN_WINDOW
    for _ in range(400):
        backlog.take(NOW + 60)
        backlog.came_late()
    backlog.take(NOW + 60.06)
    assert backlog.window == MIN_WINDOW


def test_calls_that_end_together_have_half_as_many_waiting_for_them() -> None:
    backlog = Backlog()
    fill(backlog, "acme", 60)
    now = NOW
    for _ in range(200):  # eight threads, in step, 20 ms each
        now += 0.02
        for thread in range(8):
            backlog.ended(now + thread / 10_000)
            backlog.take(now + thread / 10_000)
            backlog.offer(exchange("acme"), now)
    assert backlog.window == 4


def test_a_process_that_answers_in_batches_is_given_smaller_ones() -> None:
    backlog = Backlog()
    fill(backlog, "acme", 60)
    now, windows = NOW, []
    for _ in range(400):  # one loop that answers at the end of a turn all it had begun, 3 ms each
        batch = backlog.window + 1
        now += batch * 0.003
        for _ in range(batch):
            backlog.ended(now)
            backlog.take(now)
            backlog.offer(exchange("acme"), now)
        windows.append(backlog.window)
    assert windows[-1] == MIN_WINDOW


def test_nothing_is_learned_from_a_queue_that_ran_empty() -> None:
    backlog = Backlog()
    for turn in range(100):
        fill(backlog, "acme", 1, NOW + turn)
        backlog.take(NOW + turn + 0.01)
    assert backlog.window == FIRST_WINDOW


def test_a_slow_version_still_lets_a_small_burst_wait() -> None:
    backlog, now = drained_at(20, seconds=3)
    while backlog.size:
        backlog.take(now)
    fill(backlog, "acme", 200, now + 60)
    assert backlog.size == MIN_BURST


def test_who_leaves_is_forgotten_and_everybody_can_be_sent_elsewhere() -> None:
    backlog = Backlog()
    gone = exchange("acme", 1)
    fill(backlog, "acme", 1)
    backlog.offer(gone, NOW)
    fill(backlog, "globex", 2)
    backlog.leave(gone, NOW)
    assert (backlog.size, gone.backlog) == (3, None)
    assert [one.tenant for one in backlog.empty(NOW)] == ["acme", "globex", "globex"]
    assert backlog.size == 0
    assert fill(backlog, "acme", 1) == []
    assert served(backlog, 1) == ["acme"]


def looked_at(backlog: Backlog, answered: list[tuple[float, int]]) -> None:
    """A router that sees, at these times, how many calls all routers together have had answered."""
    for at, total in answered:
        backlog.answered(NOW + at, total)


def test_routers_of_one_version_come_to_one_window_however_few_of_its_calls_each_has() -> None:
    """Eight threads in step, every 20 ms; one router has nearly all of them."""
    steps = [(0.02 * step + late, 1000 + 8 * step) for step in range(1, 60) for late in (0.0, 0.001)]
    much, little = Backlog(routers=2), Backlog(routers=2)
    for backlog, taken in ((much, 7), (little, 1)):
        fill(backlog, "acme", 10)
        for step in steps:
            looked_at(backlog, [step])
            for _ in range(taken):
                backlog.take(NOW + step[0])
                backlog.offer(exchange("acme"), NOW + step[0])
    assert (much.window, little.window) == (4, 4)


def test_a_queue_that_begins_to_stand_does_not_count_what_was_answered_before() -> None:
    backlog = Backlog(routers=2)
    fill(backlog, "acme", 5)
    looked_at(backlog, [(0.0, 1_000_000), (0.03, 1_000_006), (0.06, 1_000_012)])
    assert backlog.window == max(MIN_WINDOW, int(FIRST_RATE * 0.9 * START_DELAY))
    looked_at(backlog, [(0.09, 3), (0.12, 9)])  # a process was replaced, and counts from 0
    assert backlog.window == max(MIN_WINDOW, int(FIRST_RATE * 0.9 * 0.9 * START_DELAY))


def test_a_burst_s_room_is_shared_out_among_routers() -> None:
    backlog = Backlog(routers=4)
    fill(backlog, "acme", 1000)
    assert backlog.size == int(FIRST_RATE * BURST_SECONDS) // 4
