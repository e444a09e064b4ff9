"""Routes of what a tenant has of plugins: /api/v1/tenants/{tenant}/plugins, and the rotation of tenants' keys."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query

from api.dependencies import ContainerDep, PluginId
from api.errors import DOCUMENTED
from api.schemas.common import ListOf
from api.schemas.tenants import (
    ConfigIn,
    ConfigOut,
    PinIn,
    ReasonIn,
    RewrapIn,
    RewrapOut,
    RotateIn,
    RotateOut,
    SecretIn,
    TenantPluginOut,
)
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.base import TenantId
from hotswap.domain.deployment import Role
from hotswap.domain.quota import QuotaOverride
from hotswap.domain.registry import Page
from hotswap.domain.tenants import SecretName, TenantChange

router = APIRouter(
    prefix="/api/v1",
    tags=["tenants"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Owner = Annotated[Actor, Depends(require(Role.ADMIN, Role.TENANT_OWNER))]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
Tenant = Annotated[TenantId, Path(alias="tenant")]
Secret = Annotated[SecretName, Path(alias="name")]

PLUGINS = "/tenants/{tenant}/plugins"
PLUGIN = PLUGINS + "/{pluginId}"


@router.get(PLUGINS)
async def list_tenant_plugins(
    tenant: Tenant, query: Annotated[Page, Query()], actor: Owner, services: ContainerDep
) -> ListOf[TenantPluginOut]:
    """Every plugin as this tenant has it: what serves it where, enabled, pinned, warnings."""
    items, total = await services.tenants.list(tenant, query, actor)
    return ListOf[TenantPluginOut].of(items, total, query)


@router.get(PLUGIN)
async def get_tenant_plugin(
    tenant: Tenant, plugin_id: PluginId, actor: Owner, services: ContainerDep
) -> TenantPluginOut:
    return await services.tenants.get(tenant, plugin_id, actor)


@router.post(PLUGIN + "/enable")
async def enable_plugin(
    tenant: Tenant,
    plugin_id: PluginId,
    actor: Owner,
    services: ContainerDep,
    body: Annotated[ReasonIn | None, Body()] = None,
) -> TenantPluginOut:
    """Let the tenant call the plugin (the default). A repeat changes nothing."""
    return await services.tenants.enable(tenant, plugin_id, True, (body or ReasonIn()).reason, actor)


@router.post(PLUGIN + "/disable")
async def disable_plugin(
    tenant: Tenant,
    plugin_id: PluginId,
    actor: Owner,
    services: ContainerDep,
    body: Annotated[ReasonIn | None, Body()] = None,
) -> TenantPluginOut:
    """Refuse the tenant's calls of the plugin on every node, within about a second. A repeat changes nothing."""
    return await services.tenants.enable(tenant, plugin_id, False, (body or ReasonIn()).reason, actor)


@router.get(PLUGIN + "/config")
async def get_tenant_config(tenant: Tenant, plugin_id: PluginId, actor: Owner, services: ContainerDep) -> ConfigOut:
    """The configuration, and the names of the secrets."""
    return await services.tenants.config(tenant, plugin_id, actor)


@router.put(PLUGIN + "/config")
async def put_tenant_config(
    tenant: Tenant, plugin_id: PluginId, body: ConfigIn, actor: Owner, services: ContainerDep
) -> ConfigOut:
    """Replace the configuration; it must fit the configurationSchema of every version that serves the tenant."""
    return await services.tenants.configure(tenant, plugin_id, body, actor)


@router.put(PLUGIN + "/secrets/{name}", status_code=204)
async def put_secret(
    tenant: Tenant, plugin_id: PluginId, name: Secret, body: SecretIn, actor: Owner, services: ContainerDep
) -> None:
    """Set a secret. It is sealed under the tenant's own key and never shown again."""
    await services.tenant_secrets.set(tenant, plugin_id, name, body.value, actor)


@router.delete(PLUGIN + "/secrets/{name}", status_code=204)
async def delete_secret(
    tenant: Tenant, plugin_id: PluginId, name: Secret, actor: Owner, services: ContainerDep
) -> None:
    await services.tenant_secrets.delete(tenant, plugin_id, name, actor)


@router.put(PLUGIN + "/pin")
async def pin_version(
    tenant: Tenant, plugin_id: PluginId, body: PinIn, actor: Owner, services: ContainerDep
) -> TenantPluginOut:
    """Keep the tenant on one version in every environment, whatever is rolled out."""
    return await services.tenants.pin(tenant, plugin_id, body, actor)


@router.delete(PLUGIN + "/pin", status_code=204)
async def unpin_version(tenant: Tenant, plugin_id: PluginId, actor: Owner, services: ContainerDep) -> None:
    """Let rollouts move the tenant again. A repeat changes nothing."""
    await services.tenants.unpin(tenant, plugin_id, actor)


@router.put(PLUGIN + "/quotas")
async def put_quotas(
    tenant: Tenant, plugin_id: PluginId, body: QuotaOverride, actor: Admin, services: ContainerDep
) -> TenantPluginOut:
    """The tenant's own limits on each node; what is left out is the platform's default, and {} all of them."""
    return await services.tenants.limit(tenant, plugin_id, body, actor)


@router.get(PLUGIN + "/history")
async def tenant_history(
    tenant: Tenant, plugin_id: PluginId, query: Annotated[Page, Query()], actor: Owner, services: ContainerDep
) -> ListOf[TenantChange]:
    """Who changed what and when, newest first: the last 200 changes."""
    items, total = await services.tenants.history(tenant, plugin_id, query, actor)
    return ListOf[TenantChange].of(items, total, query)


@router.post("/tenants/{tenant}/keys/rotate")
async def rotate_tenant_keys(
    tenant: Tenant, actor: Admin, services: ContainerDep, body: Annotated[RotateIn | None, Body()] = None
) -> RotateOut:
    """Make the tenant a new data key and seal its secrets anew, a part a call: repeat while `done` is false."""
    return await services.tenant_secrets.rotate(tenant, (body or RotateIn()).reason, actor)


@router.post("/tenant-keys/rewrap")
async def rewrap_keys(
    actor: Admin, services: ContainerDep, body: Annotated[RewrapIn | None, Body()] = None
) -> RewrapOut:
    """Wrap all tenants' data keys by the provider's newest key, a part a call: repeat with `next` until it is null."""
    return await services.tenant_secrets.rewrap(body or RewrapIn(), actor)
