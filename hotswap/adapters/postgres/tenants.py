"""Tenants' plugins, data keys and health checks on PostgreSQL: hotswap.ports.tenants. A node's view: tenant_settings."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, cast, delete, exists, func, literal, select, text, true, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from hotswap.adapters import record_rules, tenant_rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import (
    environments,
    plugin_health_checks,
    plugin_versions,
    plugins,
    routes,
    tenant_changes,
    tenant_data_keys,
    tenant_plugin_configs,
)
from hotswap.domain.ids import derived_id
from hotswap.domain.lifecycle import VersionStatus
from hotswap.domain.plugin_health import HealthCheck
from hotswap.domain.quota import QuotaOverride, TenantQuota
from hotswap.domain.registry import Page
from hotswap.domain.routes import RouteRecord
from hotswap.domain.tenants import DataKey, TenantChange, TenantPlugin
from hotswap.ports.tenants import HISTORY_KEPT

_configs = tenant_plugin_configs.c
_changes = tenant_changes.c
_keys = tenant_data_keys.c
_checks = plugin_health_checks.c


class PostgresTenantStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, tenant: str, plugin: str) -> TenantPlugin | None:
        record_rules.check_storable({"tenant": tenant, "plugin": plugin})
        row = await self._session.first(select(tenant_plugin_configs).where(_of(tenant, plugin)))
        return _tenant_plugin(row) if row is not None else None

    async def hold(self, tenant: str, plugin: str, by: str) -> TenantPlugin:
        names = {"tenant": tenant, "plugin": plugin, "by": by}
        record_rules.check_storable(names, dict.fromkeys(names, record_rules.NAME))
        await self._session.run_guarded(
            insert(tenant_plugin_configs)
            .values(
                config_id=derived_id("cfg", tenant, plugin),
                tenant_id=tenant,
                plugin_id=plugin,
                enabled_by=by,
                updated_at=func.clock_timestamp(),
            )
            .on_conflict_do_nothing(),
            foreign=record_rules.plugin_missing(plugin),
        )
        row = await self._session.first(select(tenant_plugin_configs).where(_of(tenant, plugin)).with_for_update())
        if row is None:
            raise record_rules.plugin_missing(plugin)  # it was deleted in this moment
        return _tenant_plugin(row)

    async def save(self, row: TenantPlugin) -> TenantPlugin:
        data = record_rules.storable(row)
        done = await self._session.run_guarded(
            update(tenant_plugin_configs)
            .where(_of(row.tenant, row.plugin))
            .values(
                enabled=row.enabled,
                pinned_version=row.pinned_version,
                configuration=_json(data["configuration"]),
                secrets=_json(data["secrets"] or None),
                quotas=_json(row.quotas.model_dump(mode="json", exclude_none=True) if row.quotas else None),
                updated_at=func.clock_timestamp(),
            )
            .returning(tenant_plugin_configs),
            foreign=record_rules.version_missing(row.plugin, row.pinned_version or ""),
        )
        saved = done.first()
        if saved is None:
            raise tenant_rules.not_held(row)
        return _tenant_plugin(saved)

    async def of_tenant(self, tenant: str, plugins: Collection[str]) -> Sequence[TenantPlugin]:
        record_rules.check_storable({"tenant": tenant, "plugins": list(plugins)})
        query = select(tenant_plugin_configs).where(_configs.tenant_id == tenant, _configs.plugin_id.in_(plugins))
        return [_tenant_plugin(row) for row in await self._session.all(query.order_by(_configs.plugin_id))]

    async def configured(self, plugin: str, after: str, limit: int) -> Sequence[tuple[str, dict[str, Any]]]:
        record_rules.check_storable({"plugin": plugin, "after": after})
        query = select(_configs.tenant_id, _configs.configuration).where(
            _configs.plugin_id == plugin,
            _configs.tenant_id > after,
            _configs.configuration.is_not(None),
            func.jsonb_typeof(_configs.configuration) == "object",
            _configs.pinned_version.is_(None),
        )
        rows = await self._session.all(query.order_by(_configs.tenant_id).limit(limit))
        return [(row.tenant_id, row.configuration) for row in rows]

    async def sealed_otherwise(self, tenant: str, key_id: str, limit: int) -> Sequence[str]:
        record_rules.check_storable({"tenant": tenant, "keyId": key_id})
        entry = func.jsonb_each(_configs.secrets).table_valued("key", "value").lateral("entry")
        value = cast(entry.c.value, JSONB)
        other = exists(select(literal(1)).select_from(entry).where(value["keyId"].astext != key_id))
        query = select(_configs.plugin_id).where(_configs.tenant_id == tenant, _configs.secrets.is_not(None), other)
        rows = await self._session.all(query.order_by(_configs.plugin_id).limit(limit))
        return [row.plugin_id for row in rows]

    async def routes(self, plugins: Collection[str]) -> Sequence[RouteRecord]:
        record_rules.check_storable({"plugins": list(plugins)})
        return [_route(row) for row in await self._session.all(_LATEST_ROUTES, {"wanted": list(plugins)})]

    async def worn(self, plugins: Collection[str]) -> Sequence[tuple[str, str, VersionStatus]]:
        record_rules.check_storable({"plugins": list(plugins)})
        versions = plugin_versions.c
        query = select(versions.plugin_id, versions.version, versions.status).where(
            versions.plugin_id.in_(plugins), versions.status.in_([VersionStatus.DEPRECATED, VersionStatus.ARCHIVED])
        )
        rows = await self._session.all(query.order_by(versions.plugin_id, versions.version))
        return [(row.plugin_id, row.version, VersionStatus(row.status)) for row in rows]

    async def record(self, change: TenantChange) -> None:
        data = record_rules.storable(change, tenant_rules.CHANGE_LIMITS)
        await self._session.run_guarded(
            insert(tenant_changes).values(
                change_id=change.change_id,
                tenant_id=change.tenant,
                plugin_id=change.plugin,
                kind=change.kind,
                changed_by=change.by,
                reason=change.reason,
                before=data["before"],
                after=data["after"],
                trace_id=change.trace_id,
                changed_at=change.at,
            ),
            foreign=record_rules.plugin_missing(change.plugin),
        )
        kept = _newest_changes(select(_changes.change_id), change.tenant, change.plugin).offset(HISTORY_KEPT)
        await self._session.run(delete(tenant_changes).where(_changes.change_id.in_(kept.scalar_subquery())))

    async def history(self, tenant: str, plugin: str, page: Page) -> tuple[Sequence[TenantChange], int]:
        record_rules.check_storable({"tenant": tenant, "plugin": plugin})
        rows, total = await self._session.page(_newest_changes(select(tenant_changes), tenant, plugin), page)
        return [_change(row) for row in rows], total


class PostgresDataKeyStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def lock(self, tenant: str) -> None:
        record_rules.check_storable({"tenant": tenant})
        await self._session.run(select(func.pg_advisory_xact_lock(func.hashtextextended(f"data keys {tenant}", 0))))

    async def current(self, tenant: str) -> DataKey | None:
        record_rules.check_storable({"tenant": tenant})
        query = select(tenant_data_keys).where(_keys.tenant_id == tenant, _keys.retired_at.is_(None))
        row = await self._session.first(query.order_by(_keys.created_at.desc(), _keys.key_id.desc()).limit(1))
        return _data_key(row) if row is not None else None

    async def find(self, key_ids: Collection[str]) -> Sequence[DataKey]:
        record_rules.check_storable({"keyIds": list(key_ids)})
        query = select(tenant_data_keys).where(_keys.key_id.in_(key_ids)).order_by(_keys.key_id)
        return [_data_key(row) for row in await self._session.all(query)]

    async def of_tenant(self, tenant: str) -> Sequence[DataKey]:
        record_rules.check_storable({"tenant": tenant})
        query = select(tenant_data_keys).where(_keys.tenant_id == tenant).order_by(_keys.created_at, _keys.key_id)
        return [_data_key(row) for row in await self._session.all(query)]

    async def page(self, after: str, limit: int) -> Sequence[DataKey]:
        record_rules.check_storable({"after": after})
        query = select(tenant_data_keys).where(_keys.key_id > after).order_by(_keys.key_id).limit(limit)
        return [_data_key(row) for row in await self._session.all(query)]

    async def add(self, key: DataKey) -> None:
        record_rules.storable(key, tenant_rules.KEY_LIMITS)
        await self._session.run_guarded(
            insert(tenant_data_keys).values(
                key_id=key.key_id,
                tenant_id=key.tenant,
                wrapped=key.wrapped,
                wrapped_by=key.wrapped_by,
                created_at=key.created_at,
                retired_at=key.retired_at,
            ),
            unique=tenant_rules.key_taken(key.key_id),
        )

    async def rewrap(self, key: DataKey, wrapped_before: str) -> bool:
        record_rules.storable(key, tenant_rules.KEY_LIMITS)
        done = await self._session.run(
            update(tenant_data_keys)
            .where(_keys.key_id == key.key_id, _keys.wrapped == wrapped_before)
            .values(wrapped=key.wrapped, wrapped_by=key.wrapped_by)
        )
        return bool(done.rowcount)

    async def retire(self, key_ids: Collection[str], at: datetime) -> None:
        record_rules.check_storable({"keyIds": list(key_ids)})
        await self._session.run(
            update(tenant_data_keys).where(_keys.key_id.in_(key_ids), _keys.retired_at.is_(None)).values(retired_at=at)
        )

    async def delete_retired(self, tenant: str, before: datetime) -> int:
        record_rules.check_storable({"tenant": tenant})
        done = await self._session.run(
            delete(tenant_data_keys).where(_keys.tenant_id == tenant, _keys.retired_at < before)
        )
        return int(done.rowcount)


class PostgresHealthStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, checks: Sequence[HealthCheck]) -> None:
        for check in checks:
            data = record_rules.storable(check, tenant_rules.CHECK_LIMITS)
            await self._session.run_guarded(
                insert(plugin_health_checks)
                .from_select(
                    [
                        "health_check_id",
                        "plugin_id",
                        "version",
                        "environment",
                        "type",
                        "status",
                        "checked_at",
                        "duration_ms",
                        "error_message",
                        "metrics",
                    ],
                    select(
                        literal(check.check_id),
                        plugins.c.plugin_id,
                        literal(check.version),
                        environments.c.name,
                        literal(check.kind.value),
                        literal(check.status.value),
                        literal(check.checked_at),
                        literal(round(check.duration_ms)),
                        literal(check.error),
                        cast(literal(data["figures"], JSONB), JSONB),
                    )
                    .select_from(plugins.join(environments, environments.c.name == check.environment))
                    .where(plugins.c.plugin_id == check.plugin),
                )
                .on_conflict_do_nothing()
            )

    async def list(self, plugin: str, environment: str | None, page: Page) -> tuple[Sequence[HealthCheck], int]:
        record_rules.check_storable({"plugin": plugin, "environment": environment})
        query = select(plugin_health_checks).where(_checks.plugin_id == plugin)
        if environment is not None:
            query = query.where(_checks.environment == environment)
        query = query.order_by(_checks.checked_at.desc(), _checks.health_check_id.desc())
        rows, total = await self._session.page(query, page)
        return [_check(row) for row in rows], total

    async def forget(self, older_than: timedelta, most: int) -> int:
        old = (
            select(_checks.health_check_id)
            .where(_checks.checked_at < func.clock_timestamp() - older_than)
            .order_by(_checks.checked_at)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        done = await self._session.run(
            delete(plugin_health_checks).where(_checks.health_check_id.in_(old.scalar_subquery()))
        )
        return int(done.rowcount)


def _of(tenant: str, plugin: str) -> Any:
    return (_configs.tenant_id == tenant) & (_configs.plugin_id == plugin)


def _json(value: Any) -> Any:
    """SQL's NULL, not JSON's null, for what is not there: the nodes' queries tell them apart."""
    return text("NULL") if value is None else value


def _latest_routes() -> Any:
    """Lateral, one index look-up for each environment and plugin, however many generations there are."""
    latest = (
        select(routes)
        .where(routes.c.environment == environments.c.name, routes.c.plugin_id == plugins.c.plugin_id)
        .order_by(routes.c.generation.desc())
        .limit(1)
        .lateral("latest")
    )
    return (
        select(latest)
        .select_from(environments.join(plugins, true()).join(latest, true()))
        .where(plugins.c.plugin_id.in_(bindparam("wanted", expanding=True)))
        .order_by(plugins.c.plugin_id, environments.c.rank)
    )


_LATEST_ROUTES = _latest_routes()
"""Made once: to put its lateral columns together anew takes longer than PostgreSQL takes to answer."""


def _newest_changes(query: Any, tenant: str, plugin: str) -> Any:
    query = query.where(_changes.tenant_id == tenant, _changes.plugin_id == plugin)
    return query.order_by(_changes.changed_at.desc(), _changes.change_id.desc())


def _route(row: Row[Any]) -> RouteRecord:
    return RouteRecord(
        environment=row.environment,
        plugin=row.plugin_id,
        generation=row.generation,
        state=row.state,
        deployment_id=row.deployment_id,
        written_at=row.written_at,
    )


def _tenant_plugin(row: Row[Any]) -> TenantPlugin:
    quotas = TenantQuota.read(row.tenant_id, row.plugin_id, row.quotas).override if row.quotas is not None else None
    return TenantPlugin(
        tenant=row.tenant_id,
        plugin=row.plugin_id,
        enabled=row.enabled,
        pinned_version=row.pinned_version,
        configuration=row.configuration,
        secrets=row.secrets or {},
        quotas=quotas if quotas != QuotaOverride() else None,
        updated_at=row.updated_at,
    )


def _change(row: Row[Any]) -> TenantChange:
    return TenantChange(
        change_id=row.change_id,
        tenant=row.tenant_id,
        plugin=row.plugin_id,
        kind=row.kind,
        by=row.changed_by,
        reason=row.reason,
        before=row.before,
        after=row.after,
        trace_id=row.trace_id,
        at=row.changed_at,
    )


def _data_key(row: Row[Any]) -> DataKey:
    return DataKey(
        key_id=row.key_id,
        tenant=row.tenant_id,
        wrapped=row.wrapped,
        wrapped_by=row.wrapped_by,
        created_at=row.created_at,
        retired_at=row.retired_at,
    )


def _check(row: Row[Any]) -> HealthCheck:
    return HealthCheck(
        check_id=row.health_check_id,
        plugin=row.plugin_id,
        version=row.version,
        environment=row.environment,
        kind=row.type,
        status=row.status,
        checked_at=row.checked_at,
        duration_ms=row.duration_ms,
        error=row.error_message or "",
        figures=row.metrics or {},
    )
