"""Who sleeps while nobody calls, who goes when memory is short, and that nobody notices. Hosts are fakes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.analysis.sample import collect
from hotswap.domain.deployment import Environment
from hotswap.domain.drift import differences
from hotswap.domain.errors import HostFailed
from hotswap.domain.health import Condition, look_at
from hotswap.domain.registry import NodeRecord
from hotswap.domain.routes import DesiredRoute, RouteOrder, RouteState
from hotswap.node.eviction import Candidate, EvictionPolicy, Evictor, choose
from hotswap.node.hosts import SupervisedHost
from hotswap.node.supervisor import EVERY_PLUGIN, NodeSupervisor
from tests.unit.node_fakes import FakeLauncher, eventually, make_supervisor, order, ref, refused

NOW = timedelta(microseconds=1)
"""Every version is idle for longer than this as soon as nobody calls it."""
SECOND = timedelta(seconds=1)
MB = 1_000_000
"""What a fake host has for its own."""

IDLE = EvictionPolicy(idle_after=NOW, in_use=NOW)


def budget(megabytes: float, in_use: timedelta = NOW) -> EvictionPolicy:
    return EvictionPolicy(budget_bytes=int(megabytes * MB), in_use=in_use)


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
async def node(launcher: FakeLauncher) -> AsyncIterator[NodeSupervisor]:
    made = make_supervisor(launcher)
    yield made
    await made.close()
    assert launcher.live() == []


def states(node: NodeSupervisor, plugin: str = "invoice") -> dict[str, str]:
    return {report.version: report.state for report in node.hosts() if report.plugin == plugin}


async def serve(node: NodeSupervisor, *plugins: str) -> None:
    """One version of each, used in this order."""
    for plugin in plugins:
        await node.stage(order(1, "1.0.0", plugin=plugin))
        node.routes[plugin].hosts["1.0.0"].pick()
        await Evictor(node, EvictionPolicy(in_use=NOW)).look()  # notes the use


# -- choosing --------------------------------------------------------------------------------------------------------


def candidate(name: str, idle: float, size: int = 10, evictable: bool = True, standby: bool = False) -> Candidate:
    return Candidate((name, "1.0.0"), idle, size, evictable, standby)


LOADED = (
    candidate("old", 500),
    candidate("older", 900),
    candidate("busy", 0.5),
    candidate("rollout", 900, evictable=False),
    candidate("wanted", 1000, standby=True),
)


@pytest.mark.parametrize(
    ("policy", "gone", "stay"),
    [
        (EvictionPolicy(), {}, 50),
        (EvictionPolicy(idle_after=timedelta(seconds=600)), {"older": "idle"}, 40),
        (EvictionPolicy(budget_bytes=50), {}, 50),
        (EvictionPolicy(budget_bytes=49), {"older": "budget"}, 40),
        (EvictionPolicy(budget_bytes=30), {"older": "budget", "old": "budget"}, 30),
        (EvictionPolicy(budget_bytes=29), {"older": "budget", "old": "budget", "wanted": "budget"}, 20),
        (EvictionPolicy(budget_bytes=5), {"older": "budget", "old": "budget", "wanted": "budget"}, 20),
        (
            EvictionPolicy(idle_after=timedelta(seconds=600), budget_bytes=35),
            {"older": "idle", "old": "budget"},
            30,
        ),
    ],
)
def test_the_least_recently_used_go_first_and_what_is_wanted_at_once_last(
    policy: EvictionPolicy, gone: dict[str, str], stay: int
) -> None:
    chosen, left = choose(LOADED, policy, measured=policy.budget_bytes > 0)
    assert {name: reason for (name, _), reason in chosen.items()} == gone
    assert left == stay


# -- on a node -------------------------------------------------------------------------------------------------------


async def test_an_idle_version_is_ended_and_loads_again_when_somebody_asks(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0"))
    await Evictor(node, IDLE).look()
    assert states(node) == {"1.0.0": "Evicted"}
    await eventually(lambda: launcher.live() == [])
    assert launcher.hosts[0].closed
    host = node.routes["invoice"].hosts["1.0.0"]
    changes: list[str] = []
    node.on_change(changes.append)
    assert host.pick() is None
    assert host.back_within(0.0)  # the router lets the request wait
    await eventually(lambda: changes == ["invoice"])  # and is told when it is there
    assert host.pick() is launcher.live()[0]
    assert (node.tally.evictions, node.tally.reloads) == ({"idle": 1, "budget": 0}, 1)
    assert node.hosts()[0].crashes == 0


async def test_what_is_called_or_has_calls_in_flight_stays(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await serve(node, "called", "working", "idle")
    working = node.routes["working"].hosts["1.0.0"].pick()
    assert working is not None
    working.submit("hold", "acme", b"{}", 5, lambda _: None)
    for plugin in ("called", "working", "idle"):
        host = node.routes[plugin].hosts["1.0.0"]
        assert isinstance(host, SupervisedHost)
        host.used_at -= 3600
    node.routes["called"].hosts["1.0.0"].pick()
    await Evictor(node, EvictionPolicy(idle_after=timedelta(minutes=30))).look()
    assert [report.plugin for report in node.hosts() if report.state == "Evicted"] == ["idle"]
    await Evictor(node, IDLE).look()
    assert states(node, "working") == {"1.0.0": "Ready"}  # however little idleness is allowed
    launcher.hosts[1].release()


async def test_versions_of_a_rollout_stay_until_it_is_over(node: NodeSupervisor) -> None:
    await node.stage(order(1, "1.0.0", "2.0.0", 1000))
    evictor = Evictor(node, IDLE)
    await evictor.look()
    assert states(node) == {"1.0.0": "Ready", "2.0.0": "Ready"}
    await node.apply(order(2, "2.0.0", warm=("1.0.0",)))
    await evictor.look()
    assert states(node) == {"1.0.0": "Evicted", "2.0.0": "Evicted"}


async def test_an_order_wakes_what_it_names_and_staging_insists_on_it(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "2.0.0", warm=("1.0.0",)))
    await Evictor(node, IDLE).look()
    report = await node.stage(order(2, "2.0.0", "1.0.0"))  # back to the old one
    assert {host.version: host.state for host in report.hosts}["1.0.0"] == "Ready"
    await node.apply(order(3, "1.0.0", warm=("2.0.0",)))
    await Evictor(node, IDLE).look()
    launcher.broken["2.0.0"] = HostFailed("cannot import", "LOAD_FAILED")
    assert isinstance(await refused(node.stage(order(4, "1.0.0", "2.0.0"))), HostFailed)


async def test_an_evicted_version_can_be_unloaded(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0"))
    await Evictor(node, IDLE).look()
    await node.retire(order(2, "2.0.0"), SECOND)
    assert states(node) == {"2.0.0": "Ready"}


async def test_a_reload_that_fails_is_a_crash_and_is_tried_again(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0"))
    await Evictor(node, IDLE).look()
    launcher.broken["1.0.0"] = HostFailed("out of memory", "MEMORY_LIMIT")
    assert node.routes["invoice"].hosts["1.0.0"].pick() is None
    await eventually(lambda: states(node) == {"1.0.0": "Crashed"})
    del launcher.broken["1.0.0"]
    await eventually(lambda: states(node) == {"1.0.0": "Ready"})


async def test_a_probe_loads_an_evicted_version_and_so_proves_something(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0"))
    await Evictor(node, IDLE).look()
    assert (await node.probe("invoice", "1.0.0")).health == "Healthy"
    assert states(node) == {"1.0.0": "Ready"}
    await Evictor(node, IDLE).look()
    launcher.broken["1.0.0"] = HostFailed("cannot import", "LOAD_FAILED")
    report = await node.probe("invoice", "1.0.0")
    assert (report.health, report.detail) == ("Unhealthy", "cannot import")


async def test_nobody_takes_an_evicted_version_for_a_crashed_or_a_missing_one(node: NodeSupervisor) -> None:
    await node.stage(order(1, "1.0.0"))
    await Evictor(node, IDLE).look()
    figures = node.figures("invoice", datetime.now(UTC))
    assert look_at([figures], [], "1.0.0", {"node-t": 0}, 0.0).condition is Condition.WELL
    assert [host.report.crashes for host in collect([figures], "1.0.0", None).hosts] == [0]
    desired = DesiredRoute(order=RouteOrder(plugin="invoice", generation=1, state=RouteState(stable=ref("1.0.0"))))
    record = NodeRecord(
        node_id="node-t",
        environment=Environment.DEVELOPMENT,
        boot_id="boot",
        router_url="http://127.0.0.1:1",
        admin_url="http://127.0.0.1:2",
        sandbox_tier="fake",
        last_seen_at=datetime.now(UTC),
    )
    assert differences([desired], [record], [node.inventory()], datetime.now(UTC)) == []


async def test_over_the_budget_the_least_recently_used_goes(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await serve(node, "first", "second", "third")
    evictor = Evictor(node, budget(2.5))
    await evictor.look()
    assert [report.plugin for report in node.hosts() if report.state == "Evicted"] == ["first"]
    assert (node.tally.own_bytes, node.tally.budget_bytes) == (2 * MB, 2_500_000)
    assert node.tally.evictions == {"idle": 0, "budget": 1}


async def test_what_is_in_use_stays_over_the_budget_and_that_is_said_once(
    node: NodeSupervisor, launcher: FakeLauncher, caplog: pytest.LogCaptureFixture
) -> None:
    await serve(node, "first", "second")
    evictor = Evictor(node, budget(1.5, in_use=timedelta(hours=1)))
    with caplog.at_level(logging.INFO, "hotswap.node.eviction"):
        for _ in range(3):
            await evictor.look()
            evictor._measure_at = 0.0
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "HOTSWAP_NODE__MEMORY_BUDGET_MB" in caplog.text
        assert node.tally.own_bytes == 2 * MB
        launcher.hosts[0].own_bytes = 0
        await evictor.look()
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert [report.state for report in node.hosts()] == ["Ready", "Ready"]


async def test_a_standby_counts_and_goes_with_its_version_without_taking_over(launcher: FakeLauncher) -> None:
    node = make_supervisor(launcher, standby=(EVERY_PLUGIN,))
    await node.stage(order(1, "1.0.0"))
    await eventually(lambda: len(launcher.live()) == 2)
    await Evictor(node, IDLE).look()  # being wanted at once, it does not go for being idle
    assert len(launcher.live()) == 2
    await Evictor(node, budget(1.5)).look()
    assert [report.state for report in node.hosts()] == ["Evicted", "Evicted"]
    assert node.tally.takeovers == 0
    await eventually(lambda: launcher.live() == [])
    node.routes["invoice"].hosts["1.0.0"].pick()
    await eventually(lambda: [report.state for report in node.hosts()] == ["Ready", "Standby"])
    await node.close()


async def test_the_looking_goes_on_after_a_fault_and_does_nothing_when_off(
    node: NodeSupervisor, launcher: FakeLauncher, caplog: pytest.LogCaptureFixture
) -> None:
    await Evictor(node, EvictionPolicy()).run()  # off: over at once
    await node.stage(order(1, "1.0.0"))
    evictor = Evictor(node, EvictionPolicy(idle_after=NOW, look_every=timedelta(milliseconds=5)))
    original, node.loaded = node.loaded, lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    looking = asyncio.create_task(evictor.run())
    await eventually(lambda: "looking for hosts to evict failed" in caplog.text)
    node.loaded = original  # type: ignore[method-assign]
    await eventually(lambda: states(node) == {"1.0.0": "Evicted"})
    looking.cancel()
