"""Routes of deployments: start, plan, read, watch, command. /api/v1/deployments."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Query, Response

from api.dependencies import ContainerDep, DeploymentId, IdempotencyKey, once
from api.errors import DOCUMENTED
from api.openapi import REASON_REQUIRED
from api.schemas.common import ApproveIn, CommandIn, ListOf
from api.schemas.deployments import DeploymentIn, DeploymentOut, DeploymentQuery, PlanOut, RolledBack
from api.security import bearer, require
from api.services.actor import Actor
from api.services.deployments import OPERATION
from api.services.event_stream import EventStreamResponse
from api.services.retries import RETRY
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from hotswap.domain.registry import Page
from hotswap.ports.records import DeploymentFilter
from workflows.messages import CommandResult, WorkflowNames

router = APIRouter(
    prefix="/api/v1/deployments",
    tags=["deployments"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]
Historian = Annotated[Actor, Depends(require(limit=10))]
Deployer = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER))]
Approver = Annotated[Actor, Depends(require(Role.ADMIN, Role.APPROVER))]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
Reason = Annotated[CommandIn | None, Body()]
Decision = Annotated[ApproveIn | None, Body()]
LastEventId = Annotated[
    int, Header(alias="Last-Event-ID", ge=0, le=2**31 - 1, description="go on behind this timeline event")
]

SOURCE = "X-HotSwap-Source"


@router.post("", status_code=202)
async def start_deployment(
    body: DeploymentIn, actor: Deployer, services: ContainerDep, response: Response, key: IdempotencyKey = None
) -> DeploymentOut:
    """Start a deployment (a Developer: in Development and QA). 409 names the deployment that holds the place.

    `onConflict: queue` waits behind it instead, `supersede` makes it give its traffic back first.
    """
    deployment = await services.deployments.start(body, actor, once(actor, OPERATION, key))
    response.headers["Location"] = deployment.links.self
    return deployment


@router.post("/plan")
async def plan_deployment(body: DeploymentIn, actor: Deployer, services: ContainerDep) -> PlanOut:
    """Exactly what POST /deployments would do. Starts nothing, stores nothing."""
    return await services.deployments.plan(body, actor)


@router.get("")
async def list_deployments(
    query: Annotated[DeploymentQuery, Query()], actor: Anyone, services: ContainerDep
) -> ListOf[DeploymentOut]:
    """Deployments, newest first."""
    where = DeploymentFilter(plugin=query.plugin_id, environment=query.environment, status=query.status)
    items, total = await services.deployments.list(where, query)
    return ListOf[DeploymentOut].of(items, total, query)


@router.get("/{deploymentId}")
async def get_deployment(
    deployment_id: DeploymentId, actor: Anyone, services: ContainerDep, response: Response
) -> DeploymentOut:
    """A deployment as it stands; X-HotSwap-Source says whether its workflow or the projection told it."""
    found = await services.deployments.get(deployment_id)
    response.headers[SOURCE] = found.source
    return found.deployment


@router.get(
    "/{deploymentId}/events",
    response_class=Response,
    responses={200: {"description": "server-sent events", "content": {"text/event-stream": {}}}},
)
async def watch_deployment(
    deployment_id: DeploymentId, actor: Anyone, services: ContainerDep, last_event_id: LastEventId = 0
) -> Response:
    """Server-sent events `timeline`, `status` and, at a terminal status, `end`."""
    await services.deployments.row(deployment_id)
    return EventStreamResponse(services.streams.watch(deployment_id, last_event_id))


@router.get("/{deploymentId}/rollback-history")
async def rollback_history(
    deployment_id: DeploymentId, query: Annotated[Page, Query()], actor: Historian, services: ContainerDep
) -> ListOf[RolledBack]:
    """Deployments of the same plugin and environment that were rolled back, newest first."""
    items, total = await services.deployments.rollback_history(deployment_id, query)
    return ListOf[RolledBack].of(items, total, query)


@router.post("/{deploymentId}/approve")
async def approve(
    deployment_id: DeploymentId,
    actor: Approver,
    services: ContainerDep,
    body: Decision = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Approve what is planned; never one's own deployment. `planHash` binds the approval to the plan that was read."""
    command = body or ApproveIn()
    keyed = once(actor, "deployments.command", key)
    return (await services.commands.send(deployment_id, WorkflowNames.APPROVE, command, actor, keyed)).result


@router.post("/{deploymentId}/reject", openapi_extra=REASON_REQUIRED)
async def reject(
    deployment_id: DeploymentId,
    actor: Approver,
    services: ContainerDep,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Refuse a deployment that awaits approval. A reason is required."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, WorkflowNames.REJECT, body or CommandIn(), actor, keyed)
    return sent.result


@router.post("/{deploymentId}/pause")
async def pause(
    deployment_id: DeploymentId,
    actor: Deployer,
    services: ContainerDep,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Hold a deployment where it is. Its guards stay on."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, WorkflowNames.PAUSE, body or CommandIn(), actor, keyed)
    return sent.result


@router.post("/{deploymentId}/resume")
async def resume(
    deployment_id: DeploymentId,
    actor: Deployer,
    services: ContainerDep,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Let a paused deployment go on."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, WorkflowNames.RESUME, body or CommandIn(), actor, keyed)
    return sent.result


@router.post("/{deploymentId}/promote")
async def promote(
    deployment_id: DeploymentId,
    actor: Deployer,
    services: ContainerDep,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """End the wait of the running step and go on to the next."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, WorkflowNames.PROMOTE, body or CommandIn(), actor, keyed)
    return sent.result


@router.post("/{deploymentId}/promote-full")
async def promote_full(
    deployment_id: DeploymentId,
    actor: Deployer,
    services: ContainerDep,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Skip every wait that is left. Each observation still takes one look, and a Fail still stops; approvals stay."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, WorkflowNames.PROMOTE_FULL, body or CommandIn(), actor, keyed)
    return sent.result


@router.post("/{deploymentId}/override-freeze", openapi_extra=REASON_REQUIRED)
async def override_freeze(
    deployment_id: DeploymentId,
    actor: Admin,
    services: ContainerDep,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Let this deployment through every freeze but the stop switch. A reason is required, and audited."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, WorkflowNames.OVERRIDE_FREEZE, body or CommandIn(), actor, keyed)
    return sent.result


@router.post("/{deploymentId}/abort", openapi_extra=REASON_REQUIRED)
async def abort(
    deployment_id: DeploymentId,
    actor: Deployer,
    services: ContainerDep,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Stop a deployment and undo it. A reason is required."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, WorkflowNames.ABORT, body or CommandIn(), actor, keyed)
    return sent.result


@router.post("/{deploymentId}/rollback", responses={202: {"model": CommandResult}}, openapi_extra=REASON_REQUIRED)
async def rollback(
    deployment_id: DeploymentId,
    actor: Deployer,
    services: ContainerDep,
    response: Response,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Go back to the version before. Of a completed deployment: starts a new Direct one and answers 202 with its id."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, WorkflowNames.ROLLBACK, body or CommandIn(), actor, keyed)
    if sent.started:
        response.status_code = 202
        response.headers["Location"] = f"/api/v1/deployments/{sent.result.deployment_id}"
    return sent.result


@router.post("/{deploymentId}/retry", status_code=202)
async def retry(
    deployment_id: DeploymentId,
    actor: Deployer,
    services: ContainerDep,
    response: Response,
    body: Reason = None,
    key: IdempotencyKey = None,
) -> CommandResult:
    """Start a deployment that was RolledBack, Aborted, Rejected or Failed anew: the same request and cohort, every gate."""
    keyed = once(actor, "deployments.command", key)
    sent = await services.commands.send(deployment_id, RETRY, body or CommandIn(), actor, keyed)
    response.headers["Location"] = f"/api/v1/deployments/{sent.result.deployment_id}"
    return sent.result
