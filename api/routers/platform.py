"""Routes about the platform itself: nodes, environments."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.dependencies import ContainerDep
from api.errors import DOCUMENTED
from api.schemas.common import ListOf
from api.schemas.operations import NodeQuery
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.registry import EnvironmentPolicy, NodeRecord, Page

router = APIRouter(
    prefix="/api/v1",
    tags=["platform"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]


@router.get("/nodes")
async def list_nodes(query: Annotated[NodeQuery, Query()], actor: Anyone, services: ContainerDep) -> ListOf[NodeRecord]:
    """Every node that registered, by id. `lastSeenAt` is its last beat; one that left in order is gone."""
    async with services.unit_of_work() as uow:
        found = await uow.nodes.list(query.environment, None)
    return ListOf[NodeRecord].of(found[query.offset : query.offset + query.limit], len(found), query)


@router.get("/environments")
async def list_environments(
    query: Annotated[Page, Query()], actor: Anyone, services: ContainerDep
) -> ListOf[EnvironmentPolicy]:
    """Environments in their order of promotion, with what each asks of a deployment."""
    async with services.unit_of_work() as uow:
        found = sorted(await uow.environments.list(), key=lambda policy: policy.rank)
    return ListOf[EnvironmentPolicy].of(found[query.offset : query.offset + query.limit], len(found), query)
