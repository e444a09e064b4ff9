"""Meters of tenants on a node: the bucket, the counts, and how few of them are kept."""

import pytest

from hotswap.domain.quota import Quota, QuotaOverride
from hotswap.node.quotas import LOOKED_AT, MIB, Meter, Meters

NOW = 1000.0


def taken(meter: Meter, now: float, tries: int) -> int:
    return sum(meter.charge(now) == 0.0 for _ in range(tries))


@pytest.mark.parametrize("limit", [1, 7, 100, 6000])
def test_a_minute_s_requests_may_come_at_once_and_no_more(limit: int) -> None:
    meter = Meter(Quota(requests_per_minute=limit))
    assert meter.left(NOW) == limit
    assert taken(meter, NOW, limit + 20) == limit
    assert meter.left(NOW) == 0
    wait = meter.charge(NOW)
    assert wait == pytest.approx(60 / limit)
    assert taken(meter, NOW + wait + 1e-3, 5) == 1
    assert taken(meter, NOW + wait + 61, limit + 20) == limit


def test_the_bucket_fills_evenly_and_never_over() -> None:
    meter = Meter(Quota(requests_per_minute=60))
    assert taken(meter, NOW, 100) == 60
    assert [taken(meter, NOW + second + 0.01, 3) for second in (1, 2, 3)] == [1, 1, 1]
    assert taken(meter, NOW + 33.01, 100) == 30
    assert taken(meter, NOW + 10_000, 100) == 60


def test_calls_at_once_and_bytes_are_counted_in_and_out() -> None:
    meter = Meter(Quota(concurrent=2, memory_mb=10))
    assert [meter.enter(4 * MIB), meter.enter(4 * MIB), meter.enter(1)] == ["", "", "concurrent"]
    meter.leave(4 * MIB)
    assert meter.enter(7 * MIB) == "memoryMb"
    assert meter.enter(6 * MIB) == ""
    for size in (4 * MIB, 6 * MIB):
        meter.leave(size)
    assert (meter.concurrent, meter.bytes) == (0, 0)


def test_meters_of_tenants_that_came_once_are_dropped_again() -> None:
    now = NOW
    meters = Meters(Quota(requests_per_minute=60), lambda: now)
    for number in range(20_000):
        now = NOW + number / 100
        meters.of(f"t{number}", "invoice").charge(now)
    assert len(meters) <= 100 * LOOKED_AT + 2  # those of the last second, in which each fills again


def test_a_busy_meter_is_never_dropped_and_past_the_most_newcomers_share_one() -> None:
    meters = Meters(Quota(requests_per_minute=5), lambda: NOW, most=10)
    first = [
        meters.of(f"t{number}", "invoice")
        for number in range(10)
        if meters.of(f"t{number}", "invoice").charge(NOW) == 0
    ]
    assert len(meters) == len(first) == 10
    late, later = meters.of("x", "invoice"), meters.of("y", "invoice")
    assert late is later
    assert taken(late, NOW, 10) == 5
    assert len(meters) == 10
    assert all(meters.of(f"t{number}", "invoice") is meter for number, meter in enumerate(first))
    meters.set_overrides({("vip", "invoice"): QuotaOverride(concurrent=1)})
    assert meters.of("vip", "invoice") is not late  # whoever is on record has a meter of its own


def test_overrides_reach_meters_in_use_and_may_be_taken_back() -> None:
    meters = Meters(Quota(requests_per_minute=5, concurrent=1), lambda: NOW)
    acme = meters.of("acme", "invoice")
    assert taken(acme, NOW, 10) == 5
    meters.set_overrides({("acme", "invoice"): QuotaOverride(concurrent=3)})
    assert acme.quota == Quota(requests_per_minute=5, concurrent=3)
    assert taken(acme, NOW, 10) == 0  # what was used stays used
    assert meters.of("acme", "other").quota.concurrent == 1
    meters.set_overrides({})
    assert acme.quota.concurrent == 1
