"""Pipelines in a world: nodes in every environment, a request, commands as the facade sends them."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from hotswap.domain.deployment import Environment, Role
from hotswap.domain.pipeline import Gate, PipelineProgress, PipelineRequest, PipelineStage, pipeline_workflow_id
from tests.workflow.world import NOW, ScriptedNode, World, direct, send, until
from workflows.messages import Command
from workflows.pipeline_messages import PIPELINE_WORKFLOW, PipelineCommandResult

DEV, QA, STAGING = Environment.DEVELOPMENT, Environment.QA, Environment.STAGING

Handle = WorkflowHandle[Any, PipelineProgress]


async def populate(world: World, *environments: Environment) -> dict[Environment, ScriptedNode]:
    """One more node for each of these; call before `world.working`."""
    made = {environment: ScriptedNode(f"{world.name}-{environment}") for environment in environments}
    async with world.records.unit_of_work() as uow:
        for environment, node in made.items():
            world.nodes.append(node)
            await uow.nodes.register(world.node_record(node.node_id, environment))
        await uow.commit()
    return made


def stage(
    environment: Environment, soak: timedelta = timedelta(0), gate: Gate | None = None, config: Any = None
) -> PipelineStage:
    return PipelineStage(environment=environment, config=config or direct(), soak=soak, gate=gate)


def pipeline_request(world: World, *stages: PipelineStage, **more: Any) -> PipelineRequest:
    made = f"pip_{uuid.uuid4().hex}"
    given = {"pipeline_id": made, "version": "2.0.0", "initiated_by": "dana", "requested_at": NOW} | more
    return PipelineRequest(plugin=world.name, stages=stages, **given)


async def start(world: World, *stages: PipelineStage, **more: Any) -> Handle:
    request = pipeline_request(world, *stages, **more)
    return await world.client.start_workflow(
        PIPELINE_WORKFLOW,
        request,
        id=pipeline_workflow_id(world.name, request.pipeline_id),
        task_queue=world.queue,
        result_type=PipelineProgress,
    )


async def reached(handle: Handle, holds: Callable[[PipelineProgress], bool], within: float = 30) -> PipelineProgress:
    """Ask for the status until `holds`."""
    progress = None
    try:
        async with asyncio.timeout(within):
            while True:
                progress = await handle.query("status", result_type=PipelineProgress)
                if holds(progress):
                    return progress
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not reached: {progress}") from None


async def order(
    handle: Handle, name: str, by: str = "ada", roles: tuple[Role, ...] = (Role.APPROVER,), reason: str = ""
) -> PipelineCommandResult:
    command = Command(by=by, roles=roles, reason=reason)
    return await handle.execute_update(name, command, result_type=PipelineCommandResult)


async def approve_stage(world: World, environment: Environment, **more: Any) -> None:
    """What a person does for the stage's own deployment."""
    child = world.client.get_workflow_handle(f"deployment/{environment}/{world.name}")
    async with asyncio.timeout(30):
        while True:
            try:
                await until(child, lambda p: p.status == "AwaitingApproval", within=30)
                break
            except RPCError as fault:
                if fault.status != RPCStatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(0.02)  # it has not begun yet
    await send(child, "approve", **more)
