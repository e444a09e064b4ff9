"""Routes of pipelines: one version through environments. /api/v1/pipelines."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from api.dependencies import ContainerDep, IdempotencyKey, once
from api.errors import DOCUMENTED
from api.openapi import REASON_REQUIRED
from api.schemas.common import CommandIn, ListOf
from api.schemas.pipelines import PipelineIn, PipelineOut, PipelineQuery
from api.security import bearer, require
from api.services.actor import Actor
from api.services.pipelines import OPERATION
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from workflows.messages import WorkflowNames
from workflows.pipeline_commands import RETRY
from workflows.pipeline_messages import PipelineCommandResult

router = APIRouter(
    prefix="/api/v1/pipelines",
    tags=["pipelines"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]
Deployer = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER))]
# A gate may ask for any of these; which one, its workflow knows.
GateKeeper = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER, Role.TENANT_OWNER, Role.APPROVER))]
PipelineId = Annotated[str, Path(alias="pipelineId", pattern=r"^pip_[0-9a-f]{32}$")]
Reason = Annotated[CommandIn | None, Body()]

_COMMAND = "pipelines.command"


@router.post("", status_code=202)
async def start_pipeline(
    body: PipelineIn, actor: Deployer, services: ContainerDep, response: Response, key: IdempotencyKey = None
) -> PipelineOut:
    """Promote a version through environments in their order (a Developer: Development and QA)."""
    pipeline = await services.pipelines.start(body, actor, once(actor, OPERATION, key))
    response.headers["Location"] = pipeline.links.self
    return pipeline


@router.get("")
async def list_pipelines(
    query: Annotated[PipelineQuery, Query()], actor: Anyone, services: ContainerDep
) -> ListOf[PipelineOut]:
    """Pipelines, newest first."""
    items, total = await services.pipelines.list(query)
    return ListOf[PipelineOut].of(items, total, query)


@router.get("/{pipelineId}")
async def get_pipeline(pipeline_id: PipelineId, actor: Anyone, services: ContainerDep) -> PipelineOut:
    """A pipeline as it stands: its stages, their deployments, and what it waits for."""
    return await services.pipelines.get(pipeline_id)


@router.post("/{pipelineId}/approve")
async def approve(
    pipeline_id: PipelineId, actor: GateKeeper, services: ContainerDep, body: Reason = None, key: IdempotencyKey = None
) -> PipelineCommandResult:
    """Agree at the gate it waits at; never one's own pipeline. Approvals of a stage are given to its deployment."""
    keyed = once(actor, _COMMAND, key)
    return await services.pipelines.send(pipeline_id, WorkflowNames.APPROVE, body or CommandIn(), actor, keyed)


@router.post("/{pipelineId}/reject", openapi_extra=REASON_REQUIRED)
async def reject(
    pipeline_id: PipelineId, actor: GateKeeper, services: ContainerDep, body: Reason = None, key: IdempotencyKey = None
) -> PipelineCommandResult:
    """Refuse at the gate it waits at. A reason is required."""
    keyed = once(actor, _COMMAND, key)
    return await services.pipelines.send(pipeline_id, WorkflowNames.REJECT, body or CommandIn(), actor, keyed)


@router.post("/{pipelineId}/pause")
async def pause(
    pipeline_id: PipelineId, actor: Deployer, services: ContainerDep, body: Reason = None, key: IdempotencyKey = None
) -> PipelineCommandResult:
    """Hold it before its next stage, and pause the deployment that runs. Guards stay on."""
    keyed = once(actor, _COMMAND, key)
    return await services.pipelines.send(pipeline_id, WorkflowNames.PAUSE, body or CommandIn(), actor, keyed)


@router.post("/{pipelineId}/resume")
async def resume(
    pipeline_id: PipelineId, actor: Deployer, services: ContainerDep, body: Reason = None, key: IdempotencyKey = None
) -> PipelineCommandResult:
    """Let it go on."""
    keyed = once(actor, _COMMAND, key)
    return await services.pipelines.send(pipeline_id, WorkflowNames.RESUME, body or CommandIn(), actor, keyed)


@router.post("/{pipelineId}/abort", openapi_extra=REASON_REQUIRED)
async def abort(
    pipeline_id: PipelineId, actor: Deployer, services: ContainerDep, body: Reason = None, key: IdempotencyKey = None
) -> PipelineCommandResult:
    """End it: the running deployment is undone, earlier environments keep the version. A reason is required."""
    keyed = once(actor, _COMMAND, key)
    return await services.pipelines.send(pipeline_id, WorkflowNames.ABORT, body or CommandIn(), actor, keyed)


@router.post("/{pipelineId}/retry")
async def retry(
    pipeline_id: PipelineId, actor: Deployer, services: ContainerDep, body: Reason = None, key: IdempotencyKey = None
) -> PipelineCommandResult:
    """Begin the stage again that ended it, within 48 hours."""
    keyed = once(actor, _COMMAND, key)
    return await services.pipelines.send(pipeline_id, RETRY, body or CommandIn(), actor, keyed)
