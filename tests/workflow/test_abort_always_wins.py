"""An abort (or a cancel through Temporal) that comes together with an activity's answer is obeyed like any other."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

from hotswap.domain.deployment import DeploymentProgress, Role
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import Page
from hotswap.domain.routes import RouteOrder
from hotswap.ports.node_runtime import NodeReport
from hotswap.ports.records import DeploymentFilter, DeploymentRow
from hotswap.ports.sandbox import TrialReport
from tests.workflow.hooks import Hooks
from tests.workflow.queue import enqueue
from tests.workflow.world import ScriptedTrial, World, canary, direct, send, until
from workflows import gates


class StoppedInTheMiddle(ScriptedTrial):
    """A trial during which somebody stops the rollout, and which ends well all the same: its cancel came too late."""

    def __init__(self) -> None:
        super().__init__()
        self.stop: Callable[[], Awaitable[Any]] | None = None

    async def run_trial(self, archive: Path, timeout: timedelta) -> TrialReport:
        if self.stop is not None:
            await self.stop()
        return await super().run_trial(archive, timeout)


async def stopped(world: World, stop: Callable[[WorkflowHandle[Any, Any]], Awaitable[Any]]) -> WorkflowHandle[Any, Any]:
    trial = world.trial = StoppedInTheMiddle()
    request = world.request(direct())
    handle = world.client.get_workflow_handle(f"deployment/{request.environment}/{request.plugin}")
    trial.stop = lambda: stop(handle)
    return await world.start(request)


async def test_an_abort_that_crosses_the_trials_end_is_obeyed(world: World) -> None:
    handle = await stopped(world, lambda handle: send(handle, "abort", reason="changed my mind"))
    async with world.working():
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ABORTED
    assert progress.outcome_reason == "aborted by ada: changed my mind"
    assert all(not node.orders for node in world.nodes)


async def test_a_cancel_that_crosses_the_trials_end_is_obeyed(world: World) -> None:
    async def cancel(handle: WorkflowHandle[Any, Any]) -> None:
        await handle.cancel()
        await handle.query("status")  # answered by a worker that has seen the cancel

    handle = await stopped(world, cancel)
    async with world.working():
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        progress = await handle.query("status")
    assert progress["status"] == "Aborted"
    assert all(not node.orders for node in world.nodes)


async def test_a_cancel_that_comes_while_it_is_undone_leaves_a_whole_record(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=timedelta(hours=1))))
        await until(handle, lambda p: p.set_weight_percent == 50)
        node, may_go_back = world.nodes[0], asyncio.Event()
        apply = node.apply

        async def slowly(order: RouteOrder) -> NodeReport:
            await may_go_back.wait()
            return await apply(order)

        node.apply = slowly  # type: ignore[method-assign]
        await send(handle, "abort", reason="no good")
        await until(handle, lambda p: p.status is DeploymentStatus.ROLLING_BACK)
        await handle.cancel()
        await handle.query("status")  # answered by a worker that has seen the cancel
        may_go_back.set()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    [*_, row] = await rows(world)
    assert (row.progress.status, row.progress.outcome_reason) == (DeploymentStatus.ABORTED, "aborted by ada: no good")
    assert row.progress.finished_at is not None
    assert (await world.route()).candidate is None


async def rows(world: World) -> list[DeploymentRow]:
    """Oldest first."""
    async with world.records.unit_of_work() as uow:
        found, _ = await uow.deployments.list(DeploymentFilter(plugin=world.name), Page(limit=100))
    return sorted(found, key=lambda row: row.progress.to_version)


async def test_a_cancel_while_it_continues_as_new_is_not_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the old run writes its last record."""
    hooks = Hooks()
    world.interceptors = [hooks]
    leaving = asyncio.Event()

    def full() -> bool:
        return leaving.is_set()

    async with world.working():
        await world.serve_first_version()
        request = world.request(canary((50, 100), period=timedelta(hours=1)))
        first = await world.start(request)
        await until(first, lambda p: p.set_weight_percent == 50)
        await send(first, "pause")
        await until(first, lambda p: p.status is DeploymentStatus.PAUSED)
        monkeypatch.setattr(gates, "_history_is_full", full)

        async def cancel_as_it_leaves() -> None:
            leaving.set()  # seen in the task that follows: it leaves while this record is being written
            await send(first, "resume")
            await first.cancel()
            await first.query("status")  # answered by a worker that has seen the cancel
            leaving.clear()

        hooks.once("record_progress", cancel_as_it_leaves)
        await send(first, "override-freeze", roles=(Role.ADMIN,), reason="one more record")
        latest = world.client.get_workflow_handle(first.id, result_type=DeploymentProgress)
        progress = await asyncio.wait_for(latest.result(), 30)
    old = world.client.get_workflow_handle(first.id, run_id=first.first_execution_run_id)
    assert (await old.describe()).status == WorkflowExecutionStatus.CONTINUED_AS_NEW
    assert progress.status is DeploymentStatus.ABORTED
    assert progress.outcome_reason == "aborted by Temporal: cancelled through Temporal"
    assert (await world.route()).candidate is None


@pytest.mark.parametrize("waits", [False, True])
async def test_a_cancel_before_the_first_task_ends_it_on_record(world: World, waits: bool) -> None:
    request = world.request(direct())
    handle = await (enqueue(world, request) if waits else world.start(request))
    await handle.cancel()
    async with world.working():
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 30)
    [row] = await rows(world)
    assert row.progress.status is DeploymentStatus.ABORTED
    assert all(not node.orders for node in world.nodes)
