"""Rolling deployments on a real Temporal server: the order of nodes, what a bad batch costs, who joins and who is lost."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError

from hotswap.domain.deployment import DeploymentProgress, Environment
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import Page
from tests.workflow.strategies import FallsSick, rolling
from tests.workflow.world import NOW, Arm, ScriptedNode, World, send, until


@pytest.fixture
async def wide(temporal_client: Client, tmp_path: Path) -> World:
    """Four nodes."""
    made = World(temporal_client, tmp_path, node_count=4)
    await made.fill()
    return made


def switched(node: ScriptedNode) -> list[tuple[str, ...]]:
    """What each order told the node about which nodes serve all tenants by the new version."""
    return [order.state.switched_nodes for what, order in node.orders if what == "apply" and order.state.candidate]


async def batches(world: World) -> list[tuple[str, ...]]:
    """Every `switched_nodes` that was written, in order, by the short names n1, n2..."""
    async with world.records.unit_of_work() as uow:
        records, _ = await uow.routes.history(Environment.DEVELOPMENT, world.name, Page(limit=100))
    written = [record.state.switched_nodes for record in reversed(records) if record.state.switched_nodes]
    return [tuple(node.removeprefix(f"{world.name}-") for node in nodes) for nodes in written]


async def test_rolling_switches_node_by_node_and_ends_with_only_the_new_version(wide: World) -> None:
    async with wide.working():
        await wide.serve_first_version()
        for node in wide.nodes:
            node.orders.clear()
        progress = await wide.deploy(wide.request(rolling()))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert await batches(wide) == [("1",), ("1", "2"), ("1", "2", "3"), ("1", "2", "3", "4")]
    ids = wide.node_ids
    for turn, node in enumerate(wide.nodes, start=1):
        assert switched(node) == [tuple(ids[:turn])], "a node hears of its own batch and of no other"
        assert [what for what, _ in node.orders] == ["stage", "apply", "apply", "retire"]
        assert node.loaded == {"2.0.0"}
    route = await wide.route()
    assert (route.stable and route.stable.version, route.candidate, route.switched_nodes) == ("2.0.0", None, ())


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        pytest.param({"batch_size": 3}, [("1", "2", "3"), ("1", "2", "3", "4")], id="size"),
        pytest.param({"batch_percent": 50}, [("1", "2"), ("1", "2", "3", "4")], id="percent"),
        pytest.param({"batch_size": 100}, [("1", "2", "3", "4")], id="more than there are"),
    ],
)
async def test_batches_have_the_size_that_is_asked(
    wide: World, batch: dict[str, int], expected: list[tuple[str, ...]]
) -> None:
    async with wide.working():
        await wide.serve_first_version()
        progress = await wide.deploy(wide.request(rolling(**batch)))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert await batches(wide) == expected


async def test_a_batch_that_falls_sick_undoes_every_batch(wide: World) -> None:
    wide.nodes[2] = FallsSick(wide.nodes[2].node_id)
    async with wide.working():
        await wide.serve_first_version()
        before = await wide.route()
        progress = await wide.deploy(wide.request(rolling()))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert f"{wide.nodes[2].node_id} finds 2.0.0 Unhealthy: scripted" in progress.outcome_reason
    assert await batches(wide) == [("1",), ("1", "2"), ("1", "2", "3")]
    assert await wide.route() == before
    for node in wide.nodes:
        assert node.loaded == {"1.0.0"}
        assert node.route is not None
        assert node.route.state == before


async def test_a_sick_batch_gets_the_time_of_its_health_check(wide: World) -> None:
    slow = wide.nodes[0] = FallsSick(wide.nodes[0].node_id)

    async def recover() -> None:
        while slow.probes < 3:
            await asyncio.sleep(0.01)
        slow.sick = False

    async with wide.working(), asyncio.TaskGroup() as group:
        await wide.serve_first_version()
        group.create_task(recover())
        progress = await wide.deploy(wide.request(rolling(health_check_timeout=timedelta(seconds=5))))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert slow.probes >= 4


async def test_without_auto_rollback_a_sick_batch_waits_for_a_person(wide: World) -> None:
    sick = wide.nodes[1] = FallsSick(wide.nodes[1].node_id)
    async with wide.working():
        await wide.serve_first_version()
        handle = await wide.start(wide.request(rolling(auto_rollback=False)))
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "autoRollback is off" in held.waiting_for
        assert sick.node_id in held.waiting_for
        sick.sick = False
        await send(handle, "resume")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason


async def test_a_batch_that_fails_its_traffic_undoes_every_batch(wide: World) -> None:
    wide.figures.arms["2.0.0"] = Arm(requests=200, errors=100)
    async with wide.working():
        await wide.serve_first_version()
        progress = await wide.deploy(wide.request(rolling()))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "the verdict failed at 25 %" in progress.outcome_reason
    assert await batches(wide) == [("1",)], "the second batch never had its turn"
    assert all(node.loaded == {"1.0.0"} for node in wide.nodes)


async def test_too_few_figures_do_not_stop_a_healthy_batch_unless_that_is_asked(wide: World) -> None:
    wide.figures.silent = True
    async with wide.working():
        await wide.serve_first_version()
        progress = await wide.deploy(wide.request(rolling(batch_size=4)))
        assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
        back = await wide.deploy(wide.request(rolling(batch_size=4, on_inconclusive="rollback"), version="1.0.0"))
    assert back.status is DeploymentStatus.ROLLED_BACK
    assert "inconclusive" in back.outcome_reason


async def test_a_node_that_joins_in_the_middle_gets_its_turn(wide: World) -> None:
    late = ScriptedNode(f"{wide.name}-0")
    async with wide.working():
        await wide.serve_first_version()
        handle = await wide.start(wide.request(rolling(wait_between_batches=timedelta(hours=1))))
        await until(handle, lambda p: p.set_weight_percent == 25)
        async with wide.node_worker(late):
            async with wide.records.unit_of_work() as uow:
                await uow.nodes.register(wide.node_record(late.node_id, Environment.DEVELOPMENT))
                await uow.commit()
            for _ in range(5):
                await promote_when_watching(handle)
            progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert switched(late) == [(wide.node_ids[0], late.node_id)]
    assert len((await batches(wide))[-1]) == 5
    assert late.loaded == {"2.0.0"}


async def test_a_node_lost_in_its_batch_is_named_and_does_not_stop_the_others(wide: World) -> None:
    dead = ScriptedNode(f"{wide.name}-2b")  # told of itself 6 s ago, and nobody polls its queue
    async with wide.working():
        await wide.serve_first_version()
        async with wide.records.unit_of_work() as uow:
            await uow.nodes.register(
                wide.node_record(dead.node_id, Environment.DEVELOPMENT, seen=NOW - timedelta(seconds=6))
            )
            await uow.commit()
        progress = await wide.deploy(wide.request(rolling(batch_size=2)))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert {node.node_id: node.state for node in progress.nodes}[dead.node_id] == "Lost"
    assert all(node.loaded == {"2.0.0"} for node in wide.nodes)


async def test_too_few_nodes_are_waited_for_until_the_deadline_and_then_all_is_undone(world: World) -> None:
    stays, leaves = world.nodes
    config = rolling(wait_between_batches=timedelta(hours=1), progress_deadline=timedelta(seconds=4))
    async with world.control_worker(), world.node_worker(stays):
        async with world.node_worker(leaves):
            await world.serve_first_version()
            handle = await world.start(world.request(config))
            await until(handle, lambda p: p.set_weight_percent == 50)
        async with world.records.unit_of_work() as uow:
            silent_for = timedelta(seconds=6)
            await uow.nodes.register(world.node_record(leaves.node_id, Environment.DEVELOPMENT, seen=NOW - silent_for))
            await uow.commit()
        await promote_when_watching(handle)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "batch 2 made no progress within 0:00:04" in progress.outcome_reason
    assert f"{leaves.node_id} to come back: too few nodes have switched" in progress.outcome_reason
    assert {node.node_id: node.state for node in progress.nodes}[leaves.node_id] == "Lost"
    assert stays.loaded == {"1.0.0"}


async def test_a_pause_holds_the_next_batch_and_an_abort_undoes_the_ones_before(wide: World) -> None:
    async with wide.working():
        await wide.serve_first_version()
        handle = await wide.start(wide.request(rolling(wait_between_batches=timedelta(hours=1))))
        await promote_when_watching(handle)
        await until(handle, lambda p: p.set_weight_percent == 50)
        await send(handle, "pause")
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        await send(handle, "abort", reason="enough")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ABORTED
    assert await batches(wide) == [("1",), ("1", "2")]
    assert all(node.loaded == {"1.0.0"} for node in wide.nodes)
    assert (await wide.route()).switched_nodes == ()


async def promote_when_watching(handle: WorkflowHandle[Any, DeploymentProgress]) -> None:
    """End the wait after the present batch, as soon as there is one, and see the next begin (or the end)."""
    before = await until(handle, lambda p: p.step_title.startswith("switch"))
    async with asyncio.timeout(20):
        while True:
            try:
                await send(handle, "promote")
                break
            except WorkflowUpdateFailedError:  # the batch is not watched yet
                await asyncio.sleep(0.02)
    await until(
        handle, lambda p: p.route_generation > before.route_generation or p.status is DeploymentStatus.COMPLETED
    )


async def test_after_a_rolling_update_that_was_terminated_the_next_deployment_begins_afresh(wide: World) -> None:
    """The route that it left names nodes that have switched, to a version that nobody deploys any more."""
    async with wide.working():
        await wide.serve_first_version()
        handle = await wide.start(wide.request(rolling(wait_between_batches=timedelta(hours=1))))
        await until(handle, lambda p: p.step_title.startswith("switch") and p.set_weight_percent > 0)
        assert (await wide.route()).switched_nodes
        await handle.terminate("by accident")
        async with asyncio.timeout(30):
            progress = await wide.deploy(wide.request(rolling()))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert (await batches(wide))[-4:] == [("1",), ("1", "2"), ("1", "2", "3"), ("1", "2", "3", "4")]
