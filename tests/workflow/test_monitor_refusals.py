"""A health monitor whose activities fail in a way that no repeat mends goes on all the same: nobody else would watch."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError

from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.aftercare import held, monitor_of, monitor_state, tell
from tests.workflow.hooks import Hooks
from tests.workflow.test_monitor import audited, rollbacks, sick, the_rollback, until_over
from tests.workflow.world import World, direct

QUICK = timedelta(seconds=1)


@pytest.fixture
async def hooks(world: World) -> Hooks:
    made = Hooks()
    world.interceptors = [made]
    return made


@pytest.mark.parametrize("refused", ["look_at_version", "prepare_rollback", "record_rollback"])
async def test_a_refusal_on_the_way_back_is_tried_again(world: World, hooks: Hooks, refused: str) -> None:
    sick(world, lambda: True)
    hooks.refuse(refused, times=2)
    async with world.working():
        await world.serve_first_version()
        request = world.request(direct(monitor_interval=QUICK))
        await world.deploy(request)
        await tell(world)
        ending = await asyncio.wait_for(monitor_of(world).result(), 40)
        back = await the_rollback(world)
        assert (await until_over(world, back.deployment_id)).status is DeploymentStatus.COMPLETED
    assert back.deployment_id in ending
    assert len(await rollbacks(world)) == 1
    hold = await held(world)
    assert hold is not None
    assert hold.deployment_id == request.deployment_id
    assert await audited(world, request.deployment_id) == ["deployment.taken-back"]


async def test_nodes_that_could_not_be_told_of_the_windows_end_are_told_at_the_next_look(
    world: World, hooks: Hooks
) -> None:
    hooks.refuse("close_window")
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(rollback_window=2 * QUICK, monitor_interval=QUICK)))
        hooks.refuse("list_live_nodes")
        async with asyncio.timeout(30):
            while (await monitor_state(world)).window_open:
                await asyncio.sleep(0.05)
        assert (await monitor_of(world).describe()).status == WorkflowExecutionStatus.RUNNING
    assert (await world.route()).warm == ()
    assert all(node.loaded == {"2.0.0"} for node in world.nodes)


async def test_a_cancel_in_the_middle_of_a_look_ends_the_watch(world: World, hooks: Hooks) -> None:
    """Temporal cancels a run once: one that went on could only be terminated."""

    async def cancel() -> None:
        await monitor_of(world).cancel()
        await monitor_state(world)  # answered by a worker that has seen the cancel

    async with world.working():
        await world.serve_first_version()
        hooks.once("look_at_version", cancel)
        await world.deploy(world.request(direct(monitor_interval=QUICK)))
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(monitor_of(world).result(), 30)
        assert (await monitor_of(world).describe()).status == WorkflowExecutionStatus.CANCELED
