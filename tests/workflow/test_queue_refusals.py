"""A waiter whose questions or whose hand-over PostgreSQL refuses for good (a bug) stays in line, and neither it nor a command is lost."""

import asyncio
from datetime import timedelta

import pytest

from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.hooks import Hooks
from tests.workflow.queue import asked, current, ended, enqueue
from tests.workflow.world import World, canary, direct, send, until
from workflows import queued

SOON = timedelta(milliseconds=200)
LONG = timedelta(hours=1)


@pytest.fixture
async def hooks(world: World, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    monkeypatch.setattr(queued, "LOOK_AGAIN", SOON)
    monkeypatch.setattr(queued, "RECORD_AGAIN", SOON)
    made = Hooks()
    world.interceptors = [made]
    return made


async def test_a_line_that_cannot_be_read_is_read_again(world: World, hooks: Hooks) -> None:
    hooks.refuse("look_at_line", times=2)
    async with world.working():
        await world.serve_first_version()
        waiter = await enqueue(world, request := asked(world, direct(), 0))
        async with asyncio.timeout(30):
            progress = await ended(world, waiter, request.deployment_id)
    assert progress.status is DeploymentStatus.COMPLETED


async def test_an_abort_while_the_line_cannot_be_read_is_obeyed(world: World, hooks: Hooks) -> None:
    hooks.refuse("look_at_line", times=1000)
    async with world.working():
        waiter = await enqueue(world, request := asked(world, direct(), 0))
        await until(waiter, lambda p: p.waiting_for == "its turn")
        await send(waiter, "abort", reason="enough")
        progress = await asyncio.wait_for(waiter.result(), 30)
    assert progress.status is DeploymentStatus.ABORTED
    async with world.records.unit_of_work() as uow:
        assert (await uow.deployments.get(request.deployment_id)).progress == progress


async def test_a_refused_hand_over_is_tried_again_and_commands_are_passed_on_meanwhile(
    world: World, hooks: Hooks
) -> None:
    hooks.refuse("hand_over", times=1000)
    async with world.working():
        await world.serve_first_version()
        waiter = await enqueue(world, request := asked(world, canary((50, 100), period=LONG), 0))
        started = world.client.get_workflow_handle(f"deployment/{request.environment}/{request.plugin}")
        await until(started, lambda p: p.set_weight_percent == 50)
        await send(waiter, "abort", reason="wrong version")
        await until(started, lambda p: p.status is DeploymentStatus.ABORTED)
        hooks.before["hand_over"].clear()
        await asyncio.wait_for(waiter.result(), 30)
        assert (await current(world, request.deployment_id)).id == started.id
