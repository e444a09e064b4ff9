"""Starting deployments through the line, as the facade does for `onConflict` queue and supersede."""

from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle

from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest, OnConflict, StrategyConfig
from hotswap.domain.ids import is_queued, queued_workflow_id
from tests.workflow.world import NOW, World
from workflows import launch
from workflows.messages import QUEUED_WORKFLOW

Handle = WorkflowHandle[Any, DeploymentProgress]


def asked(
    world: World, config: StrategyConfig, second: int, on_conflict: OnConflict = OnConflict.QUEUE, **more: Any
) -> DeploymentRequest:
    """A request of this second after the beginning: the line goes by the time of the request."""
    request = world.request(config, on_conflict=on_conflict, **more)
    return request.model_copy(update={"requested_at": NOW + timedelta(seconds=second)})


async def enqueue(world: World, request: DeploymentRequest) -> Handle:
    return await world.client.start_workflow(
        QUEUED_WORKFLOW,
        request,
        id=queued_workflow_id(request.environment, request.plugin, request.deployment_id),
        task_queue=world.queue,
        result_type=DeploymentProgress,
        memo={launch.MEMO_DEPLOYMENT: request.deployment_id},
        search_attributes=launch.search_attributes(request),
    )


async def current(world: World, deployment_id: str) -> Handle:
    """Where the record says that the deployment is carried out now."""
    async with world.records.unit_of_work() as uow:
        row = await uow.deployments.get(deployment_id)
    return world.client.get_workflow_handle(
        row.workflow_id, first_execution_run_id=row.run_id, result_type=DeploymentProgress
    )


async def ended(world: World, waiter: Handle, deployment_id: str) -> DeploymentProgress:
    """How a queued deployment ended, wherever it did."""
    waited = await waiter.result()
    handle = await current(world, deployment_id)
    return waited if is_queued(handle.id) else await _result_of(world, handle)


async def _result_of(world: World, handle: Handle) -> DeploymentProgress:
    run = world.client.get_workflow_handle(
        handle.id, run_id=handle.first_execution_run_id, result_type=DeploymentProgress
    )
    return await run.result()
