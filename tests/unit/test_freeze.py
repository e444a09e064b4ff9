"""When an environment is frozen: scopes, precedence, recurrence, clock changes, and when it ends."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hotswap.domain.deployment import Environment
from hotswap.domain.freeze import Daily, Freeze, FreezeKind, Once, Weekday, Weekly, standing

NOON = datetime(2026, 6, 10, 12, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")


def freeze(number: int = 1, **changes: Any) -> Freeze:
    given: dict[str, Any] = {
        "freeze_id": f"frz_{number:032x}",
        "kind": FreezeKind.DENY,
        "window": Once(starts=NOON - HOUR, ends=NOON + HOUR),
        "reason": f"reason {number}",
        "created_by": "admin",
        "created_at": NOON - timedelta(days=number),
    } | changes
    return Freeze(**given)


def allow(number: int = 2, **changes: Any) -> Freeze:
    return freeze(number, kind=FreezeKind.ALLOW, **changes)


def stop(number: int = 3, **changes: Any) -> Freeze:
    return freeze(number, kind=FreezeKind.STOP, window=Once(starts=NOON - HOUR), **changes)


def frozen(freezes: list[Freeze], at: datetime = NOON, environment: str = "QA", plugin: str = "p") -> bool:
    return standing(freezes, environment, plugin, at).frozen


@pytest.mark.parametrize(
    ("freezes", "expected", "reason"),
    [
        ([], False, ""),
        ([freeze()], True, "reason 1"),
        ([allow()], False, ""),
        ([allow(window=Once(starts=NOON + HOUR, ends=NOON + 2 * HOUR))], True, "outside of the window for reason 2"),
        ([allow(), freeze()], True, "reason 1"),  # deny beats allow
        ([allow(), stop()], True, "reason 3"),
        ([freeze(), stop()], True, "reason 3"),
        ([allow(2), allow(4, window=Once(starts=NOON + HOUR))], False, ""),  # one open window is enough
        ([allow(window=Once(starts=NOON - 3 * HOUR, ends=NOON - HOUR))], True, "outside of the window for reason 2"),
        ([freeze(lifted_at=NOON - HOUR, lifted_by="a")], False, ""),
        ([freeze(lifted_at=NOON, lifted_by="a")], False, ""),
        ([freeze(lifted_at=NOON + HOUR / 2, lifted_by="a")], True, "reason 1"),
        ([allow(window=Once(starts=NOON + HOUR), lifted_at=NOON, lifted_by="a")], False, ""),
        ([freeze(1), freeze(2)], True, "reason 2"),  # the older one is named
    ],
)
def test_what_stands(freezes: list[Freeze], expected: bool, reason: str) -> None:
    for order in (freezes, freezes[::-1]):
        verdict = standing(order, "QA", "p", NOON)
        assert (verdict.frozen, verdict.reason) == (expected, reason)
        assert verdict.stopped == (reason == "reason 3")


@pytest.mark.parametrize(
    ("environment", "plugin", "concerned"),
    [
        (None, None, True),
        (Environment.QA, None, True),
        (None, "p", True),
        (Environment.QA, "p", True),
        (Environment.STAGING, "p", False),
        (Environment.QA, "q", False),
    ],
)
def test_a_freeze_concerns_its_scope_only(environment: Environment | None, plugin: str | None, concerned: bool) -> None:
    assert frozen([freeze(environment=environment, plugin=plugin)]) == concerned
    outside = Once(starts=NOON + HOUR)
    assert frozen([allow(environment=environment, plugin=plugin, window=outside)]) == concerned


def test_a_window_holds_its_start_and_not_its_end() -> None:
    window = [freeze()]
    assert not frozen(window, NOON - HOUR - timedelta(microseconds=1))
    assert frozen(window, NOON - HOUR)
    assert frozen(window, NOON + HOUR - timedelta(microseconds=1))
    assert not frozen(window, NOON + HOUR)


OFFICE = {"start": "09:00", "end": "17:00", "time_zone": "Europe/Berlin"}
NIGHT = {"start": "22:00", "end": "06:00", "time_zone": "Europe/Berlin"}
WEEKEND = Weekly(days=("Friday",), start="16:00", end_day="Monday", end="08:00", time_zone="Europe/Berlin")


def berlin(day: int, wall: str, month: int = 6) -> datetime:
    return datetime.combine(date(2026, month, day), time.fromisoformat(wall), ZoneInfo("Europe/Berlin")).astimezone(UTC)


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        (Daily(**OFFICE), [(10, "09:00"), (13, "16:59")], [(10, "08:59"), (10, "17:00")]),
        (Daily(**NIGHT), [(10, "22:00"), (10, "00:00"), (10, "05:59")], [(10, "06:00"), (10, "21:59")]),
        (
            Weekly(days=("Wednesday", "Thursday"), **OFFICE),
            [(10, "09:00"), (11, "12:00")],
            [(9, "12:00"), (12, "9:00")],
        ),
        (Weekly(days=("Sunday",), **NIGHT), [(14, "23:00"), (15, "05:59")], [(14, "05:59"), (15, "23:00")]),
        (WEEKEND, [(12, "16:00"), (13, "12:00"), (14, "00:00"), (15, "07:59")], [(12, "15:59"), (15, "08:00")]),
        (  # a whole week but for an hour
            Weekly(days=("Monday",), start="08:00", end_day="Monday", end="07:00", time_zone="Europe/Berlin"),
            [(8, "08:00"), (14, "12:00"), (15, "06:59"), (15, "08:00")],
            [(15, "07:00"), (15, "07:59")],
        ),
    ],
)
def test_recurring_windows_follow_the_wall_clock(window: Any, inside: Any, outside: Any) -> None:
    for day, wall in inside:
        assert frozen([freeze(window=window)], berlin(day, wall.zfill(5))), (day, wall)
    for day, wall in outside:
        assert not frozen([freeze(window=window)], berlin(day, wall.zfill(5))), (day, wall)


def test_wall_time_moves_with_summer_time() -> None:
    """09:00 in Berlin is 08:00 UTC in winter and 07:00 UTC in summer."""
    window = [freeze(window=Daily(**OFFICE))]
    assert not frozen(window, datetime(2026, 1, 10, 7, 30, tzinfo=UTC))
    assert frozen(window, datetime(2026, 7, 10, 7, 30, tzinfo=UTC))


def new_york(start: str, end: str) -> Daily:
    return Daily(start=start, end=end, time_zone="America/New_York")


GAP = datetime(2026, 3, 8, 7, tzinfo=UTC)  # 02:00 becomes 03:00 in New York
FOLD = datetime(2026, 11, 1, 5, tzinfo=UTC)  # 01:00 comes twice: at 05:00 and at 06:00 UTC
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("window", "starts", "ends"),
    [
        (new_york("02:30", "05:00"), GAP, GAP + 2 * HOUR),  # begins in the gap: when the clocks jump
        (new_york("01:00", "02:30"), GAP - HOUR, GAP),  # ends in the gap
        (new_york("01:30", "04:00"), GAP - HOUR / 2, GAP + HOUR),  # spans it: an hour shorter
    ],
)
@pytest.mark.parametrize("kind", [FreezeKind.DENY, FreezeKind.ALLOW])
def test_where_the_clocks_jump_a_window_ends_or_begins_there(
    window: Daily, starts: datetime, ends: datetime, kind: FreezeKind
) -> None:
    rule = freeze(kind=kind, window=window)
    assert not rule.within(starts - MINUTE)
    assert rule.within(starts)
    assert rule.within(ends - MINUTE)
    assert not rule.within(ends)


def test_a_window_that_lies_in_the_gap_does_not_happen_that_day() -> None:
    rule = freeze(window=new_york("02:10", "02:50"))
    assert not any(rule.within(GAP + minutes * MINUTE) for minutes in range(-60, 120))
    assert rule.within(GAP + timedelta(days=1, minutes=-45))


@pytest.mark.parametrize(
    ("kind", "starts", "ends"),
    [
        (FreezeKind.DENY, FOLD + 15 * MINUTE, FOLD + HOUR + 45 * MINUTE),  # doubt freezes: first start, last end
        (FreezeKind.ALLOW, None, None),  # ... and the shortest reading of 01:15 to 01:45 is none
    ],
)
def test_of_a_wall_time_that_comes_twice_doubt_freezes(
    kind: FreezeKind, starts: datetime | None, ends: datetime | None
) -> None:
    rule = freeze(kind=kind, window=new_york("01:15", "01:45"))
    held = [FOLD + n * MINUTE for n in range(-30, 180) if rule.within(FOLD + n * MINUTE)]
    if starts is None or ends is None:
        assert held == []
    else:
        assert (held[0], held[-1] + MINUTE) == (starts, ends)
        assert len(held) == 90


@pytest.mark.parametrize(
    ("freezes", "until"),
    [
        ([freeze()], NOON + HOUR),
        ([freeze(1), freeze(2, window=Once(starts=NOON + HOUR / 2, ends=NOON + 3 * HOUR))], NOON + 3 * HOUR),
        ([freeze(1), freeze(2, window=Once(starts=NOON + HOUR, ends=NOON + 2 * HOUR))], NOON + 2 * HOUR),  # they touch
        ([freeze(window=Once(starts=NOON - HOUR))], None),
        ([stop()], None),
        ([freeze(), allow(window=Once(starts=NOON + 5 * HOUR))], NOON + 5 * HOUR),
        ([allow(window=Once(starts=NOON - 2 * HOUR, ends=NOON - HOUR))], None),
        ([freeze(lifted_at=NOON + HOUR / 4, lifted_by="a")], NOON + HOUR / 4),
        # Every night frozen and every day too: nobody knows of an end.
        (
            [freeze(1, window=Daily(**{**OFFICE, "start": "05:30", "end": "22:30"})), freeze(2, window=Daily(**NIGHT))],
            None,
        ),
    ],
)
def test_the_end_is_when_nothing_freezes_any_more(freezes: list[Freeze], until: datetime | None) -> None:
    at = NOON if frozen(freezes) else NOON + 12 * HOUR
    assert standing(freezes, "QA", "p", at).until == until


def test_a_weekend_ends_on_monday_also_when_the_clocks_change_in_between() -> None:
    verdict = standing([freeze(window=WEEKEND)], "QA", "p", berlin(28, "12:00", month=3))
    assert verdict.until == berlin(30, "08:00", month=3)
    assert verdict.text == "the freeze 'reason 1' until 2026-03-30 06:00 UTC"
    assert standing([stop()], "QA", "p", NOON).text == "everything is stopped 'reason 3' until it is lifted"


walls = st.times().map(lambda value: value.strftime("%H:%M"))
zones = st.sampled_from(ZONES)
instants = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))


@st.composite
def windows(draw: st.DrawFn) -> Any:
    start, end, zone = draw(walls), draw(walls), draw(zones)
    kind = draw(st.sampled_from(["once", "daily", "weekly"]))
    if kind == "once":
        starts = draw(instants)
        return Once(starts=starts, ends=draw(st.none() | st.timedeltas(MINUTE, timedelta(days=9)).map(starts.__add__)))
    end_day = draw(st.none() | st.sampled_from(Weekday))
    if start == end and (kind == "daily" or end_day is None):
        end = "12:00" if start != "12:00" else "13:00"
    if kind == "daily":
        return Daily(start=start, end=end, time_zone=zone)
    days = draw(st.sets(st.sampled_from(Weekday), min_size=1))
    return Weekly(days=tuple(days), start=start, end=end, end_day=end_day, time_zone=zone)


rules = st.lists(
    st.builds(
        lambda number, kind, window: freeze(number, kind=kind, window=window),
        st.integers(1, 1000),
        st.sampled_from([FreezeKind.DENY, FreezeKind.ALLOW]),
        windows(),
    ),
    max_size=3,
)


@given(rules, instants)
def test_the_end_of_a_freeze_is_its_end_and_no_later_than_the_first_free_instant(
    rules: list[Freeze], at: datetime
) -> None:
    verdict = standing(rules, "QA", "p", at)
    if verdict.until is None:
        return
    assert verdict.frozen
    assert verdict.until > at
    assert not frozen(rules, verdict.until)
    assert frozen(rules, verdict.until - timedelta(microseconds=1))
    for part in range(1, 8):
        assert frozen(rules, at + (verdict.until - at) * part / 8)


@given(windows(), instants)
def test_nothing_changes_before_the_next_change(window: Any, at: datetime) -> None:
    rule = freeze(window=window)
    change = rule.next_change(at)
    if isinstance(window, Once) and change is None:
        change = at + timedelta(days=30)
    assert change is not None, "a recurring window always changes again"
    assert change > at
    for part in range(8):
        assert rule.within(at + (change - at) * part / 8) == rule.within(at)


@given(rules, instants)
def test_an_allow_never_frees_what_a_deny_holds(rules: list[Freeze], at: datetime) -> None:
    denies = [rule for rule in rules if rule.kind is FreezeKind.DENY]
    assert frozen(rules, at) or not frozen(denies, at)


@given(windows())
def test_a_freeze_survives_its_way_over_the_wire(window: Any) -> None:
    rule = freeze(window=window)
    assert Freeze.model_validate_json(rule.model_dump_json()) == rule


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window": {"kind": "daily", "start": "09:00", "end": "09:00", "timeZone": "UTC"}}, "must differ from start"),
        ({"window": {"kind": "daily", "start": "9:00", "end": "10:00", "timeZone": "UTC"}}, "start"),
        ({"window": {"kind": "daily", "start": "24:00", "end": "10:00", "timeZone": "UTC"}}, "start"),
        ({"window": {"kind": "daily", "start": "09:00", "end": "10:00", "timeZone": "Mars/Base"}}, "IANA"),
        ({"window": {"kind": "daily", "start": "09:00", "end": "10:00", "timeZone": "../../etc/passwd"}}, "IANA"),
        ({"window": {"kind": "weekly", "days": [], "start": "09:00", "end": "10:00", "timeZone": "UTC"}}, "days"),
        ({"window": {"kind": "once", "starts": "2026-01-01T00:00:00"}}, "time zone"),
        ({"window": {"kind": "once", "starts": NOON, "ends": NOON}}, "later than starts"),
        ({"window": {"kind": "yearly"}}, "kind"),
        ({"kind": "stop"}, "stop switch"),
        ({"kind": "stop", "window": {"kind": "once", "starts": NOON}, "environment": "QA"}, "stop switch"),
        ({"reason": ""}, "reason"),
    ],
)
def test_a_wrong_freeze_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        freeze(**changes)
