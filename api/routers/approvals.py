"""Routes of approvals: what waits for people, and their decisions. /api/v1/approvals."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query

from api.dependencies import ContainerDep, IdempotencyKey, once
from api.errors import DOCUMENTED
from api.openapi import REASON_REQUIRED
from api.schemas.approvals import APPROVAL_ID, ApprovalOut, ApprovalQuery, DecisionOut
from api.schemas.common import ApproveIn, CommandIn, ListOf
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from workflows.messages import WorkflowNames

router = APIRouter(
    prefix="/api/v1/approvals",
    tags=["approvals"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Approver = Annotated[Actor, Depends(require(Role.ADMIN, Role.APPROVER))]
ApprovalId = Annotated[str, Path(alias="approvalId", pattern=APPROVAL_ID)]


@router.get("")
async def list_approvals(
    query: Annotated[ApprovalQuery, Query()], actor: Approver, services: ContainerDep
) -> ListOf[ApprovalOut]:
    """What waits for approval: first what the caller may approve, of that first what expires first."""
    items, total = await services.approvals.list(query, actor)
    return ListOf[ApprovalOut].of(items, total, query)


@router.get("/{approvalId}")
async def get_approval(approval_id: ApprovalId, actor: Approver, services: ContainerDep) -> ApprovalOut:
    """One that waits. 404 when it was decided, or has expired."""
    return await services.approvals.get(approval_id, actor)


@router.post("/{approvalId}/approve")
async def approve(
    approval_id: ApprovalId,
    actor: Approver,
    services: ContainerDep,
    body: Annotated[ApproveIn | None, Body()] = None,
    key: IdempotencyKey = None,
) -> DecisionOut:
    """Approve; never one's own. `planHash` binds the approval to the plan that was read."""
    keyed = once(actor, "approvals.decide", key)
    return await services.approvals.decide(approval_id, WorkflowNames.APPROVE, body or ApproveIn(), actor, keyed)


@router.post("/{approvalId}/reject", openapi_extra=REASON_REQUIRED)
async def reject(
    approval_id: ApprovalId,
    actor: Approver,
    services: ContainerDep,
    body: Annotated[CommandIn | None, Body()] = None,
    key: IdempotencyKey = None,
) -> DecisionOut:
    """Refuse it, which ends it. A reason is required."""
    keyed = once(actor, "approvals.decide", key)
    return await services.approvals.decide(approval_id, WorkflowNames.REJECT, body or CommandIn(), actor, keyed)
