"""A pipeline that is stopped in the very instant in which a stage begins, or in which nobody listens for it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

from hotswap.domain.deployment import DeploymentProgress, Role
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.pipeline import (
    PipelineProgress,
    PipelineStage,
    PipelineStatus,
    StageConflict,
    StageState,
    pipeline_workflow_id,
)
from hotswap.domain.registry import Page
from hotswap.ports.records import DeploymentFilter
from tests.workflow.hooks import Hooks
from tests.workflow.pipelines import DEV, QA, Handle, order, populate, reached, stage, start
from tests.workflow.world import World, canary, direct, send
from workflows import pipeline_record
from workflows.messages import Command

THE_PIPELINE = f"pip_{'a' * 32}"
LONG = timedelta(hours=1)
BY_TEMPORAL = "aborted by Temporal: cancelled through Temporal"
STEPS = canary((50, 100), period=LONG)


@pytest.fixture
async def hooks(world: World) -> Hooks:
    made = Hooks()
    world.interceptors = [made]
    return made


def the_pipeline(world: World) -> Handle:
    return world.client.get_workflow_handle(pipeline_workflow_id(world.name, THE_PIPELINE))


async def start_the_pipeline(world: World, *stages: PipelineStage, **more: Any) -> Handle:
    """Under an id that is known before it starts."""
    return await start(world, *stages, pipeline_id=THE_PIPELINE, **more)


async def on_record(world: World) -> PipelineProgress:
    async with world.records.unit_of_work() as uow:
        return (await uow.pipelines.get(THE_PIPELINE)).progress


async def deployments(world: World) -> list[DeploymentProgress]:
    """Of 2.0.0, on record."""
    async with world.records.unit_of_work() as uow:
        rows, _ = await uow.deployments.list(DeploymentFilter(plugin=world.name), Page(limit=100))
    return [row.progress for row in rows if row.progress.to_version == "2.0.0"]


def child_of(world: World) -> WorkflowHandle[Any, DeploymentProgress]:
    return world.client.get_workflow_handle(f"deployment/{DEV}/{world.name}", result_type=DeploymentProgress)


async def tell(world: World, name: str, reason: str = "") -> None:
    """By signal: it is in the history when this returns, though the workflow has not seen it yet."""
    await the_pipeline(world).signal(name, Command(by="ada", roles=(Role.APPROVER,), reason=reason))


async def cancelled(handle: Handle) -> None:
    """Wait for the end, which is a cancelled one."""
    with pytest.raises(WorkflowFailureError):
        await asyncio.wait_for(handle.result(), 30)
    described = await handle.describe()
    assert described.status == WorkflowExecutionStatus.CANCELED


async def expect_undone(world: World) -> None:
    """The stage's deployment was undone before the pipeline ended, and both records say so."""
    ended = await on_record(world)
    [child] = await deployments(world)
    assert (ended.status, ended.stages[0].state) == (PipelineStatus.ABORTED, StageState.STOPPED)
    assert (child.status, child.finished_at is not None) == (DeploymentStatus.ABORTED, True)
    assert (await child_of(world).describe()).status != WorkflowExecutionStatus.RUNNING
    assert ended.stages[0].deployment_id == child.deployment_id
    assert ended.stages[0].deployment_status is DeploymentStatus.ABORTED
    assert ended.finished_at is not None
    assert child.finished_at is not None
    assert child.finished_at <= ended.finished_at
    assert (await world.route()).candidate is None


async def test_a_cancel_before_its_first_task_ends_it_on_record(world: World) -> None:
    handle = await start_the_pipeline(world, stage(DEV))
    await handle.cancel()
    async with world.working():
        await cancelled(handle)
    ended = await on_record(world)
    assert (ended.status, ended.outcome_reason) == (PipelineStatus.ABORTED, BY_TEMPORAL)
    assert not await deployments(world)


# --- while it asks what the environment serves -----------------------------------------------------------------------


async def test_a_cancel_while_it_asks_what_is_served_ends_it_aborted(world: World, hooks: Hooks) -> None:
    async def cancel() -> None:
        await the_pipeline(world).cancel()
        await the_pipeline(world).query("status")  # answered by a worker that has seen the cancel

    async with world.working():
        await world.serve_first_version()
        hooks.once("served_version", cancel)
        handle = await start_the_pipeline(world, stage(DEV, config=STEPS))
        await cancelled(handle)
    ended = await on_record(world)
    assert (ended.status, ended.outcome_reason) == (PipelineStatus.ABORTED, BY_TEMPORAL)
    assert ended.finished_at is not None
    assert not await deployments(world)


async def test_an_abort_while_it_asks_what_is_served_starts_nothing(world: World, hooks: Hooks) -> None:
    async with world.working():
        await world.serve_first_version()
        hooks.once("served_version", lambda: order(the_pipeline(world), "abort", reason="wrong version"))
        handle = await start_the_pipeline(world, stage(DEV))
        progress = await asyncio.wait_for(handle.result(), 30)
    assert progress.status is PipelineStatus.ABORTED
    assert not await deployments(world)
    assert await on_record(world) == progress


async def test_a_pause_while_it_asks_what_is_served_starts_nothing_until_resumed(world: World, hooks: Hooks) -> None:
    async with world.working():
        await world.serve_first_version()
        hooks.once("served_version", lambda: order(the_pipeline(world), "pause"))
        handle = await start_the_pipeline(world, stage(DEV))
        await reached(handle, lambda p: p.waiting_for == "resume or abort")
        assert not await deployments(world)
        await order(handle, "resume")
        assert (await asyncio.wait_for(handle.result(), 30)).status is PipelineStatus.COMPLETED


async def test_an_abort_that_crosses_a_look_at_the_soak_is_no_rollback(world: World, hooks: Hooks) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await start_the_pipeline(world, stage(DEV, soak=timedelta(seconds=10)))
        await reached(handle, lambda p: p.stages[0].state is StageState.SOAKING)

        async def taken_back_and_aborted() -> None:
            await world.deploy(world.request(direct(), version="1.0.0"))
            await order(handle, "abort", reason="enough")

        hooks.once("served_version", taken_back_and_aborted)
        progress = await asyncio.wait_for(handle.result(), 30)
    assert (progress.status, progress.outcome_reason) == (PipelineStatus.ABORTED, "aborted by ada: enough")


# --- while the child starts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "abort"])
async def test_a_stop_in_the_task_that_starts_the_child_takes_it_along(world: World, hooks: Hooks, how: str) -> None:
    async def stop() -> None:
        if how == "cancel":
            await the_pipeline(world).cancel()
        else:
            await tell(world, "abort", reason="wrong version")

    async with world.working():
        await world.serve_first_version()
        hooks.at_child_start = stop
        handle = await start_the_pipeline(world, stage(DEV, config=STEPS))
        if how == "cancel":
            await cancelled(handle)
        else:
            assert (await asyncio.wait_for(handle.result(), 30)).status is PipelineStatus.ABORTED
    await expect_undone(world)


async def test_a_cancel_that_comes_with_the_news_of_the_start_takes_the_child_along(world: World, hooks: Hooks) -> None:
    """The worker stops in between, so that the next one hears of both at once."""
    starting, stopping = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        starting.set()
        await stopping.wait()
        await asyncio.sleep(0.2)  # it has stopped asking for tasks by then; were it not, this would be the test above

    async with world.node_worker(world.nodes[0]), world.node_worker(world.nodes[1]):
        worker = world.control_worker()
        async with worker:
            await world.serve_first_version()
            hooks.at_child_start = wait
            handle = await start_the_pipeline(world, stage(DEV, config=STEPS))
            await starting.wait()
            shutdown = asyncio.create_task(worker.shutdown())
            stopping.set()
            await shutdown
        async with asyncio.timeout(20):
            while not any(
                event.HasField("child_workflow_execution_started_event_attributes")
                for event in (await handle.fetch_history()).events
            ):
                await asyncio.sleep(0.05)
        await handle.cancel()
        async with world.control_worker():
            await cancelled(handle)
    await expect_undone(world)


async def place_taken_in_between(world: World, hooks: Hooks) -> list[WorkflowHandle[Any, DeploymentProgress]]:
    """Another deployment gets the place after the pipeline has asked, before it starts."""
    taken: list[WorkflowHandle[Any, DeploymentProgress]] = []

    async def take() -> None:
        taken.append(await world.start(world.request(direct(bake_period=LONG), version="1.0.0")))

    hooks.once("served_version", take)
    return taken


async def test_an_abort_while_another_takes_the_place_is_no_failure(world: World, hooks: Hooks) -> None:
    async with world.working():
        await place_taken_in_between(world, hooks)
        hooks.at_child_start = lambda: tell(world, "abort", reason="wrong version")
        handle = await start_the_pipeline(world, stage(DEV), on_conflict=StageConflict.FAIL)
        progress = await asyncio.wait_for(handle.result(), 30)
        await send(child_of(world), "abort", reason="over")
    assert (progress.status, progress.outcome_reason) == (PipelineStatus.ABORTED, "aborted by ada: wrong version")


async def test_a_pause_for_a_child_that_never_started_holds_no_later_one(world: World, hooks: Hooks) -> None:
    async with world.working():
        taken = await place_taken_in_between(world, hooks)
        hooks.at_child_start = lambda: tell(world, "pause")
        handle = await start_the_pipeline(world, stage(DEV))
        await reached(handle, lambda p: "to end" in p.waiting_for and p.status is PipelineStatus.PAUSED)
        await order(handle, "resume")
        await send(taken[0], "abort", reason="make way")
        assert (await asyncio.wait_for(handle.result(), 30)).status is PipelineStatus.COMPLETED
    assert not any("paused" in event for event in await messages(world))


async def messages(world: World) -> list[str]:
    """Of the stage's deployment."""
    ended = await on_record(world)
    async with world.records.unit_of_work() as uow:
        events = await uow.deployments.events(ended.stages[0].deployment_id)
    return [event.message for event in events]


# --- when nobody listens ---------------------------------------------------------------------------------------------


async def test_a_cancel_while_it_waits_for_retry_closes_it_and_the_record_offers_none(world: World) -> None:
    world.nodes[0].fail_to_load.add("2.0.0")
    async with world.working():
        handle = await start_the_pipeline(world, stage(DEV))
        await reached(handle, lambda p: p.status is PipelineStatus.ROLLED_BACK and p.retry_until is not None)
        await handle.cancel()
        await cancelled(handle)
    ended = await on_record(world)
    assert (ended.status, ended.retry_until) == (PipelineStatus.ROLLED_BACK, None)


async def test_a_cancel_while_it_continues_as_new_is_not_lost(
    world: World, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the old run writes its last record, between two stages."""
    monkeypatch.setattr(pipeline_record, "HISTORY_LIMIT", 20)
    nodes = await populate(world, QA)
    sent: list[str] = []

    async def cancel_in_the_last_record() -> None:
        handle = the_pipeline(world)
        now = await handle.query("status", result_type=PipelineProgress)
        if now.stages[0].state is StageState.DONE and not sent:
            sent.append("cancel")
            await handle.cancel()
            await handle.query("status")  # answered by a worker that has seen the cancel

    async with world.working():
        for _ in range(100):
            hooks.once("record_pipeline", cancel_in_the_last_record)
        first = await start_the_pipeline(world, stage(DEV), stage(QA))
        progress = await asyncio.wait_for(first.result(), 30)
    assert (progress.status, progress.outcome_reason) == (PipelineStatus.ABORTED, BY_TEMPORAL)
    assert await on_record(world) == progress
    assert not nodes[QA].orders
