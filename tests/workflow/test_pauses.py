"""What a paused deployment costs: nothing before its first tenant, its guards' looks afterwards."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.world import World, canary, send, until


@pytest.mark.parametrize("in_traffic", [False, True], ids=["before-traffic", "in-traffic"])
async def test_a_paused_rollout_sets_a_timer_only_while_it_serves_somebody(world: World, in_traffic: bool) -> None:
    """Thousands may stand before their first tenant (benchmarks.scale); in traffic guards never sleep."""
    staging = world.nodes[0].hold_stage = asyncio.Event()
    async with world.working():
        handle = await world.start(world.request(canary((50, 100), period=timedelta(hours=1)), version="1.0.0"))
        if in_traffic:
            staging.set()
            await until(handle, lambda p: p.step_title == "observe at 50 %")
        else:
            await until(handle, lambda p: p.step_title.startswith("load"))
        before = await timers(handle)
        await send(handle, "pause", reason="lunch")
        staging.set()
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert (await timers(handle) > before) is in_traffic
        await send(handle, "resume")
        await until(handle, lambda p: p.step_title == "observe at 50 %" and p.status is DeploymentStatus.IN_PROGRESS)
        await send(handle, "promote-full")
        assert (await handle.result()).status is DeploymentStatus.COMPLETED


async def timers(handle: WorkflowHandle[Any, Any]) -> int:
    events = (await handle.fetch_history()).events
    return sum(event.event_type == EventType.EVENT_TYPE_TIMER_STARTED for event in events)
