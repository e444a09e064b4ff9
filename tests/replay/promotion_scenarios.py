"""Scenarios of freezes that hold and release, of every ending of a pipeline, and of a deployment that is a stage."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.worker import Worker

from activities.notify import NotifyActivities
from hotswap.domain.deployment import Role
from hotswap.domain.pipeline import Gate, PipelineStatus, StageConflict
from tests.workflow.freezes import lift, make_freeze
from tests.workflow.notices import ScriptedChannels, start_delivery
from tests.workflow.pipelines import DEV, QA, approve_stage, order, reached, stage, start
from tests.workflow.world import Arm, World, canary, direct, send, until
from workflows.catalog import WORKFLOW_RUNNER
from workflows.notify import NotificationDelivery

AnyHandle = WorkflowHandle[Any, Any]

LONG = timedelta(hours=1)
PERIOD = timedelta(milliseconds=300)


async def _held_and_released(world: World) -> AnyHandle:
    """Twice: before staging, and inside of the first observation."""
    freeze = await make_freeze(world)
    handle = await world.start(world.request(canary((50, 100), period=PERIOD)))
    await until(handle, lambda p: bool(p.held_by))
    await lift(world, freeze, handle)
    await until(handle, lambda p: p.set_weight_percent == 50)
    freeze = await make_freeze(world)
    await until(handle, lambda p: bool(p.held_by))
    await lift(world, freeze, handle)
    return handle


async def _held_and_judged(world: World) -> AnyHandle:
    handle = await world.start(world.request(canary((50, 100), period=PERIOD)))
    await until(handle, lambda p: p.set_weight_percent == 50)
    await make_freeze(world)
    await until(handle, lambda p: bool(p.held_by))
    world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
    return handle


async def _held_and_overridden(world: World) -> AnyHandle:
    await make_freeze(world)
    handle = await world.start(world.request(direct()))
    await until(handle, lambda p: bool(p.held_by))
    await send(handle, "override-freeze", by="root", roles=(Role.ADMIN,), reason="agreed")
    return handle


async def _held_and_aborted(world: World) -> AnyHandle:
    await make_freeze(world)
    handle = await world.start(world.request(direct()))
    await until(handle, lambda p: bool(p.held_by))
    await send(handle, "pause")
    await until(handle, lambda p: p.status == "Paused")
    await send(handle, "resume")
    await send(handle, "abort", reason="enough")
    return handle


async def _completed(world: World) -> AnyHandle:
    return await start(world, stage(DEV, soak=timedelta(milliseconds=300)))


async def _gate(world: World) -> AnyHandle:
    """Refused, tried again, approved; QA has no nodes, so its deployment is rolled back, and it is tried no more."""
    handle = await start(world, stage(DEV), stage(QA, gate=Gate()))
    await reached(handle, lambda p: p.status is PipelineStatus.AWAITING_APPROVAL)
    await order(handle, "reject", reason="not on a Friday")
    await order(handle, "retry", by="dana")
    await reached(handle, lambda p: p.status is PipelineStatus.AWAITING_APPROVAL)
    await order(handle, "approve")
    await approve_stage(world, QA)
    await reached(handle, lambda p: p.status is PipelineStatus.ROLLED_BACK)
    await handle.terminate("seen enough")
    return handle


async def _retried(world: World) -> AnyHandle:
    world.nodes[0].fail_to_load.add("2.0.0")
    handle = await start(world, stage(DEV))
    await reached(handle, lambda p: p.status is PipelineStatus.ROLLED_BACK)
    world.nodes[0].fail_to_load.clear()
    await order(handle, "retry", by="dana")
    return handle


async def _aborted_in_a_stage(world: World) -> AnyHandle:
    handle = await start(world, stage(DEV, config=canary((50, 100), period=LONG)))
    await until(_child(world), lambda p: p.set_weight_percent == 50)
    await order(handle, "pause")
    await until(_child(world), lambda p: p.status == "Paused")
    await order(handle, "resume")
    await order(handle, "abort", reason="wrong version")
    return handle


async def _cancelled(world: World) -> AnyHandle:
    handle = await start(world, stage(DEV, config=canary((50, 100), period=LONG)))
    await until(_child(world), lambda p: p.set_weight_percent == 50)
    await handle.cancel()
    return handle


async def _waited_for_its_place(world: World) -> AnyHandle:
    other = await world.start(world.request(canary((50, 100), period=LONG)))
    await until(other, lambda p: p.set_weight_percent == 50)
    handle = await start(world, stage(DEV))
    await reached(handle, lambda p: "to end" in p.waiting_for)
    await send(other, "abort", reason="make way")
    return handle


async def _place_taken(world: World) -> AnyHandle:
    other = await world.start(world.request(canary((50, 100), period=LONG)))
    await until(other, lambda p: p.set_weight_percent == 50)
    handle = await start(world, stage(DEV), on_conflict=StageConflict.FAIL)
    await reached(handle, lambda p: p.status is PipelineStatus.FAILED)
    await send(other, "abort", reason="make way")
    await handle.terminate("seen enough")
    return handle


async def _stage_of_a_pipeline(world: World) -> AnyHandle:
    """The deployment's side: what it tells its pipeline."""
    handle = await start(world, stage(DEV, config=canary((50, 100))))
    await asyncio.wait_for(handle.result(), 30)
    return _child(world)


def _child(world: World) -> AnyHandle:
    return world.client.get_workflow_handle(f"deployment/{DEV}/{world.name}")


async def _notified_after_a_fault(world: World) -> AnyHandle:
    """By a worker of its own: the rollouts' one knows no channels."""
    channels = ScriptedChannels(fails=1)
    notify = NotifyActivities(world.records.unit_of_work, channels)
    queue, world.queue = world.queue, f"{world.queue}-notify"
    async with Worker(
        world.client,
        task_queue=world.queue,
        workflows=[NotificationDelivery],
        activities=[notify.deliver, notify.give_up_delivery],
        workflow_runner=WORKFLOW_RUNNER,
    ):
        handle = await start_delivery(world)
        await handle.result()
    world.queue = queue
    return handle


PROMOTION_SCENARIOS: dict[str, Callable[[World], Awaitable[AnyHandle]]] = {
    "canary-frozen-released": _held_and_released,
    "canary-frozen-verdict-failed": _held_and_judged,
    "canary-stage-of-pipeline": _stage_of_a_pipeline,
    "direct-frozen-overridden": _held_and_overridden,
    "direct-frozen-aborted": _held_and_aborted,
    "pipeline-completed": _completed,
    "pipeline-gate": _gate,
    "pipeline-retried": _retried,
    "pipeline-aborted": _aborted_in_a_stage,
    "pipeline-cancelled": _cancelled,
    "pipeline-cancelled-as-an-abort": _cancelled,  # since a cancel is one; the other was recorded before
    "pipeline-waited": _waited_for_its_place,
    "pipeline-place-taken": _place_taken,
    "notification-delivered": _notified_after_a_fault,
}
