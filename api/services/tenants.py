"""A tenant's plugins: look, enable, disable, pin, configure, limit. Every change with its history and audit entry.

Whoever may not act for a tenant gets one answer, whether there is such a tenant or not. Nodes hear of a commit at once
(PostgreSQL's trigger notifies) and look by themselves every few seconds. Secrets: api.services.tenant_secrets.
"""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

from api.schemas.tenants import ConfigIn, ConfigOut, PinIn, SecretOut, Serving, TenantPluginOut
from api.services.actor import Actor
from api.services.plugins import entry
from hotswap.domain.base import bounded
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput, Unavailable
from hotswap.domain.ids import new_id
from hotswap.domain.lifecycle import PluginStatus, VersionStatus
from hotswap.domain.quota import QuotaOverride
from hotswap.domain.registry import Page, Plugin
from hotswap.domain.release import check_deployable
from hotswap.domain.routes import ArtifactRef, RouteRecord
from hotswap.domain.tenants import ChangeKind, TenantChange, TenantPlugin
from hotswap.ports.records import PluginFilter, UnitOfWork, UnitOfWorkFactory
from hotswap.ports.tenant_settings import MAX_SETTINGS_BYTES
from hotswap.routing.decide import choose_version
from hotswap.runtime.config_check import ConfigCheck

Facts = dict[str, Any]
Edit = Callable[[TenantPlugin], tuple[TenantPlugin, Facts, Facts]]
"""The row before -> (the row after, what the history says of before, and of after)."""


class TenantService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, reading: UnitOfWorkFactory) -> None:
        self._unit_of_work = unit_of_work
        self._reading = reading
        self._check = ConfigCheck()

    # -- looking ----------------------------------------------------------------------------------------------------

    async def list(self, tenant: str, page: Page, actor: Actor) -> tuple[list[TenantPluginOut], int]:
        """Every registered plugin as this tenant has it, by name. Raises Forbidden."""
        actor.require_tenant(tenant)
        async with self._reading() as uow:
            plugins, total = await uow.plugins.list(PluginFilter(), page)
            return await _seen(uow, tenant, plugins), total

    async def get(self, tenant: str, plugin: str, actor: Actor) -> TenantPluginOut:
        """Raises Forbidden, NotFound."""
        actor.require_tenant(tenant)
        async with self._reading() as uow:
            return (await _seen(uow, tenant, [await uow.plugins.get(plugin)]))[0]

    async def config(self, tenant: str, plugin: str, actor: Actor) -> ConfigOut:
        """Raises Forbidden, NotFound."""
        actor.require_tenant(tenant)
        async with self._reading() as uow:
            await uow.plugins.get(plugin)
            row = await uow.tenants.find(tenant, plugin)
        return _config(row or TenantPlugin(tenant=tenant, plugin=plugin))

    async def history(self, tenant: str, plugin: str, page: Page, actor: Actor) -> tuple[Sequence[TenantChange], int]:
        """Newest first. Raises Forbidden, NotFound."""
        actor.require_tenant(tenant)
        async with self._reading() as uow:
            await uow.plugins.get(plugin)
            return await uow.tenants.history(tenant, plugin, page)

    # -- changing ---------------------------------------------------------------------------------------------------

    async def enable(self, tenant: str, plugin: str, on: bool, reason: str, actor: Actor) -> TenantPluginOut:
        """A repeat changes nothing. Raises Forbidden, NotFound."""

        def edit(row: TenantPlugin) -> tuple[TenantPlugin, Facts, Facts]:
            return row.model_copy(update={"enabled": on}), {"enabled": row.enabled}, {"enabled": on}

        kind = ChangeKind.ENABLED if on else ChangeKind.DISABLED
        return await self._changed(tenant, plugin, kind, edit, reason, actor)

    async def configure(self, tenant: str, plugin: str, wanted: ConfigIn, actor: Actor) -> ConfigOut:
        """Replace the configuration. Raises Forbidden, NotFound, Conflict (no version), InvalidInput naming each fault."""
        actor.require_tenant(tenant)
        _check_size(wanted.configuration)
        await self._check_by_schemas(tenant, plugin, wanted.configuration)

        def edit(row: TenantPlugin) -> tuple[TenantPlugin, Facts, Facts]:
            after = wanted.configuration
            changed = row.model_copy(update={"configuration": after})
            return changed, {"configuration": row.configuration}, {"configuration": after}

        async with self._unit_of_work() as uow:
            row = await change(uow, tenant, plugin, ChangeKind.CONFIGURED, edit, wanted.reason, actor)
            await uow.commit()
        return _config(row)

    async def pin(self, tenant: str, plugin: str, wanted: PinIn, actor: Actor) -> TenantPluginOut:
        """Every strategy leaves the tenant on it. Raises Forbidden, NotFound, Conflict for one that Production
        does not take."""
        actor.require_tenant(tenant)
        async with self._unit_of_work() as uow:
            version = await uow.versions.get(plugin, wanted.version)
        # A pin holds in every environment, also in those that the plugin comes to later.
        check_deployable(version, Environment.PRODUCTION, allow_deprecated=True)
        return await self._changed(tenant, plugin, ChangeKind.PINNED, _pinned(wanted.version), wanted.reason, actor)

    async def unpin(self, tenant: str, plugin: str, actor: Actor) -> None:
        """A repeat changes nothing. Raises Forbidden, NotFound."""
        await self._changed(tenant, plugin, ChangeKind.UNPINNED, _pinned(None), "", actor)

    async def limit(self, tenant: str, plugin: str, quotas: QuotaOverride, actor: Actor) -> TenantPluginOut:
        """The tenant's own limits; what is left out is the platform's default. Raises Forbidden, NotFound."""
        after = quotas if quotas != QuotaOverride() else None

        def edit(row: TenantPlugin) -> tuple[TenantPlugin, Facts, Facts]:
            return row.model_copy(update={"quotas": after}), {"quotas": _told(row.quotas)}, {"quotas": _told(after)}

        return await self._changed(tenant, plugin, ChangeKind.QUOTAS_SET, edit, "", actor)

    async def _changed(
        self, tenant: str, plugin: str, kind: ChangeKind, edit: Edit, reason: str, actor: Actor
    ) -> TenantPluginOut:
        actor.require_tenant(tenant)
        async with self._unit_of_work() as uow:
            await change(uow, tenant, plugin, kind, edit, reason, actor)
            seen = (await _seen(uow, tenant, [await uow.plugins.get(plugin)]))[0]
            await uow.commit()
        return seen

    async def _check_by_schemas(self, tenant: str, plugin: str, configuration: dict[str, Any]) -> None:
        """By the schema of every version that serves the tenant somewhere or is pinned; of the newest when none does."""
        async with self._unit_of_work() as uow:
            known = await uow.plugins.get(plugin)
            seen = (await _seen(uow, tenant, [known]))[0]
            named = [one for place in seen.serving for one in (place.version, place.moving_to)]
            wanted = {version for version in (*named, seen.pinned_version) if version is not None}
            if not wanted and known.current_version is not None:
                wanted = {known.current_version}
            if not wanted:
                raise Conflict(
                    f"{plugin} has no version yet whose configurationSchema could be asked; upload one first"
                )
            manifests = [(await uow.versions.get(plugin, version)).manifest for version in sorted(wanted)]
        faults: list[FieldFault] = []
        for manifest in manifests:
            whole = {**manifest.config_defaults(), **configuration}
            faults += await self._check.faults(manifest.configuration_schema, whole, manifest.version)
        if faults:
            named_faults = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:3])
            raise InvalidInput(f"the configuration does not fit: {named_faults}", faults)


async def change(
    uow: UnitOfWork, tenant: str, plugin: str, kind: ChangeKind, edit: Edit, reason: str, actor: Actor
) -> TenantPlugin:
    """Edit the held row, with its history and audit entry; an edit that changes nothing leaves no trace. Not committed."""
    row = await uow.tenants.hold(tenant, plugin, actor.user)
    after, told_before, told_after = edit(row)
    if after == row:
        return row
    saved = await uow.tenants.save(after)
    now = await uow.now()
    await uow.tenants.record(
        TenantChange(
            change_id=new_id("chg"),
            tenant=tenant,
            plugin=plugin,
            kind=kind,
            by=actor.user,
            reason=bounded(reason),
            before=told_before,
            after=told_after,
            trace_id=actor.trace_id,
            at=now,
        )
    )
    details = {"tenant": tenant, "plugin": plugin, "reason": bounded(reason)}
    await uow.audit.append(entry(f"tenant-plugin.{kind}", "tenant", tenant, actor, now, details))
    return saved


async def _seen(uow: UnitOfWork, tenant: str, plugins: Sequence[Plugin]) -> list[TenantPluginOut]:
    """A handful of queries, however many plugins there are."""
    names = [plugin.name for plugin in plugins]
    rows = {row.plugin: row for row in await uow.tenants.of_tenant(tenant, names)}
    routes: dict[str, list[RouteRecord]] = {}
    for route in await uow.tenants.routes(names):
        routes.setdefault(route.plugin, []).append(route)
    worn = {(plugin, version): status for plugin, version, status in await uow.tenants.worn(names)}
    seen = []
    for plugin in plugins:
        row = rows.get(plugin.name) or TenantPlugin(tenant=tenant, plugin=plugin.name)
        serving = tuple(_serving(tenant, row, route) for route in routes.get(plugin.name, ()))
        seen.append(
            TenantPluginOut(
                plugin_id=plugin.name,
                display_name=plugin.display_name,
                plugin_status=plugin.status,
                enabled=row.enabled,
                pinned_version=row.pinned_version,
                serving=serving,
                quotas=row.quotas,
                warnings=tuple(_warnings(plugin, row, serving, worn)),
                updated_at=row.updated_at,
            )
        )
    return seen


def _serving(tenant: str, row: TenantPlugin, route: RouteRecord) -> Serving:
    state = route.state
    pins: dict[str, ArtifactRef] = {}
    if row.pinned_version is not None and state.versions():
        pins[tenant] = state.versions()[0].model_copy(update={"version": row.pinned_version})
    version = choose_version(tenant, state, pins)
    rolling = state.candidate if state.switched_nodes and row.pinned_version is None else None
    moving = rolling.version if rolling is not None and rolling.version != version else None
    return Serving(
        environment=route.environment, version=version, moving_to=moving, pinned=bool(pins) and version is not None
    )


def _warnings(
    plugin: Plugin, row: TenantPlugin, serving: Collection[Serving], worn: dict[tuple[str, str], VersionStatus]
) -> list[str]:
    said = []
    if plugin.status in (PluginStatus.DEPRECATED, PluginStatus.ARCHIVED):
        why = f" ({plugin.deprecation_reason})" if plugin.deprecation_reason else ""
        said.append(f"{plugin.name} is {plugin.status}{why}: plan to move away from it")
    pinned = row.pinned_version
    if pinned is not None and (plugin.name, pinned) in worn:
        said.append(
            f"pinned to {pinned}, which is {worn[plugin.name, pinned]}: pin to another version or take the pin away"
        )
    for place in serving:
        if place.version is not None and not place.pinned and (plugin.name, place.version) in worn:
            said.append(f"{place.version}, which serves in {place.environment}, is {worn[plugin.name, place.version]}")
    return said


def _pinned(version: str | None) -> Edit:
    def edit(row: TenantPlugin) -> tuple[TenantPlugin, Facts, Facts]:
        changed = row.model_copy(update={"pinned_version": version})
        return changed, {"pinnedVersion": row.pinned_version}, {"pinnedVersion": version}

    return edit


def _config(row: TenantPlugin) -> ConfigOut:
    secrets = [SecretOut(name=name, updated_at=one.updated_at) for name, one in sorted(row.secrets.items())]
    return ConfigOut(configuration=row.configuration, secrets=tuple(secrets), updated_at=row.updated_at)


def _told(quotas: QuotaOverride | None) -> Facts | None:
    return quotas.model_dump(mode="json", exclude_none=True) if quotas is not None else None


def _check_size(configuration: dict[str, Any]) -> None:
    if (size := len(json.dumps(configuration))) > MAX_SETTINGS_BYTES:
        why = f"is {size} bytes of JSON; at most {MAX_SETTINGS_BYTES} are handed to plugins"
        raise InvalidInput(f"configuration {why}", [FieldFault("configuration", why)])


def no_keys() -> Unavailable:
    return Unavailable(
        "tenants have no secrets here: HOTSWAP_KEYS__PROVIDER is none on this api; set it up first (docs/tenants.md)"
    )
