"""Histories of hurried, superseded and queued deployments, for tests.replay.scenarios."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle

from hotswap.domain.deployment import DeploymentProgress, OnConflict
from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.queue import asked, current, ended, enqueue
from tests.workflow.world import Arm, World, canary, direct, send, until

Handle = WorkflowHandle[Any, DeploymentProgress]

LONG = timedelta(hours=1)


async def _running(world: World) -> Handle:
    handle = await world.start(asked(world, canary((50, 100), period=LONG), 0))
    await until(handle, lambda p: p.step_title == "observe at 50 %")
    return handle


async def _paused_before_traffic(world: World) -> Handle:
    staging = world.nodes[0].hold_stage = asyncio.Event()
    handle = await world.start(world.request(canary((50, 100))))
    await until(handle, lambda p: p.step_title.startswith("load"))
    await send(handle, "pause", reason="lunch")
    staging.set()
    await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
    await send(handle, "resume")
    return handle


async def _promoted_full(world: World) -> Handle:
    handle = await _running(world)
    await send(handle, "promote-full", reason="seen in QA")
    return handle


async def _held_fail_voids_promote(world: World) -> Handle:
    handle = await world.start(world.request(canary((50, 100), period=LONG, auto_rollback=False)))
    await until(handle, lambda p: p.step_title == "observe at 50 %")
    world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
    await send(handle, "promote")
    await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
    world.figures.arms.clear()
    await send(handle, "promote-full")
    return handle


async def _hotfix(world: World) -> Handle:
    return await world.start(world.request(canary((50, 100)), hotfix=True))


async def _aborted_in_the_trial(world: World) -> Handle:
    handle = await world.start(world.request(canary((50, 100), period=LONG)))
    await until(handle, lambda p: p.step_number >= 2)
    await send(handle, "abort", reason="changed my mind")
    return handle


async def _superseded(world: World) -> Handle:
    running = await _running(world)
    waiter = await enqueue(world, request := asked(world, direct(), 1, OnConflict.SUPERSEDE))
    await ended(world, waiter, request.deployment_id)
    return running


async def _queued_then_started(world: World) -> Handle:
    running = await _running(world)
    waiter = await enqueue(world, request := asked(world, direct(), 1))
    await until(waiter, lambda p: "behind" in p.waiting_for)
    await send(running, "abort", reason="make way")
    await ended(world, waiter, request.deployment_id)
    return waiter


async def _queued_as_it_ran(world: World) -> Handle:
    """The deployment itself, with the state that its waiter handed over."""
    running = await _running(world)
    waiter = await enqueue(world, request := asked(world, canary((50, 100), period=LONG), 1))
    await until(waiter, lambda p: "behind" in p.waiting_for)
    await send(waiter, "promote-full", reason="seen in QA")
    await send(running, "abort", reason="make way")
    await ended(world, waiter, request.deployment_id)
    return await current(world, request.deployment_id)


async def _queued_then_aborted(world: World) -> Handle:
    running = await _running(world)
    waiter = await enqueue(world, asked(world, direct(), 1))
    await until(waiter, lambda p: "behind" in p.waiting_for)
    await send(waiter, "abort", reason="not needed")
    await waiter.result()
    await send(running, "abort", reason="over")
    await running.result()
    return waiter


async def _superseding(world: World) -> Handle:
    await _running(world)
    waiter = await enqueue(world, request := asked(world, direct(), 1, OnConflict.SUPERSEDE))
    await ended(world, waiter, request.deployment_id)
    return waiter


COMMAND_SCENARIOS: dict[str, Callable[[World], Awaitable[Handle]]] = {
    "canary-promoted-full": _promoted_full,
    "canary-paused-before-traffic": _paused_before_traffic,
    "canary-held-fail-voids-promote": _held_fail_voids_promote,
    "canary-hotfix": _hotfix,
    "canary-aborted-in-the-trial": _aborted_in_the_trial,
    "canary-superseded": _superseded,
    "queued-then-started": _queued_then_started,
    "queued-as-it-ran": _queued_as_it_ran,
    "queued-then-aborted": _queued_then_aborted,
    "queued-superseding": _superseding,
}
