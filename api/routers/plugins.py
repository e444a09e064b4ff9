"""Routes of the registry: /api/v1/plugins."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Response

from api.conditional import CACHED, IfNoneMatch, conditional
from api.dependencies import ContainerDep, IdempotencyKey, PluginId, once
from api.errors import DOCUMENTED
from api.openapi import REASON_REQUIRED
from api.schemas.common import CommandIn, ListOf
from api.schemas.plugins import PluginChange, PluginIn, PluginOut, PluginQuery
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from hotswap.ports.records import PluginFilter

router = APIRouter(
    prefix="/api/v1/plugins",
    tags=["plugins"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]
Author = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER))]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
Reason = Annotated[CommandIn | None, Body()]


@router.post("", status_code=201)
async def register_plugin(
    body: PluginIn, actor: Author, services: ContainerDep, response: Response, key: IdempotencyKey = None
) -> PluginOut:
    """Register a plugin. 409 when the name is taken."""
    plugin = await services.plugins.register(body, actor, once(actor, "plugins.register", key))
    response.headers["Location"] = f"/api/v1/plugins/{plugin.name}"
    return plugin


@router.get("")
async def list_plugins(
    query: Annotated[PluginQuery, Query()], actor: Anyone, services: ContainerDep
) -> ListOf[PluginOut]:
    """Plugins by name. `tags=a,b` asks for all of them, `search` looks into names and descriptions."""
    where = PluginFilter(type=query.type, status=query.status, tags=query.tag_list(), search=query.search or None)
    items, total = await services.plugins.list(where, query)
    return ListOf[PluginOut].of(items, total, query)


@router.get("/{pluginId}", response_model=PluginOut, responses=CACHED)
async def get_plugin(
    plugin_id: PluginId, actor: Anyone, services: ContainerDep, if_none_match: IfNoneMatch = None
) -> Response:
    """One plugin. With If-None-Match: 304 while nothing has changed."""
    return conditional(await services.plugins.get(plugin_id), if_none_match)


@router.put("/{pluginId}")
async def change_plugin(plugin_id: PluginId, body: PluginChange, actor: Admin, services: ContainerDep) -> PluginOut:
    """Change what describes a plugin. Fields that are left out stay."""
    return await services.plugins.change(plugin_id, body, actor)


@router.post("/{pluginId}/deprecate", openapi_extra=REASON_REQUIRED)
async def deprecate_plugin(
    plugin_id: PluginId, actor: Admin, services: ContainerDep, body: Reason = None, key: IdempotencyKey = None
) -> PluginOut:
    """Advise against a plugin: its tenants are warned, deployments need `allowDeprecated`. What serves goes on."""
    keyed = once(actor, "plugins.deprecate", key)
    return await services.plugins.advise(plugin_id, body or CommandIn(), actor, keyed, against=True)


@router.post("/{pluginId}/reinstate", openapi_extra=REASON_REQUIRED)
async def reinstate_plugin(
    plugin_id: PluginId, actor: Admin, services: ContainerDep, body: Reason = None, key: IdempotencyKey = None
) -> PluginOut:
    """Take a plugin's deprecation back. A reason is required."""
    keyed = once(actor, "plugins.reinstate", key)
    return await services.plugins.advise(plugin_id, body or CommandIn(), actor, keyed, against=False)


@router.delete("/{pluginId}", status_code=204)
async def delete_plugin(plugin_id: PluginId, actor: Admin, services: ContainerDep) -> None:
    """Delete a plugin with its versions. 409 while a route or a deployment names it."""
    await services.plugins.delete(plugin_id, actor)
