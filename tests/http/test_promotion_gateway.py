"""Freezes and pipelines through a real Temporal server, as the facade reaches them: starts, commands, wake-ups, silence."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from temporalio.client import Client

from api.services.promotion_gateway import TemporalPromotions
from api.services.rollout_gateway import RolloutGateway
from api.services.rollouts import RolloutOver
from hotswap import temporal
from hotswap.config import Settings
from hotswap.domain.deployment import Role
from hotswap.domain.errors import Conflict, InvalidInput, Unavailable
from hotswap.domain.pipeline import PipelineStatus
from tests.workflow.freezes import lift, make_freeze
from tests.workflow.pipelines import DEV, pipeline_request, reached, stage
from tests.workflow.world import World, direct, until
from workflows.messages import Command

ORDER = Command(by="somebody", roles=(Role.ADMIN,), reason="because")


@pytest.fixture
async def world(temporal_client: Client, tmp_path: Path) -> AsyncIterator[World]:
    made = World(temporal_client, tmp_path)
    await made.fill()
    async with made.working():
        yield made


@pytest.fixture
def promotions(settings: Settings, world: World) -> TemporalPromotions:
    chosen = settings.temporal.model_copy(update={"task_queue": world.queue})
    return TemporalPromotions(RolloutGateway(chosen, command_timeout=timedelta(seconds=5)), chosen)


async def test_a_pipeline_is_started_once_and_readable_in_the_web_ui(
    promotions: TemporalPromotions, world: World
) -> None:
    request = pipeline_request(world, stage(DEV, soak=timedelta(hours=1)), reason="release 12")
    handle = await promotions.start(request)
    assert await promotions.start(request) == handle
    told = await world.client.get_workflow_handle(handle.workflow_id).describe()
    assert (handle.workflow_id, told.run_id) == (f"pipeline/{world.name}/{request.pipeline_id}", handle.run_id)
    assert told.workflow_type == "PipelineWorkflow"
    attributes = told.typed_search_attributes
    found = [attributes.get(key) for key in (temporal.PLUGIN, temporal.VERSION, temporal.PIPELINE)]
    assert found == [world.name, "2.0.0", request.pipeline_id]
    assert await told.static_summary() == f"{world.name} 2.0.0: Development"
    assert "release 12" in str(await told.static_details())
    await reached(world.client.get_workflow_handle(handle.workflow_id), lambda p: p.stages[0].state == "Soaking")
    child = await world.client.get_workflow_handle(f"deployment/{DEV}/{world.name}").describe()
    assert child.typed_search_attributes.get(temporal.PIPELINE) == request.pipeline_id
    await promotions.command(handle, "abort", ORDER, None)


async def test_commands_are_obeyed_refused_or_told_that_it_is_over(
    promotions: TemporalPromotions, world: World
) -> None:
    handle = await promotions.start(pipeline_request(world, stage(DEV, soak=timedelta(hours=1))))
    await reached(world.client.get_workflow_handle(handle.workflow_id), lambda p: p.stages[0].state == "Soaking")
    with pytest.raises(Conflict, match="only a pipeline that waits at a gate"):
        await promotions.command(handle, "approve", ORDER, None)
    with pytest.raises(InvalidInput):
        await promotions.command(handle, "abort", ORDER.model_copy(update={"reason": ""}), None)
    paused = await promotions.command(handle, "pause", ORDER, "k")
    assert await promotions.command(handle, "pause", ORDER, "k") == paused
    told = await promotions.status(handle)
    assert told is not None
    assert told.status is PipelineStatus.PAUSED
    await promotions.command(handle, "abort", ORDER, None)
    await world.client.get_workflow_handle(handle.workflow_id).result()
    with pytest.raises(RolloutOver):
        await promotions.command(handle, "pause", ORDER, None)


async def test_what_is_held_is_woken_and_what_is_gone_does_no_harm(
    promotions: TemporalPromotions, world: World
) -> None:
    freeze = await make_freeze(world)
    handle = await world.start(world.request(direct(), version="1.0.0"))
    await until(handle, lambda p: bool(p.held_by))
    await lift(world, freeze)
    await promotions.wake(["deployment/Nowhere/nothing", handle.id])
    assert (await asyncio.wait_for(handle.result(), 10)).status == "Completed"


async def test_temporal_away_loses_a_wake_up_and_refuses_a_start(settings: Settings, world: World) -> None:
    gone = settings.temporal.model_copy(update={"address": "127.0.0.1:1", "api_key": SecretStr("x")})
    promotions = TemporalPromotions(RolloutGateway(gone), gone)
    await promotions.wake(["deployment/QA/p"])
    await promotions.wake([])
    with pytest.raises(Unavailable):
        await promotions.start(pipeline_request(world, stage(DEV)))
