"""What a node tells of itself for the drift comparison, how it makes itself right, and that its crashes are seen."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.domain.analysis import NodeFigures
from hotswap.domain.drift import NodeInventory
from hotswap.domain.errors import HostFailed, StaleGeneration
from hotswap.domain.health import Condition, look_at
from hotswap.domain.routes import DesiredRoute
from hotswap.node.supervisor import NodeSupervisor
from tests.unit.node_fakes import FakeLauncher, eventually, make_supervisor, order, ref
from tests.unit.test_node_reconcile import Desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.supervisor.close()


def told(inventory: NodeInventory) -> dict[str, tuple[int, dict[str, str]]]:
    return {
        part.plugin: (part.generation, {host.version: host.state for host in part.hosts}) for part in inventory.plugins
    }


async def test_the_inventory_names_every_host_with_its_bytes(desk: Desk) -> None:
    await desk.supervisor.stage(order(3, "1.0.0", "2.0.0", warm=("0.9.0",)))
    inventory = desk.supervisor.inventory()
    assert inventory.node_id == "node-t"
    assert told(inventory) == {"invoice": (3, dict.fromkeys(("1.0.0", "2.0.0", "0.9.0"), "Ready"))}
    digests = {host.version: host.digest for part in inventory.plugins for host in part.hosts}
    assert digests["2.0.0"] == ref("2.0.0").digest


async def test_a_repair_unloads_what_a_lost_retirement_left(desk: Desk) -> None:
    await desk.supervisor.stage(order(1, "1.0.0", "2.0.0"))
    await desk.supervisor.apply(order(2, "2.0.0"))  # and the order to retire 1.0.0 never came
    desk.want(order(2, "2.0.0"))
    await desk.reconciler.reconcile()
    await desk.reconciler.reconcile()
    assert set(told(desk.supervisor.inventory())["invoice"][1]) == {"1.0.0", "2.0.0"}, "that is the drift"
    assert await desk.reconciler.repair(["invoice"]) == {"invoice": ""}
    await eventually(lambda: told(desk.supervisor.inventory()) == {"invoice": (2, {"2.0.0": "Ready"})})


async def test_a_repair_follows_a_missed_generation_at_once(desk: Desk) -> None:
    await desk.supervisor.stage(order(1, "1.0.0"))
    desk.want(order(5, "2.0.0"))
    assert await desk.reconciler.repair(["invoice"]) == {"invoice": ""}
    await eventually(lambda: told(desk.supervisor.inventory()) == {"invoice": (5, {"2.0.0": "Ready"})})


async def test_a_repair_of_what_nobody_wants_unloads_it(desk: Desk) -> None:
    await desk.supervisor.stage(order(1, "1.0.0"))
    desk.want()
    assert await desk.reconciler.repair(["invoice", "never-heard-of"]) == {"invoice": "", "never-heard-of": ""}
    await eventually(lambda: not told(desk.supervisor.inventory()).get("invoice", (0, {}))[1])


async def test_a_repair_undoes_no_newer_order(desk: Desk) -> None:
    await desk.supervisor.stage(order(7, "2.0.0"))
    desk.want(order(5, "1.0.0"))
    done = await desk.reconciler.repair(["invoice"])
    assert done["invoice"].startswith("StaleGeneration")
    with pytest.raises(StaleGeneration):
        await desk.supervisor.settle(DesiredRoute(order=order(5, "1.0.0")))
    assert told(desk.supervisor.inventory()) == {"invoice": (7, {"2.0.0": "Ready"})}


async def test_a_repair_of_what_cannot_load_keeps_the_rest_serving(desk: Desk) -> None:
    desk.launcher.broken = {"2.0.0": HostFailed("cannot import", "LOAD_FAILED")}
    desk.want(order(1, "1.0.0", "2.0.0"))
    await desk.reconciler.repair(["invoice"])
    assert told(desk.supervisor.inventory())["invoice"][1] == {"1.0.0": "Ready", "2.0.0": "Crashed"}


def figures_of(node: NodeSupervisor) -> NodeFigures:
    return node.figures("invoice", datetime.now(UTC) - timedelta(seconds=5))


async def test_a_host_that_dies_and_comes_back_between_two_looks_is_seen(desk: Desk) -> None:
    node = desk.supervisor
    await node.stage(order(1, "1.0.0"))
    first = look_at([figures_of(node)], [], "1.0.0", {}, 0.2)
    assert first.condition is Condition.WELL
    [process] = desk.launcher.live()
    process.die()
    await eventually(lambda: [host.state for host in figures_of(node).hosts] == ["Ready"])
    second = look_at([figures_of(node)], [], "1.0.0", first.crashes, 0.2)
    assert second.condition is Condition.FAULTY
    assert "crashed 1 times" in second.evidence
    assert look_at([figures_of(node)], [], "1.0.0", second.crashes, 0.2).condition is Condition.WELL


async def test_a_host_whose_liveness_probe_fails_is_seen() -> None:
    launcher = FakeLauncher()
    node = make_supervisor(launcher, timedelta(seconds=0.02))
    await node.stage(order(1, "1.0.0"))
    [process] = launcher.live()
    process.ping_fault = HostFailed("no answer to a ping", "TIMEOUT")
    await eventually(lambda: figures_of(node).hosts[0].probe_failures > 0 or figures_of(node).hosts[0].crashes > 0)
    assert look_at([figures_of(node)], [], "1.0.0", {"node-t": 0}, 0.2).condition is Condition.FAULTY
    await node.close()
