"""Routes about the time after a rollout: drift of an environment and its repair, versions held after a rollback."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query

from api.dependencies import ContainerDep
from api.errors import DOCUMENTED
from api.schemas.aftercare import DriftOut, RepairIn
from api.schemas.common import ListOf
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.deployment import Environment, Role
from hotswap.domain.holds import HeldVersion
from hotswap.domain.registry import Page
from workflows.drift import DriftRepaired

router = APIRouter(
    prefix="/api/v1/environments",
    tags=["platform"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]
Deployer = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER))]
EnvironmentName = Annotated[Environment, Path(alias="environment")]


@router.get("/{environment}/drift")
async def environment_drift(environment: EnvironmentName, actor: Anyone, services: ContainerDep) -> DriftOut:
    """What the nodes run now, compared with what the routes say. Differences that a deployment explains name it."""
    return DriftOut.of(await services.drift.now(environment))


@router.post("/{environment}/drift/repair")
async def repair_drift(
    environment: EnvironmentName,
    actor: Deployer,
    services: ContainerDep,
    body: Annotated[RepairIn | None, Body()] = None,
) -> DriftRepaired:
    """Let every node that differs make itself what the routes say (a Developer: in Development and QA)."""
    return await services.drift.repair(environment, body or RepairIn(), actor)


@router.get("/{environment}/held-versions")
async def held_versions(
    environment: EnvironmentName, query: Annotated[Page, Query()], actor: Anyone, services: ContainerDep
) -> ListOf[HeldVersion]:
    """Versions that a health monitor took back and that come again only with a reason (`overrideHold`)."""
    async with services.unit_of_work() as uow:
        found, total = await uow.held.list(environment, query)
    return ListOf[HeldVersion].of(found, total, query)
