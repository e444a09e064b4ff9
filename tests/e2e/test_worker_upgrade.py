"""A new worker build with other workflow code in the middle of a rollout: with builds it never meets it, without it breaks."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowHandle

from hotswap.domain.analysis import InconclusivePolicy
from hotswap.domain.deployment import CanaryConfig, DeploymentProgress, Role
from tests.e2e.live import Live, eventually
from tests.e2e.worker_builds import SOURCES, Queue, changed_sources
from workflows.messages import Command

Handle = WorkflowHandle[object, DeploymentProgress]

WAITING = CanaryConfig(
    steps=(20, 100),
    evaluation_period=timedelta(hours=1),
    evaluation_interval=timedelta(milliseconds=500),
    on_inconclusive=InconclusivePolicy.CONTINUE,
    drain_grace=timedelta(seconds=1),
)
AT_ONCE = WAITING.model_copy(update={"evaluation_period": timedelta(seconds=1)})
PERSON = Command(by="admin", roles=(Role.ADMIN,), reason="the test goes on")


@pytest.mark.long
async def test_a_rollout_ends_on_the_build_it_began_on_and_the_next_runs_on_the_new_one(
    live: Live, tmp_path: Path
) -> None:
    queue = await Queue.open(live, tmp_path)
    running, fresh = await served(live), await served(live)
    new_sources = await asyncio.to_thread(changed_sources, tmp_path / "new")
    async with queue.worker(SOURCES, "auto") as old, queue.worker(new_sources, "auto") as new:
        await old.command("--set-current")
        handle = await at_first_step(queue, running)
        told = await new.command("--set-current")
        new_build, old_build = [line.split()[0] for line in told.splitlines()]
        assert new_build != old_build, told
        assert " draining" in told, told

        await old.kill()  # nothing of the run is left in memory: whoever takes it on must replay it
        await old.start()
        await promote_to_the_end(handle)
        assert (await handle.result()).status == "Completed"
        assert await builds_of(handle) == {old_build}
        assert not await failed_tasks(handle)

        following = await queue.start(fresh, "2.0.0", AT_ONCE)
        assert (await following.result()).status == "Completed"
        assert await builds_of(following) == {new_build}


@pytest.mark.long
async def test_without_builds_a_changed_worker_cannot_go_on_with_a_running_rollout(live: Live, tmp_path: Path) -> None:
    """The control: it proves that the change above would break a replay. The old code back, nothing is lost."""
    queue = await Queue.open(live, tmp_path)
    plugin = await served(live)
    new_sources = await asyncio.to_thread(changed_sources, tmp_path / "new")
    async with queue.worker(SOURCES) as old:
        handle = await at_first_step(queue, plugin)
        await old.kill()
        async with queue.worker(new_sources):

            async def broken() -> bool:
                return WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR in await failed_tasks(
                    handle
                )

            await eventually(broken, "the changed worker cannot replay the run")
        await old.start()
        await promote_to_the_end(handle)
        assert (await handle.result()).status == "Completed"


async def served(live: Live) -> str:
    """A plugin whose 1.0.0 serves; 2.0.0 waits."""
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    return plugin


async def at_first_step(queue: Queue, plugin: str) -> Handle:
    handle = await queue.start(plugin, "2.0.0", WAITING)
    await weight_reached(handle, 20)
    return handle


async def promote_to_the_end(handle: Handle) -> None:
    """End the wait of each of the two steps, as a person would."""
    await observing(handle)
    await handle.execute_update("promote", PERSON)
    await weight_reached(handle, 100)
    await observing(handle)
    await handle.execute_update("promote", PERSON)


async def weight_reached(handle: Handle, percent: int) -> None:
    async def reached() -> bool:
        return (await progress_of(handle)).set_weight_percent >= percent

    await eventually(reached, f"{percent} % of the tenants")


async def observing(handle: Handle) -> None:
    async def observes() -> bool:
        return (await progress_of(handle)).step_title.startswith("observe")

    await eventually(observes, "an observation")


async def progress_of(handle: Handle) -> DeploymentProgress:
    told: DeploymentProgress = await handle.query("status", result_type=DeploymentProgress)
    return told


async def builds_of(handle: Handle) -> set[str]:
    """The builds that completed the run's workflow tasks."""
    found = set()
    async for event in handle.fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            found.add(event.workflow_task_completed_event_attributes.deployment_version.build_id)
    return found


async def failed_tasks(handle: Handle) -> list[WorkflowTaskFailedCause.ValueType]:
    return [
        event.workflow_task_failed_event_attributes.cause
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]
