"""Routes of the audit: look through, export, verify its chain, checkpoints. /api/v1/audit-logs, Admins only."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from api.dependencies import ContainerDep
from api.errors import DOCUMENTED
from api.schemas.audit import AuditQuery, AuditWhere, CheckpointIn, CheckpointOut, VerifyQuery
from api.schemas.common import ListOf
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.audit import ChainReport, Checkpoint
from hotswap.domain.deployment import Role
from hotswap.domain.registry import AuditEntry, Page

router = APIRouter(
    prefix="/api/v1/audit-logs",
    tags=["audit"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
# A truncation goes by parts of 20,000 entries, a second or two each.
Keeper = Annotated[Actor, Depends(require(Role.ADMIN, limit=60))]

NDJSON = "application/x-ndjson"


@router.get("")
async def list_audit_entries(
    query: Annotated[AuditQuery, Query()], actor: Admin, services: ContainerDep
) -> ListOf[AuditEntry]:
    """Who did what to what, why, and from where; newest first."""
    found, total = await services.audit.list(query, query)
    return ListOf[AuditEntry].of(found, total, query)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"description": "one JSON object a line", "content": {NDJSON: {}}}},
)
async def export_audit(
    query: Annotated[AuditWhere, Query()], actor: Admin, services: ContainerDep
) -> StreamingResponse:
    """Every entry with its seal, oldest first. The last line is `{"trailer": ...}`; without it the export is cut off."""
    lines = await services.audit.export(query, actor)
    headers = {"Content-Disposition": 'attachment; filename="audit.ndjson"'}
    return StreamingResponse(lines, media_type=NDJSON, headers=headers)


@router.get("/verify")
async def verify_audit(query: Annotated[VerifyQuery, Query()], actor: Admin, services: ContainerDep) -> ChainReport:
    """Follow the hash chain. `complete` false: ask again with `after` and `hash` of the head."""
    return await services.audit.verify(query)


@router.get("/checkpoints")
async def list_checkpoints(query: Annotated[Page, Query()], actor: Admin, services: ContainerDep) -> ListOf[Checkpoint]:
    """Signed places of the chain, newest first."""
    found = list(reversed(await services.audit.checkpoints()))
    return ListOf[Checkpoint].of(found[query.offset : query.offset + query.limit], len(found), query)


@router.post("/checkpoints", status_code=201)
async def make_checkpoint(body: CheckpointIn, actor: Keeper, services: ContainerDep) -> CheckpointOut:
    """Sign where the chain stands, verified. With `truncateBefore`: sign its old part and take that away."""
    return await services.audit.checkpoint(body, actor)
