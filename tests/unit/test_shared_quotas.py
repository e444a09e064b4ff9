"""Quotas over several routers: what one of them admits counts for all, and nobody is refused what nobody used."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hotswap.domain.quota import Quota, QuotaOverride
from hotswap.node.quotas import Meter
from hotswap.node.shared_quotas import QuotaMemory, QuotaTables, SharedMeters

QUOTA = Quota(requests_per_minute=60, concurrent=5, memory_mb=10)
MIB = 1024 * 1024


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Routers:
    memory: QuotaMemory
    clock: Clock
    count: int
    meters: list[SharedMeters]

    def of(self, router: int, tenant: str = "acme", plugin: str = "invoice") -> Meter:
        return self.meters[router].of(tenant, plugin)

    def charged(self, router: int, tenant: str = "acme") -> bool:
        return self.of(router, tenant).charge(self.clock.now) == 0.0

    def admitted(self, router: int, tries: int, tenant: str = "acme") -> int:
        return sum(self.charged(router, tenant) for _ in range(tries))

    def restart(self, router: int) -> None:
        """It was killed, and another begins in its place."""
        self.memory.wipe(router)
        tables = QuotaTables(self.memory.descriptor, self.count, router)
        self.meters[router] = SharedMeters(QUOTA, self.clock, tables)


@pytest.fixture
def routers(count: int = 3) -> Iterator[Routers]:
    made = Routers(QuotaMemory(count), Clock(), count, [])
    for router in range(count):
        tables = QuotaTables(made.memory.descriptor, count, router)
        made.meters.append(SharedMeters(QUOTA, made.clock, tables))
    yield made
    made.meters.clear()
    made.memory.close()


def test_one_bucket_holds_for_all_routers_together(routers: Routers) -> None:
    assert [routers.admitted(0, 25), routers.admitted(1, 25), routers.admitted(2, 25)] == [25, 25, 10]
    assert routers.admitted(0, 5) + routers.admitted(1, 5) == 0
    routers.clock.now += 3.0
    assert routers.admitted(2, 5) + routers.admitted(1, 5) + routers.admitted(0, 5) == 3


def test_one_router_alone_may_use_the_whole_quota(routers: Routers) -> None:
    assert routers.admitted(1, 100) == 60


def test_what_was_used_long_ago_elsewhere_is_not_held_against_a_tenant(routers: Routers) -> None:
    assert routers.admitted(0, 1) == 1
    for _ in range(120):  # at just the rate that is allowed
        routers.clock.now += 1.0
        assert routers.admitted(1, 1) == 1
    routers.clock.now += 60.0
    assert routers.admitted(0, 100) == 60


def test_a_burst_elsewhere_just_now_is_seen_by_who_has_not_looked_for_long(routers: Routers) -> None:
    assert routers.admitted(0, 1) == 1
    routers.clock.now += 59.9
    assert routers.admitted(1, 100) == 60
    routers.clock.now += 0.1
    assert routers.admitted(0, 100) == 0


def test_a_router_that_begins_anew_goes_on_with_the_bucket_that_others_know(routers: Routers) -> None:
    assert routers.admitted(0, 20) + routers.admitted(1, 20) == 40
    routers.restart(0)
    assert routers.admitted(0, 100) == 20


def test_calls_under_way_anywhere_count_and_those_of_a_dead_router_do_not(routers: Routers) -> None:
    assert [routers.of(0).enter(1), routers.of(0).enter(1), routers.of(1).enter(1), routers.of(2).enter(1)] == [""] * 4
    assert routers.of(1).enter(1) == ""
    assert [routers.of(router).enter(1) for router in range(3)] == ["concurrent"] * 3
    assert routers.of(2).under_way() == 5
    routers.of(1).leave(1)
    assert routers.of(0).enter(1) == ""
    routers.restart(0)
    assert [routers.of(1).enter(1) for _ in range(4)] == ["", "", "", "concurrent"]


def test_bytes_held_anywhere_count(routers: Routers) -> None:
    assert routers.of(0).enter(6 * MIB) == ""
    assert routers.of(1).enter(5 * MIB) == "memoryMb"
    assert routers.of(1).enter(4 * MIB) == ""
    routers.of(0).leave(6 * MIB)
    assert routers.of(2).enter(6 * MIB) == ""


def test_tenants_do_not_share(routers: Routers) -> None:
    assert routers.admitted(0, 100, "acme") == 60
    assert routers.admitted(1, 100, "globex") == 60


def test_an_own_limit_holds_for_meters_in_use(routers: Routers) -> None:
    routers.of(0)
    for meters in routers.meters:
        meters.set_overrides({("acme", "invoice"): QuotaOverride(requests_per_minute=30)})
    assert routers.admitted(0, 20) + routers.admitted(1, 20) == 30


def test_a_meter_that_went_and_came_again_counts_from_where_it_is_now(routers: Routers) -> None:
    """Slots are reused: what a peer remembers of the one before must not hide what is charged now."""
    assert routers.admitted(0, 5) + routers.admitted(1, 1) == 6
    routers.clock.now += 200.0
    for number in range(4):  # each new one looks at the oldest: the idle one goes
        routers.of(0, f"other-{number}")
    assert ("acme", "invoice") not in routers.meters[0]._meters
    assert routers.admitted(0, 50) == 50
    assert routers.admitted(1, 50) == 10


def test_thousands_come_and_go_and_each_is_still_found(routers: Routers) -> None:
    for number in range(3000):
        assert routers.charged(number % 2, f"tenant-{number}")
        routers.clock.now += 0.5 if number < 2990 else 0.0
    assert len(routers.meters[0]) < 200
    for number in range(2990, 3000):
        assert routers.admitted(2, 100, f"tenant-{number}") == 59


def test_any_interleaving_holds_the_rate_and_wastes_none_of_it(routers: Routers) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    chance = random.Random(seed)
    admitted: list[float] = []
    began = routers.clock.now
    for _ in range(6000):
        routers.clock.now += chance.expovariate(1 / 0.05)
        admitted += [routers.clock.now] * routers.charged(chance.randrange(3))
    lasted = routers.clock.now - began
    assert 60 + lasted - 2 <= len(admitted) <= 60 + lasted + 2
    for first, last in zip(admitted, admitted[70:], strict=False):
        assert last - first >= 8  # 71 in a row never come within 8 s of a full bucket: 60, and one each second
