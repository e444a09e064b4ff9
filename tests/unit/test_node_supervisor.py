"""Orders on a node: staging, the fence, restarts, restoring, forgetting. Hosts are fakes."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.domain.analysis import Health
from hotswap.domain.errors import ArtifactCorrupt, HostFailed, PluginError, StaleGeneration
from hotswap.domain.routes import DesiredRoute, RouteState
from hotswap.node.seat import FIRST_BACKOFF
from hotswap.node.supervisor import NodeSupervisor
from tests.unit.node_fakes import FakeLauncher, eventually, make_supervisor, order, ref, refused

SECOND = timedelta(seconds=1)
LOAD_FAILED = HostFailed("cannot import", "LOAD_FAILED")


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
async def node(launcher: FakeLauncher) -> AsyncIterator[NodeSupervisor]:
    made = make_supervisor(launcher)
    yield made
    await made.close()
    assert launcher.live() == []


def loaded(node: NodeSupervisor) -> dict[str, str]:
    return {report.version: report.state for report in node.hosts()}


async def test_staging_loads_every_version_named_and_applies(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    report = await node.stage(order(3, "1.0.0", "2.0.0", 0, warm=("0.9.0",)))
    assert (report.node_id, report.generation) == ("node-t", 3)
    assert {host.version: host.state for host in report.hosts} == dict.fromkeys(("1.0.0", "2.0.0", "0.9.0"), "Ready")
    assert all(host.pid and host.memory_bytes and host.load_ms for host in report.hosts)
    route = node.routes["invoice"]
    assert (route.generation, set(route.hosts)) == (3, {"1.0.0", "2.0.0", "0.9.0"})


async def test_versions_are_loaded_in_parallel(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.gates = {"1.0.0": asyncio.Event(), "2.0.0": asyncio.Event()}
    staging = asyncio.create_task(node.stage(order(1, "1.0.0", "2.0.0")))
    await eventually(lambda: set(launcher.launches) == {"1.0.0", "2.0.0"})
    for gate in launcher.gates.values():
        gate.set()
    await staging


async def test_the_same_order_again_changes_nothing(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    first = await node.stage(order(1, "1.0.0", "2.0.0", 1000))
    again = await node.apply(order(1, "1.0.0", "2.0.0", 1000))
    assert [host.pid for host in first.hosts] == [host.pid for host in again.hosts]
    assert launcher.launches == {"1.0.0": 1, "2.0.0": 1}


async def test_a_failed_stage_leaves_what_was_serving_and_no_process(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0"))
    before = node.routes["invoice"]
    launcher.broken["2.0.0"] = LOAD_FAILED
    launcher.gates["3.0.0"] = asyncio.Event()
    fault = await refused(node.stage(order(2, "1.0.0", "2.0.0", warm=("3.0.0",))))
    assert fault is LOAD_FAILED
    assert node.routes["invoice"] is before
    assert [host.spec.version for host in launcher.live()] == ["1.0.0"]
    assert node.figures("invoice", datetime.now(UTC)).generation == 1


async def test_a_version_that_fails_its_warm_up_call_is_not_staged(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    launcher.sick.add("1.0.0")
    assert isinstance(await refused(node.stage(order(1, "1.0.0"))), PluginError)
    assert launcher.live() == []
    assert node.routes == {}


async def test_a_cancelled_stage_leaves_no_process(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.gates["2.0.0"] = asyncio.Event()
    staging = asyncio.create_task(node.stage(order(1, "1.0.0", "2.0.0")))
    await eventually(lambda: launcher.live("1.0.0") and launcher.launches["2.0.0"])
    staging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staging
    assert launcher.live() == []
    assert node.routes == {}
    launcher.gates["2.0.0"].set()
    await node.stage(order(1, "1.0.0", "2.0.0"))  # and the order can be repeated


async def test_an_older_order_is_refused(node: NodeSupervisor) -> None:
    await node.stage(order(5, "1.0.0"))
    for late in (node.stage, node.apply, lambda stale: node.retire(stale, SECOND)):
        assert isinstance(await refused(late(order(4, "2.0.0"))), StaleGeneration)
    assert set(node.routes["invoice"].hosts) == {"1.0.0"}


async def test_one_generation_has_one_state(node: NodeSupervisor) -> None:
    await node.stage(order(5, "1.0.0"))
    assert isinstance(await refused(node.apply(order(5, "2.0.0"))), StaleGeneration)


async def test_a_newer_order_overtakes_one_that_is_still_loading(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0"))
    launcher.gates["2.0.0"] = asyncio.Event()  # never opened
    staging = asyncio.create_task(node.stage(order(2, "1.0.0", "2.0.0")))
    await eventually(lambda: launcher.launches["2.0.0"])
    report = await asyncio.wait_for(node.apply(order(3, "1.0.0")), 1)
    assert report.generation == 3
    assert isinstance(await refused(staging), StaleGeneration)
    assert [host.spec.version for host in launcher.live()] == ["1.0.0"]


async def test_retiring_drains_and_unloads_what_the_order_does_not_name(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0", "2.0.0", 10_000, warm=("0.9.0",)))
    old = launcher.live("1.0.0")[0]
    old.submit("hold", "acme", b"{}", 5, lambda _: None)
    retiring = asyncio.create_task(node.retire(order(2, "2.0.0", warm=("0.9.0",)), timedelta(seconds=5)))
    await eventually(lambda: loaded(node) == {"2.0.0": "Ready", "0.9.0": "Ready", "1.0.0": "Draining"})
    assert not retiring.done()
    old.release()
    report = await retiring
    assert {host.version for host in report.hosts} == {"2.0.0", "0.9.0"}
    assert old.closed


async def test_draining_ends_when_its_grace_is_over(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0", "2.0.0"))
    launcher.live("1.0.0")[0].submit("hold", "acme", b"{}", 5, lambda _: None)
    await asyncio.wait_for(node.retire(order(2, "2.0.0"), timedelta(seconds=0.05)), 2)
    assert set(loaded(node)) == {"2.0.0"}


async def test_a_cancelled_retire_still_unloads(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0", "2.0.0"))
    old = launcher.live("1.0.0")[0]
    old.submit("hold", "acme", b"{}", 5, lambda _: None)
    retiring = asyncio.create_task(node.retire(order(2, "2.0.0"), timedelta(seconds=5)))
    await eventually(lambda: "Draining" in loaded(node).values())
    retiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await retiring
    old.release()
    await eventually(lambda: old.closed)


async def test_an_empty_order_takes_the_plugin_away(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, None, "1.0.0"))
    report = await node.retire(order(2), SECOND)
    assert (report.generation, report.hosts) == (2, ())
    assert node.routes == {}
    assert launcher.live() == []


async def test_a_host_that_dies_is_restarted_and_counted(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0"))
    launcher.live()[0].die("killed by signal 9")
    [report] = node.hosts()
    assert (report.state, report.crashes, report.pid) == ("Crashed", 1, None)
    assert "signal 9" in report.last_error
    await eventually(lambda: loaded(node) == {"1.0.0": "Ready"})
    assert node.hosts()[0].crashes == 1


async def test_crashes_before_a_node_s_upgrade_count_on_after_it(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0"))
    for told in (2, 3):  # a later word replaces the one before
        node.inherit_crashes("invoice", "1.0.0", told)
    node.inherit_crashes("invoice", "9.9.9", 7)
    node.inherit_crashes("stranger", "1.0.0", 7)
    launcher.live()[0].die()
    assert node.hosts()[0].crashes == 4
    assert node.crashes() == {("invoice", "1.0.0"): 4}
    assert node.in_rollout() == set()
    await node.stage(order(2, "1.0.0", "2.0.0"))
    assert node.in_rollout() == {"invoice"}


async def test_restarts_back_off_and_begin_anew_when_somebody_needs_the_version(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0"))
    launcher.broken["1.0.0"] = LOAD_FAILED
    launcher.live()[0].die()
    await eventually(lambda: len(launcher.launched_at) == 5)
    waits = [later - earlier for earlier, later in itertools.pairwise(launcher.launched_at[1:])]
    assert waits == sorted(waits)
    assert waits[0] >= 0.95 * FIRST_BACKOFF
    assert waits[-1] >= 3.95 * FIRST_BACKOFF
    del launcher.broken["1.0.0"]
    await node.apply(order(2, "1.0.0"))
    await eventually(lambda: loaded(node) == {"1.0.0": "Ready"}, within=0.3)


async def test_a_stable_version_that_keeps_crashing_does_not_keep_its_successor_out(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0"))
    launcher.broken["1.0.0"] = LOAD_FAILED
    launcher.live()[0].die()
    await node.stage(order(2, "1.0.0", "2.0.0"))
    assert loaded(node)["2.0.0"] == "Ready"


async def test_staging_insists_on_a_candidate_that_is_down(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.broken["2.0.0"] = LOAD_FAILED
    await node.restore(DesiredRoute(order=order(1, "1.0.0", "2.0.0")))  # reconciliation came first
    assert loaded(node)["2.0.0"] == "Crashed"
    assert isinstance(await refused(node.stage(order(1, "1.0.0", "2.0.0"))), HostFailed)
    del launcher.broken["2.0.0"]
    await node.stage(order(1, "1.0.0", "2.0.0"))
    assert loaded(node)["2.0.0"] == "Ready"


async def test_three_failed_probes_replace_the_host_without_losing_its_requests(launcher: FakeLauncher) -> None:
    node = make_supervisor(launcher, probe_every=timedelta(seconds=0.02))
    await node.stage(order(1, "1.0.0"))
    first = launcher.live()[0]
    answers: list[bool] = []
    first.submit("hold", "acme", b"{}", 5, lambda reply: answers.append(reply.ok))
    first.ping_fault = PluginError("health said False", "Unhealthy")
    await eventually(lambda: node.hosts()[0].probe_failures == 1)
    await eventually(lambda: len(launcher.hosts) == 2)
    await eventually(lambda: node.routes["invoice"].hosts["1.0.0"].pick() is launcher.hosts[1])
    assert node.hosts()[0].crashes == 1
    first.release()
    await eventually(lambda: first.closed)
    assert answers == [True]
    await node.close()


async def test_one_failed_probe_is_forgiven(launcher: FakeLauncher) -> None:
    node = make_supervisor(launcher, probe_every=timedelta(seconds=0.02))
    await node.stage(order(1, "1.0.0"))
    host = launcher.live()[0]
    host.ping_fault = HostFailed("no answer", "TIMEOUT")
    await eventually(lambda: node.hosts()[0].probe_failures == 1)
    host.ping_fault = None
    await eventually(lambda: node.hosts()[0].probe_failures == 0)
    assert len(launcher.hosts) == 1
    await node.close()


async def test_a_probe_says_how_the_version_is(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0"))
    good = await node.probe("invoice", "1.0.0")
    assert (good.health, good.latency_ms, good.node_id) == (Health.HEALTHY, 0.25, "node-t")
    launcher.live()[0].ping_fault = PluginError("no database", "Unhealthy")
    bad = await node.probe("invoice", "1.0.0")
    assert (bad.health, bad.detail) == (Health.UNHEALTHY, "no database")
    for plugin, version in (("invoice", "9.9.9"), ("unknown", "1.0.0")):
        absent = await node.probe(plugin, version)
        assert absent.health == Health.UNHEALTHY
        assert "not loaded" in absent.detail


async def test_restoring_keeps_trying_what_cannot_load_and_serves_the_rest(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    launcher.unprepared["1.0.0"] = ArtifactCorrupt("its digest differs")
    await node.restore(DesiredRoute(order=order(4, "1.0.0", "2.0.0", 5000), pins={"vip": ref("0.9.0")}))
    assert loaded(node) == {"1.0.0": "Crashed", "2.0.0": "Ready", "0.9.0": "Ready"}
    assert node.routes["invoice"].pins == {"vip": ref("0.9.0")}
    assert launcher.prepared["1.0.0"] == 1  # a repeat would cost a download: a minute until the next


async def test_pins_are_kept_by_orders_and_changed_by_reconciliation(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.restore(DesiredRoute(order=order(1, "1.0.0"), pins={"vip": ref("0.9.0")}))
    await node.retire(order(2, "2.0.0"), SECOND)
    assert set(loaded(node)) == {"2.0.0", "0.9.0"}
    assert node.routes["invoice"].pins == {"vip": ref("0.9.0")}
    await node.restore(DesiredRoute(order=order(2, "2.0.0"), pins={}))
    assert node.routes["invoice"].pins == {}


async def test_a_plugin_wanted_no_more_is_unloaded_and_then_forgotten(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(7, "1.0.0"))
    await node.forget("invoice", node.fences()["invoice"])
    assert node.routes == {}
    await eventually(lambda: launcher.live() == [])
    assert isinstance(await refused(node.apply(order(7, "1.0.0"))), StaleGeneration)
    await node.forget("invoice", node.fences()["invoice"])
    await eventually(lambda: node.hosts() == [])
    await node.forget("invoice", node.fences().get("invoice", 0))
    assert node.fences() == {}


async def test_forgetting_gives_way_to_an_order_that_came_meanwhile(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    read = node.fences().get("invoice", 0)
    await node.stage(order(1, None, "1.0.0"))
    await node.forget("invoice", read)
    assert loaded(node) == {"1.0.0": "Ready"}


async def test_forgetting_keeps_the_fence_of_an_order_that_failed_meanwhile(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    launcher.broken["6.6.6"] = LOAD_FAILED
    await refused(node.stage(order(1, None, "6.6.6")))
    read = node.fences()["invoice"]
    await refused(node.stage(order(2, None, "6.6.6")))
    await node.forget("invoice", read)
    assert isinstance(await refused(node.apply(order(1, "1.0.0"))), StaleGeneration)


async def test_a_version_with_other_bytes_is_loaded_anew(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0"))
    old = launcher.live()[0]
    changed = order(2, "1.0.0").model_copy(update={"state": RouteState(stable=ref("1.0.0", digest="f" * 64))})
    await node.stage(changed)
    await eventually(lambda: old.closed)
    assert len(launcher.live("1.0.0")) == 1


async def test_plugins_do_not_wait_for_each_other(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.gates["2.0.0"] = asyncio.Event()
    slow = asyncio.create_task(node.stage(order(1, "2.0.0", plugin="slow")))
    await asyncio.wait_for(node.stage(order(1, "1.0.0", plugin="fast")), 1)
    launcher.gates["2.0.0"].set()
    await slow
    assert set(node.routes) == {"slow", "fast"}
