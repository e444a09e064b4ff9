"""Routes of a plugin's health and figures: /api/v1/plugins/{pluginId}/health, /health-check, /metrics."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query

from api.dependencies import ContainerDep, PluginId
from api.errors import DOCUMENTED
from api.schemas.health import HealthCheckIn, HealthOut, HealthQuery, HealthWithHistory, MetricsOut, MetricsQuery
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute

router = APIRouter(
    prefix="/api/v1/plugins/{pluginId}",
    tags=["plugins"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]
Checker = Annotated[Actor, Depends(require(limit=60))]


@router.get("/health")
async def plugin_health(
    plugin_id: PluginId, query: Annotated[HealthQuery, Query()], actor: Anyone, services: ContainerDep
) -> HealthWithHistory:
    """Each version on each node as the node sees it now, and what was recorded before."""
    return await services.health.health(plugin_id, query)


@router.post("/health-check")
async def check_plugin_health(
    plugin_id: PluginId,
    actor: Checker,
    services: ContainerDep,
    body: Annotated[HealthCheckIn | None, Body()] = None,
) -> HealthOut:
    """Probe every version on every node now. What is found is recorded."""
    return await services.health.check(plugin_id, (body or HealthCheckIn()).environment)


@router.get("/metrics")
async def plugin_metrics(
    plugin_id: PluginId, query: Annotated[MetricsQuery, Query()], actor: Anyone, services: ContainerDep
) -> MetricsOut:
    """Requests, errors, latencies and memory of each version in the window, over all nodes and one by one."""
    return await services.health.metrics(plugin_id, query)
