"""Requests whose time runs out while they wait: whose figures they are. A quota that falls under them ends their time."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from hotswap.domain.analysis import FloodFigures, VersionFigures
from hotswap.domain.quota import Quota, QuotaOverride
from hotswap.node.backlog import FIRST_WINDOW
from hotswap.node.quotas import Meters
from hotswap.ports.hosts import Reply
from tests.http.router_client import QUICK, Bench, Wire, bench, request
from tests.unit.node_fakes import eventually, order

FULL = FIRST_WINDOW + 1
"""Calls that a process takes before it is known how fast it is: it has begun the first and holds it."""

LIMITS = replace(
    QUICK, connections=2000, queued=20, waiting=50, read_seconds=60, write_seconds=60, idle_seconds=60, wait_seconds=20
)

ALIKE = [f"tenant-{number}" for number in range(6)]


@pytest.fixture
async def busy() -> AsyncIterator[Bench]:
    meters = Meters(
        Quota(requests_per_minute=100_000, concurrent=1000, memory_mb=10_000), asyncio.get_running_loop().time
    )
    async with bench(LIMITS, timedelta(minutes=5), meters) as made:
        await made.supervisor.stage(order(1, "1.0.0"))
        yield made


async def waiting(made: Bench, *tenants: str, method: str = "hold") -> list[Wire]:
    """A request of each, dispatched before this returns."""
    wires = []
    for tenant in tenants:
        wire = await made.wire()
        before = made.router.in_flight
        await wire.send(request(method, tenant))
        await eventually(lambda before=before: made.router.in_flight > before)
        wires.append(wire)
    return wires


def over(made: Bench, tenants: Iterable[str]) -> None:
    """Their time is over from now on, that of requests under way too."""
    assert made.meters is not None
    made.meters.set_overrides({(tenant, "invoice"): QuotaOverride(execution_seconds=0.001) for tenant in tenants})


def begins_all(made: Bench) -> None:
    for host in made.launcher.live():
        host.begins = 1000


def counted(made: Bench, version: str = "1.0.0") -> VersionFigures:
    made.router.queues.settle()
    since = datetime.now(UTC) - timedelta(minutes=1)
    [found] = [one for one in made.supervisor.figures("invoice", since).versions if one.version == version]
    return found


async def statuses(wires: Iterable[Wire]) -> list[int]:
    return [(await wire.receive()).status for wire in wires]


async def test_who_waited_too_long_beside_a_flood_is_no_failure_of_the_version(busy: Bench) -> None:
    await waiting(busy, *["flood"] * FULL)
    flood, others = await waiting(busy, *["flood"] * 5), await waiting(busy, "acme", "globex")
    over(busy, ["flood"])
    begins_all(busy)
    assert await statuses(flood) == [504] * 5
    figures = counted(busy)
    assert (figures.requests, figures.failures, figures.flood) == (5, 5, FloodFigures(turned_away=5))
    busy.launcher.hosts[0].release()
    assert await statuses(others) == [200] * 2


async def test_a_version_for_which_everybody_waits_too_long_is_to_blame_itself(busy: Bench) -> None:
    await waiting(busy, *["flood"] * FULL)
    wires = await waiting(busy, *ALIKE)
    over(busy, ALIKE)
    begins_all(busy)
    assert await statuses(wires) == [504] * len(ALIKE)
    figures = counted(busy)
    assert (figures.failures, figures.flood) == (len(ALIKE), None)


async def test_who_waited_most_of_its_time_and_then_runs_out_of_it_is_late_too(busy: Bench) -> None:
    await waiting(busy, *["flood"] * FULL)
    wires = await waiting(busy, *["flood"] * 3, method="late")
    begins_all(busy)
    assert await statuses(wires) == [504] * 3
    assert counted(busy).flood == FloodFigures(turned_away=3)


async def test_a_call_that_its_process_never_began_waited_there_while_a_queue_stands(busy: Bench) -> None:
    [host] = busy.launcher.hosts
    crowd = await waiting(busy, *["flood"] * FULL)
    begun, *given = host.held
    host.held[:] = [begun]
    not_begun = Reply(ok=False, body=b"the host did not answer in time", limit="TIMEOUT", begun=False)
    given[0](not_begun)
    assert (await crowd[1].receive()).status == 504
    figures = counted(busy)
    assert (figures.failures, figures.flood) == (1, None), "nobody waits but in the process"
    host.held += given[1:]
    await waiting(busy, *["flood"] * 9)
    host.held[:] = [begun]
    await eventually(lambda: busy.router.queued == 0)
    for done in given[1:]:
        done(not_begun)
    assert await statuses(crowd[2:]) == [504] * (FULL - 2)
    figures = counted(busy)
    assert (figures.failures, figures.flood) == (FULL - 1, FloodFigures(turned_away=FULL - 2))


async def test_a_call_that_had_its_time_and_did_not_end_is_an_error_of_the_plugin_also_in_a_flood(busy: Bench) -> None:
    await waiting(busy, *["flood"] * FULL)
    await waiting(busy, *["flood"] * 3)
    begins_all(busy)
    await eventually(lambda: busy.router.queued == 0)
    assert (await busy.call("late")).status == 504
    figures = counted(busy)
    assert (figures.errors, figures.failures) == (1, 0)


async def test_a_switch_hands_no_lateness_to_the_version_that_comes(busy: Bench) -> None:
    await waiting(busy, *["flood"] * FULL)
    wires = await waiting(busy, *ALIKE)
    late = await waiting(busy, *ALIKE, method="late")  # these are decided for the new version, and end there at once
    over(busy, ALIKE[:4])
    await busy.supervisor.stage(order(2, "1.0.0", "2.0.0", 10_000))
    answers = [await wire.receive() for wire in (*wires[:4], *late)]
    assert {answer.status for answer in answers} == {504}
    assert {answer.headers["x-hotswap-version"] for answer in answers[:4]} == {"1.0.0"}
    assert {answer.headers["x-hotswap-version"] for answer in answers[-2:]} == {"2.0.0"}
    old, new = counted(busy), counted(busy, "2.0.0")
    assert (old.failures, old.flood) == (10, None)
    assert (new.requests, new.errors) == (0, 0)


async def test_time_that_a_restart_took_is_of_the_version_that_restarted(busy: Bench) -> None:
    busy.launcher.gates["1.0.0"] = asyncio.Event()
    busy.launcher.hosts[0].die()
    [wire] = await waiting(busy, "acme")
    await eventually(lambda: busy.router.waiting == 1)
    over(busy, ["acme"])
    await busy.supervisor.stage(order(2, "1.0.0", "2.0.0", 10_000))
    assert (await wire.receive()).status == 504
    assert (counted(busy).failures, counted(busy).flood) == (1, None)
    assert counted(busy, "2.0.0").requests == 0
    busy.launcher.gates["1.0.0"].set()


async def test_who_waited_long_in_the_queue_still_waits_a_moment_for_a_process_that_restarts(busy: Bench) -> None:
    await waiting(busy, *["flood"] * FULL)
    wires = await waiting(busy, *ALIKE)
    busy.router.now = lambda: monotonic() + LIMITS.wait_seconds + 1  # so long did they wait
    busy.launcher.hosts[0].die()
    await eventually(lambda: len(busy.launcher.hosts) == 2 and len(busy.launcher.hosts[1].held) == len(ALIKE))
    busy.launcher.hosts[1].release()
    assert await statuses(wires) == [200] * len(ALIKE)


async def test_who_is_decided_for_anew_again_and_again_has_asked_but_once(busy: Bench) -> None:
    [host] = busy.launcher.hosts
    await waiting(busy, *["flood"] * FULL)
    await waiting(busy, *["flood"] * 17, *["acme"] * 3)
    for _ in range(8):
        busy.router.wake("invoice")
    await asyncio.sleep(0)
    host.begins = 1000
    await eventually(lambda: busy.router.queued == 0)
    host.begins = 0
    await waiting(busy, *["flood"] * 20)
    assert {(await busy.call("hold", "flood")).status for _ in range(2)} == {503}
    assert counted(busy).flood == FloodFigures(turned_away=2)
