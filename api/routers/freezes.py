"""Routes of freezes: when environments must not move forward, and the switch that stops everything. /api/v1/freezes."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from api.dependencies import ContainerDep, IdempotencyKey, once
from api.errors import DOCUMENTED
from api.schemas.common import Line, ListOf
from api.schemas.freezes import FreezeIn, FreezeQuery, StandingQuery, StopIn
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from hotswap.domain.freeze import LIFTABLE_ID, Freeze, FreezeVerdict

router = APIRouter(
    prefix="/api/v1/freezes",
    tags=["freezes"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
FreezeId = Annotated[str, Path(alias="freezeId", pattern=LIFTABLE_ID)]
Why = Annotated[Line, Query(max_length=500)]


@router.get("")
async def list_freezes(query: Annotated[FreezeQuery, Query()], actor: Anyone, services: ContainerDep) -> ListOf[Freeze]:
    """Freezes, newest first, lifted ones included unless `lifted=false`."""
    items, total = await services.freezes.list(query)
    return ListOf[Freeze].of(items, total, query)


@router.get("/standing")
async def what_stands(query: Annotated[StandingQuery, Query()], actor: Anyone, services: ContainerDep) -> FreezeVerdict:
    """Whether a deployment of the plugin could move in the environment now, why not, and until when."""
    return await services.freezes.verdict(query)


@router.post("", status_code=201)
async def make_freeze(
    body: FreezeIn, actor: Admin, services: ContainerDep, response: Response, key: IdempotencyKey = None
) -> Freeze:
    """Deny or allow in a window. Running rollouts are held at their step; rollback and abort always pass."""
    freeze = await services.freezes.make(body, actor, once(actor, "freezes.make", key))
    response.headers["Location"] = f"/api/v1/freezes/{freeze.freeze_id}"
    return freeze


@router.post("/stop", status_code=201, responses={200: {"model": Freeze}})
async def stop_everything(body: StopIn, actor: Admin, services: ContainerDep, response: Response) -> Freeze:
    """Hold every rollout everywhere, whatever is allowed or overridden. 200 when everything is stopped already."""
    freeze, new = await services.freezes.stop(body.reason, actor)
    response.status_code = 201 if new else 200
    return freeze


@router.post("/stop/lift")
async def release_everything(body: StopIn, actor: Admin, services: ContainerDep) -> Freeze:
    """Let go on what was stopped. 409 when nothing is."""
    return await services.freezes.release(body.reason, actor)


@router.get("/{freezeId}")
async def get_freeze(freeze_id: FreezeId, actor: Anyone, services: ContainerDep) -> Freeze:
    return await services.freezes.get(freeze_id)


@router.delete("/{freezeId}", status_code=204)
async def lift_freeze(freeze_id: FreezeId, actor: Admin, services: ContainerDep, reason: Why = "") -> None:
    """Lift a freeze; what it held goes on at once. A repeat changes nothing."""
    await services.freezes.lift(freeze_id, reason, actor)
