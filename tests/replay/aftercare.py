"""Scenarios of the time after a rollout: bake, every ending of a health monitor, a drift watch with a repair."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle

from activities.retention import SweepOrder
from hotswap.domain.analysis import HostReport
from hotswap.domain.deployment import Environment
from hotswap.domain.lifecycle import VersionStatus
from tests.workflow.aftercare import monitor_of, monitor_state, tell
from tests.workflow.world import Arm, World, direct, until
from workflows.drift import DriftPolicy, DriftRepaired, DriftState, DriftWatch, RepairCommand
from workflows.retention import RetentionSweep

AnyHandle = WorkflowHandle[Any, Any]

SECOND = timedelta(seconds=1)


async def _bake_completed(world: World) -> AnyHandle:
    return await world.start(world.request(direct(bake_period=SECOND)))


async def _bake_failed(world: World) -> AnyHandle:
    handle = await world.start(world.request(direct(bake_period=10 * SECOND)))
    await until(handle, lambda p: p.step_title == "bake")
    world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
    return handle


async def _window_completed(world: World) -> AnyHandle:
    return await world.start(world.request(direct(rollback_window=timedelta(hours=1))))


async def _back_to_a_warm_version(world: World) -> AnyHandle:
    taken = world.request(direct(rollback_window=timedelta(hours=1)))
    await world.deploy(taken)
    return await world.start(world.request(direct(), version="1.0.0", rollback_of=taken.deployment_id))


async def _monitor_went_back(world: World) -> AnyHandle:
    def down(node_id: str, plugin: str) -> tuple[HostReport, ...]:
        return (HostReport(plugin=plugin, version="2.0.0", state="Crashed", crashes=3, last_error="exit code 1"),)

    await world.deploy(world.request(direct(monitor_interval=SECOND)))
    world.figures.hosts = down
    await tell(world)
    return monitor_of(world)


async def _monitor_closed_its_window(world: World) -> AnyHandle:
    """And ended when somebody went back by hand afterwards."""
    taken = world.request(direct(rollback_window=2 * SECOND, monitor_interval=SECOND))
    await world.deploy(taken)
    async with asyncio.timeout(20):
        while (await monitor_state(world)).window_open:
            await asyncio.sleep(0.05)
    await world.deploy(world.request(direct(), version="1.0.0", rollback_of=taken.deployment_id))
    await tell(world)
    return monitor_of(world)


async def _monitor_took_a_newer_subject(world: World) -> AnyHandle:
    await world.deploy(world.request(direct(monitor_interval=SECOND)))
    newer = world.request(direct(monitor_interval=SECOND), version="1.0.0")
    await world.deploy(newer)
    async with asyncio.timeout(20):
        while (await monitor_state(world)).subject.deployment_id != newer.deployment_id:
            await asyncio.sleep(0.05)
    await world.deploy(world.request(direct(), version="2.0.0", rollback_of=newer.deployment_id))
    await tell(world, version="1.0.0")
    return monitor_of(world)


async def _drift_repaired(world: World) -> AnyHandle:
    later = world.records.clock() + timedelta(minutes=1)
    world.records.clock = lambda: later
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            await uow.nodes.beat(node.node_id, "boot")
        await uow.commit()
    world.nodes[0].loaded.add("2.0.0")
    state = DriftState(environment=Environment.DEVELOPMENT, policy=DriftPolicy(interval=SECOND))
    handle = await world.client.start_workflow(DriftWatch.run, state, id=f"drift/{world.name}", task_queue=world.queue)
    done = await handle.execute_update("repair", RepairCommand(by="ada"), result_type=DriftRepaired)
    assert (done.found, done.left) == (1, 0)
    await asyncio.sleep(2.5)  # two looks of its own
    await handle.terminate("recorded")
    return handle


async def _retention_swept(world: World) -> AnyHandle:
    key = (world.name, "2.0.0")
    archived = {"status": VersionStatus.ARCHIVED, "archived_at": world.records.clock()}
    world.records.committed.versions[key] = world.records.committed.versions[key].model_copy(update=archived)
    order = SweepOrder(archived_for=timedelta(0))
    return await world.client.start_workflow(
        RetentionSweep.run, order, id=f"retention/{world.name}", task_queue=world.queue
    )


AFTERCARE_SCENARIOS: dict[str, Callable[[World], Awaitable[AnyHandle]]] = {
    "direct-bake-completed": _bake_completed,
    "direct-bake-failed": _bake_failed,
    "direct-window-completed": _window_completed,
    "direct-back-to-warm": _back_to_a_warm_version,
    "monitor-went-back": _monitor_went_back,
    "monitor-window-closed": _monitor_closed_its_window,
    "monitor-newer-subject": _monitor_took_a_newer_subject,
    "drift-repaired": _drift_repaired,
    "retention-swept": _retention_swept,
}
