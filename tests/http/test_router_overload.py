"""The router when a version has more to do than it can, and tenants' quotas. Counts, order and bounds; no clock is judged."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hotswap.domain.analysis import FloodFigures
from hotswap.domain.quota import Quota, QuotaOverride
from hotswap.node.backlog import FIRST_WINDOW
from hotswap.node.quotas import MIB, Meters
from tests.http.router_client import QUICK, Bench, Wire, bench, request
from tests.unit.node_fakes import eventually, order

LIMITS = replace(QUICK, connections=2000, queued=20, idle_seconds=60, reply_bytes=4 * MIB)


@pytest.fixture
async def busy() -> AsyncIterator[Bench]:
    async with bench(LIMITS) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        yield made


async def hold(made: Bench, count: int, tenant: str = "flood") -> list[Wire]:
    """So many calls under way, each on a connection of its own and dispatched before this returns."""
    wires = []
    for _ in range(count):
        wire = await made.wire()
        before = made.router.in_flight
        await wire.send(request("hold", tenant))
        await eventually(lambda before=before: made.router.in_flight > before)
        wires.append(wire)
    return wires


async def test_a_process_gets_what_it_begins_and_a_window_more_and_the_rest_waits(busy: Bench) -> None:
    [host] = busy.launcher.hosts
    wires = await hold(busy, FIRST_WINDOW + 8)
    assert len(host.held) == FIRST_WINDOW + 1
    assert busy.router.queued == 7
    host.begins = 1000  # it begins them all and ends none: nothing but a look at it can tell
    await eventually(lambda: busy.router.queued == 0)
    await hold(busy, 50)  # a version that waits for others may have any number under way
    assert busy.router.queued == 0
    host.release()
    for wire in wires:
        assert (await wire.receive()).status == 200
    await eventually(lambda: busy.router.in_flight == 0)


async def test_a_process_never_works_on_more_than_it_may_even_when_it_begins_everything() -> None:
    async with bench(replace(LIMITS, in_flight_per_host=5)) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        [host] = made.launcher.hosts
        host.begins = 1000
        wires = await hold(made, 8)
        assert (len(host.held), made.router.queued) == (5, 3)
        host.release()
        await eventually(lambda: len(host.held) == 3)
        host.release()
        assert [(await wire.receive()).status for wire in wires] == [200] * 8


async def test_what_is_too_much_is_503_at_once_with_retry_after_and_runs_nowhere(busy: Bench) -> None:
    [host] = busy.launcher.hosts
    wires = await hold(busy, FIRST_WINDOW + 1 + LIMITS.queued)
    assert busy.router.queued == LIMITS.queued
    answers = [await busy.call("hold", "flood") for _ in range(3)]  # answered while nothing else moves
    assert {(one.status, one.code, one.headers["retry-after"]) for one in answers} == {
        (503, "SERVICE_UNAVAILABLE", "1")
    }
    assert len(host.held) == FIRST_WINDOW + 1
    assert busy.router.refused["overload"] == 3
    since = datetime.now(UTC) - timedelta(minutes=1)
    await eventually(lambda: busy.supervisor.figures("invoice", since).versions[0].requests == 3)
    [figures] = busy.supervisor.figures("invoice", since).versions
    assert figures.failures == 3
    assert figures.flood == FloodFigures(turned_away=3), "one tenant's flood"
    host.begins = 1000
    await eventually(lambda: busy.router.queued == 0)
    host.release()
    assert [(await wire.receive()).status for wire in wires] == [200] * len(wires)


async def test_what_many_tenants_ask_in_vain_counts_against_the_version(busy: Bench) -> None:
    for number in range(FIRST_WINDOW + 1 + LIMITS.queued):
        await hold(busy, 1, f"tenant-{number % 10}")
    assert {(await busy.call("hold", f"tenant-{number}")).status for number in range(3)} == {503}
    since = datetime.now(UTC) - timedelta(minutes=1)
    await eventually(lambda: busy.supervisor.figures("invoice", since).versions[0].requests == 3)
    [figures] = busy.supervisor.figures("invoice", since).versions
    assert (figures.failures, figures.flood) == (3, None)
    busy.launcher.hosts[0].begins = 1000
    await eventually(lambda: busy.router.queued == 0)
    busy.launcher.hosts[0].release()


async def test_tenants_take_turns_at_a_busy_version(busy: Bench) -> None:
    [host] = busy.launcher.hosts
    await hold(busy, FIRST_WINDOW + 1 + 6)
    await hold(busy, 1, "acme")
    await hold(busy, 2, "globex")
    already = len(host.calls)
    host.begins = 1000
    await eventually(lambda: busy.router.queued == 0)
    order_of_begin = [tenant for _, tenant, _ in host.calls[already:]]
    assert order_of_begin == ["flood", "acme", "globex", "flood", "globex", "flood", "flood", "flood", "flood"]
    host.release()


async def test_a_client_that_leaves_the_queue_is_not_run(busy: Bench) -> None:
    [host] = busy.launcher.hosts
    wires = await hold(busy, FIRST_WINDOW + 1 + 3)
    wires[-2].reset()
    await eventually(lambda: busy.router.queued == 2)
    host.begins = 1000
    await eventually(lambda: busy.router.queued == 0)
    assert len(host.held) == FIRST_WINDOW + 1 + 2
    host.release()
    await eventually(lambda: busy.router.in_flight == 0)


async def test_who_waits_for_a_busy_version_goes_to_the_one_that_replaces_it(busy: Bench) -> None:
    wires = await hold(busy, FIRST_WINDOW + 1 + 5)
    await busy.supervisor.stage(order(2, "1.0.0", "2.0.0", 10_000))
    [new] = busy.launcher.live("2.0.0")
    await eventually(lambda: len(new.held) == 5)
    assert busy.router.queued == 0
    new.release()
    busy.launcher.hosts[0].release()
    versions = [(await wire.receive()).headers["x-hotswap-version"] for wire in wires]
    assert versions == ["1.0.0"] * (FIRST_WINDOW + 1) + ["2.0.0"] * 5


async def test_who_waits_for_a_version_that_dies_waits_for_its_next_process(busy: Bench) -> None:
    wires = await hold(busy, FIRST_WINDOW + 1 + 4)
    busy.launcher.hosts[0].die()
    await eventually(lambda: len(busy.launcher.hosts) == 2 and len(busy.launcher.hosts[1].held) == 4)
    busy.launcher.hosts[1].release()
    statuses = [(await wire.receive()).status for wire in wires]
    assert statuses == [502] * (FIRST_WINDOW + 1) + [200] * 4


async def test_a_fault_with_one_request_keeps_no_other_waiting_for_ever(
    busy: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    [host] = busy.launcher.hosts
    wires = await hold(busy, FIRST_WINDOW + 1 + 5)
    submit, faults = host.submit, iter([LookupError("nobody foresaw this")])

    def fails_once(*call: Any) -> None:
        for fault in faults:
            raise fault
        submit(*call)

    monkeypatch.setattr(host, "submit", fails_once)
    host.begins = 1000
    await eventually(lambda: busy.router.queued == 0)
    host.release()
    assert [(await wire.receive()).status for wire in wires[:-5]] == [200] * (FIRST_WINDOW + 1)
    assert [(await wire.receive()).status for wire in wires[-4:]] == [200] * 4


async def test_pipelined_floods_that_turn_each_other_away_end_in_order(busy: Bench) -> None:
    """Each refusal lets its connection go on with the next request, which is refused too: no depth of calls may grow."""
    await hold(busy, FIRST_WINDOW + 1 + LIMITS.queued)
    wires = [await busy.wire() for _ in range(20)]
    for wire in wires:
        await wire.send(*(request("hold", "flood") for _ in range(100)))
    for wire in wires:
        assert [(await wire.receive()).status for _ in range(100)] == [503] * 100
    busy.launcher.hosts[0].begins = 1000
    await eventually(lambda: busy.router.queued == 0)
    busy.launcher.hosts[0].release()


# -- quotas --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def metered() -> AsyncIterator[tuple[Bench, Meters]]:
    """Three requests a minute, two at once, for everybody but the VIP."""
    clock = asyncio.get_running_loop().time
    meters = Meters(Quota(requests_per_minute=3, concurrent=2, memory_mb=100), clock)
    meters.set_overrides({("vip", "invoice"): QuotaOverride(requests_per_minute=1000, concurrent=50)})
    async with bench(LIMITS, meters=meters) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        yield made, meters


async def test_requests_over_the_quota_are_429_and_name_it(metered: tuple[Bench, Meters]) -> None:
    made, _ = metered
    assert [(await made.call()).status for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = await made.call()
    error = answer.json()["error"]
    assert (answer.code, error["details"][0]["field"]) == ("RATE_LIMIT_EXCEEDED", "requestsPerMinute")
    assert "requestsPerMinute=3" in error["message"]
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("3", "0")
    assert len(made.launcher.hosts[0].calls) == 3
    assert (await made.call(tenant="globex")).status == 200  # everybody has a quota of its own
    assert [(await made.call(tenant="vip")).status for _ in range(9)] == [200] * 9
    assert made.router.refused == {"requestsPerMinute": 3}
    [figures] = made.supervisor.figures("invoice", datetime.now(UTC) - timedelta(minutes=1)).versions
    assert figures.errors == 0  # a tenant over its quota fails no version


async def test_a_body_over_the_rate_is_not_even_asked_for(metered: tuple[Bench, Meters]) -> None:
    made, _ = metered
    for _ in range(3):
        await made.call()
    wire = await made.wire()
    await wire.send(request(extra=b"Expect: 100-continue\r\n").replace(b"\r\n\r\n{}", b"\r\n\r\n"))
    assert (await wire.receive()).status == 429


async def test_calls_at_once_over_the_quota_are_429_until_one_ends(metered: tuple[Bench, Meters]) -> None:
    made, _ = metered
    wires = await hold(made, 2, "acme")
    answer = await made.call(tenant="acme")
    assert (answer.status, answer.json()["error"]["details"][0]["field"]) == (429, "concurrent")
    assert answer.headers["retry-after"] == "1"
    made.launcher.hosts[0].release()
    assert [(await wire.receive()).status for wire in wires] == [200, 200]
    wires[0].reset()
    assert (await made.call(tenant="globex")).status == 200


async def test_every_way_to_end_gives_the_place_back() -> None:
    meters = Meters(Quota(requests_per_minute=100_000, concurrent=1), asyncio.get_running_loop().time)
    async with bench(LIMITS, meters=meters) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        for method in ("echo", "boom", "late", "nothing", "echo", "die", "echo"):
            answer = await made.call(method)
            assert answer.status != 429, method
        [wire] = await hold(made, 1, "acme")
        wire.reset()
        await eventually(lambda: made.router.connections <= 8)
        made.launcher.live()[0].release()  # its answer has nobody to go to
        assert (await made.call()).status == 200
        assert (await made.call()).status == 200
    meter = meters.of("acme", "invoice")
    assert (meter.concurrent, meter.bytes) == (0, 0)


async def test_bytes_that_calls_may_hold_are_bounded_for_each_tenant() -> None:
    meters = Meters(Quota(requests_per_minute=1000, concurrent=50, memory_mb=9), asyncio.get_running_loop().time)
    async with bench(LIMITS, meters=meters) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        await hold(made, 2, "acme")  # 4 MiB for each one's reply
        answer = await made.call(tenant="acme")
        assert (answer.status, answer.json()["error"]["details"][0]["field"]) == (429, "memoryMb")
        await hold(made, 2, "globex")
        made.launcher.hosts[0].release()
        assert (await made.call(tenant="acme")).status == 200


async def test_the_execution_quota_is_the_host_s_deadline() -> None:
    meters = Meters(Quota(requests_per_minute=1000, execution_seconds=0.5), asyncio.get_running_loop().time)
    async with bench(LIMITS, meters=meters) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        await made.call()
        meters.set_overrides({("vip", "invoice"): QuotaOverride(execution_seconds=3000)})
        await made.call(tenant="vip")
        short, long = made.launcher.hosts[0].timeouts
        assert 0 < short <= 0.5
        assert 1 < long <= 5  # the node's own timeout holds all the same


# -- connections ---------------------------------------------------------------------------------------------------


async def test_one_address_cannot_take_every_connection() -> None:
    async with bench(replace(QUICK, connections=50, connections_per_address=2)) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        first, second, third = await made.wire(), await made.wire(), await made.wire()
        refused = await third.receive()
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert "your address" in refused.json()["error"]["message"]
        for wire in (first, second):
            await wire.send(request())
            assert (await wire.receive()).status == 200
        elsewhere = Wire(*await asyncio.open_connection("127.0.0.1", made.port, local_addr=("127.0.0.2", 0)))
        made.wires.append(elsewhere)
        await elsewhere.send(request())
        assert (await elsewhere.receive()).status == 200
        await third.close()
        first.reset()
        await eventually(lambda: made.router.connections == 2)
        assert (await made.call()).status == 200


async def test_a_flood_of_connections_is_cut_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotswap.node.clients._FLOOD", 3)
    async with bench(replace(QUICK, connections=2, linger_seconds=60, idle_seconds=60)) as made:
        wires = [await made.wire() for _ in range(20)]
        await eventually(lambda: made.router.connections <= 5)
        assert await wires[-1].ended()
        del wires
