"""A node that takes an order and falls silent is lost like a dead one: it stops neither a rollout nor, above all, an undo."""

from datetime import timedelta

from temporalio.exceptions import TimeoutError, TimeoutType

from hotswap.domain.deployment import Environment
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.routes import RouteOrder
from tests.workflow.world import NOW, ScriptedNode, World, canary, direct, send, until


def falls_silent(order: RouteOrder) -> bool:
    raise TimeoutError("activity heartbeat timeout", type=TimeoutType.HEARTBEAT, last_heartbeat_details=[])


async def hang(world: World, node: ScriptedNode, *, beating: bool) -> None:
    """As Temporal tells it after the last attempt; a node that is stopped does not beat either."""
    node.fail_to_apply = falls_silent
    seen = NOW if beating else NOW - timedelta(seconds=6)
    async with world.records.unit_of_work() as uow:
        await uow.nodes.register(world.node_record(node.node_id, Environment.DEVELOPMENT, seen=seen))
        await uow.commit()


async def test_an_abort_is_done_although_a_node_hangs(world: World) -> None:
    hung = world.nodes[1]
    async with world.working():
        await world.serve_first_version()
        before = await world.route()
        handle = await world.start(world.request(canary((50, 100), timedelta(minutes=5))))
        await until(handle, lambda progress: progress.step_title == "observe at 50 %")
        await hang(world, hung, beating=False)
        await send(handle, "abort", reason="a node hangs")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ABORTED
    assert progress.set_weight_percent == 0
    assert {node.node_id: node.state for node in progress.nodes}[hung.node_id] == "Lost"
    assert await world.route() == before


async def test_a_node_that_beats_and_does_not_follow_has_failed(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        await hang(world, world.nodes[1], beating=True)
        progress = await world.deploy(world.request(direct()))
    assert progress.status is not DeploymentStatus.COMPLETED
    assert f"{world.nodes[1].node_id}: Timeout" in progress.outcome_reason
