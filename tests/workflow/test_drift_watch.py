"""The drift watch on a real Temporal server: what it reports, audits and repairs."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle

from hotswap.domain.deployment import Environment
from hotswap.domain.drift import DriftReport
from hotswap.domain.registry import Page
from tests.workflow.world import World, direct
from workflows.drift import DriftPolicy, DriftRepaired, DriftState, DriftWatch, RepairCommand

NEVER = DriftPolicy(interval=timedelta(hours=1))
QUICK = DriftPolicy(interval=timedelta(milliseconds=100), repair=True)


async def watch(world: World, policy: DriftPolicy) -> WorkflowHandle[DriftWatch, None]:
    """Its own id: the tests share a server."""
    return await world.client.start_workflow(
        DriftWatch.run,
        DriftState(environment=Environment.DEVELOPMENT, policy=policy),
        id=f"drift/{world.name}",
        task_queue=world.queue,
    )


async def repair(handle: WorkflowHandle[Any, Any]) -> DriftRepaired:
    done: DriftRepaired = await handle.execute_update(
        "repair", RepairCommand(by="ada", reason="tidy"), result_type=DriftRepaired
    )
    return done


async def report(world: World) -> DriftReport | None:
    async with world.records.unit_of_work() as uow:
        return await uow.drift.last("Development")


async def audited(world: World) -> list[str]:
    async with world.records.unit_of_work() as uow:
        entries, _ = await uow.audit.list("Development", "hotswap-drift", Page(limit=100))
    return [entry.event_type for entry in reversed(entries)]


def settle(world: World) -> None:
    """The routes are old enough to be compared: the World's clock stands still otherwise."""
    now = world.records.clock()
    world.records.clock = lambda: now + timedelta(minutes=1)


async def serve(world: World) -> None:
    await world.serve_first_version()
    settle(world)
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            assert await uow.nodes.beat(node.node_id, "boot")
        await uow.commit()


async def test_a_host_too_many_is_reported_and_gone_after_a_repair(world: World) -> None:
    async with world.working():
        await serve(world)
        handle = await watch(world, NEVER)
        world.nodes[0].loaded.add("2.0.0")
        done = await repair(handle)
        assert (done.found, done.left, done.nodes) == (1, 0, (world.nodes[0].node_id,))
        assert world.nodes[0].loaded == {"1.0.0"}
        assert world.nodes[1].repairs == 0, "a node that is right is left alone"
        await handle.terminate()
    last = await report(world)
    assert last is not None
    assert last.total == 0
    assert await audited(world) == ["drift.appeared", "drift.gone"]


async def test_by_policy_it_repairs_what_two_looks_have_seen(world: World) -> None:
    async with world.working():
        await serve(world)
        world.nodes[1].loaded.clear()
        handle = await watch(world, QUICK)
        async with asyncio.timeout(20):
            while not world.nodes[1].loaded:
                await asyncio.sleep(0.02)
        state: DriftState = await handle.query("status", result_type=DriftState)
        assert state.looks >= 2, "one look alone may have caught a switch"
        assert state.repairs == 1
        await handle.terminate()


async def test_without_the_policy_it_only_tells(world: World) -> None:
    async with world.working():
        await serve(world)
        world.nodes[1].loaded.clear()
        handle = await watch(world, DriftPolicy(interval=timedelta(milliseconds=50)))
        async with asyncio.timeout(20):
            while (await handle.query("status", result_type=DriftState)).looks < 5:
                await asyncio.sleep(0.02)
        assert world.nodes[1].repairs == 0
        await handle.signal("configure", QUICK)
        async with asyncio.timeout(20):
            while not world.nodes[1].repairs:
                await asyncio.sleep(0.02)
        await handle.terminate()
    last = await report(world)
    assert last is not None


async def test_a_node_that_takes_no_order_is_named(world: World) -> None:
    async with world.working():
        await serve(world)
    lost = world.nodes[1]
    lost.loaded.add("2.0.0")
    async with world.control_worker(), world.node_worker(world.nodes[0]):
        handle = await watch(world, NEVER)
        done = await repair(handle)
        await handle.terminate()
    assert done.left == 1
    assert list(done.faults) == [lost.node_id]


async def test_what_a_running_deployment_is_about_to_change_is_explained_by_it(world: World) -> None:
    async with world.working():
        await serve(world)
        handle = await watch(world, NEVER)
        world.nodes[0].hold_stage = asyncio.Event()
        request = world.request(direct())
        running = await world.start(request)
        async with asyncio.timeout(20):
            while (await world.route()).candidate is None:
                await asyncio.sleep(0.02)
        settle(world)
        async with world.records.unit_of_work() as uow:
            for node in world.nodes:
                await uow.nodes.beat(node.node_id, "boot")
            await uow.commit()
        done = await repair(handle)
        assert done.found == 0, "the deployment loads it just now"
        last = await report(world)
        assert last is not None
        assert {item.explained_by for item in last.items} == {request.deployment_id}
        world.nodes[0].hold_stage.set()
        await running.result()
        await handle.terminate()
