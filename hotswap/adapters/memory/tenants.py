"""Tenants' plugins, data keys and health checks in memory: the twins of hotswap.adapters.postgres.tenants."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from hotswap.adapters import record_rules, tenant_rules
from hotswap.adapters.memory.record_state import RecordState
from hotswap.adapters.memory.record_stores import _slice, _Store, _stored
from hotswap.domain.lifecycle import VersionStatus
from hotswap.domain.plugin_health import HealthCheck
from hotswap.domain.quota import QuotaOverride, TenantQuota
from hotswap.domain.registry import Page
from hotswap.domain.routes import RouteRecord
from hotswap.domain.tenants import DataKey, TenantChange, TenantPlugin
from hotswap.ports.tenants import HISTORY_KEPT


class MemoryTenantStore(_Store):
    async def find(self, tenant: str, plugin: str) -> TenantPlugin | None:
        record_rules.check_storable({"tenant": tenant, "plugin": plugin})
        return _row(await self._transaction.reading(), tenant, plugin)

    async def hold(self, tenant: str, plugin: str, by: str) -> TenantPlugin:
        names = {"tenant": tenant, "plugin": plugin, "by": by}
        record_rules.check_storable(names, dict.fromkeys(names, record_rules.NAME))
        state = await self._transaction.writing()
        if plugin not in state.plugins:
            raise record_rules.plugin_missing(plugin)
        key = (tenant, plugin)
        if key not in state.tenant_rows:
            row = _row(state, tenant, plugin) or TenantPlugin(tenant=tenant, plugin=plugin)
            state.tenant_rows[key] = row.model_copy(update={"updated_at": self._transaction.instant()})
            state.tenants[key] = None
        held = _row(state, tenant, plugin)
        assert held is not None
        return held

    async def save(self, row: TenantPlugin) -> TenantPlugin:
        record_rules.storable(row)
        state = await self._transaction.writing()
        key = (row.tenant, row.plugin)
        if key not in state.tenant_rows:
            raise tenant_rules.not_held(row)
        if row.pinned_version is not None and (row.plugin, row.pinned_version) not in state.versions:
            raise record_rules.version_missing(row.plugin, row.pinned_version)
        quotas = row.quotas if row.quotas != QuotaOverride() else None
        saved = _stored(row).model_copy(update={"updated_at": self._transaction.instant(), "quotas": quotas})
        state.tenant_rows[key] = saved
        state.pins.pop(key, None)
        if saved.pinned_version is not None:
            state.pins[key] = saved.pinned_version
        state.quotas.pop(key, None)
        if quotas is not None:
            state.quotas[key] = TenantQuota(tenant=row.tenant, plugin=row.plugin, override=quotas)
        return saved

    async def of_tenant(self, tenant: str, plugins: Collection[str]) -> Sequence[TenantPlugin]:
        record_rules.check_storable({"tenant": tenant, "plugins": list(plugins)})
        state = await self._transaction.reading()
        found = [_row(state, tenant, plugin) for plugin in sorted(set(plugins))]
        return [row for row in found if row is not None]

    async def configured(self, plugin: str, after: str, limit: int) -> Sequence[tuple[str, dict[str, Any]]]:
        record_rules.check_storable({"plugin": plugin, "after": after})
        state = await self._transaction.reading()
        tenants = sorted(tenant for tenant, name in state.tenant_rows if name == plugin and tenant > after)
        rows = (_row(state, tenant, plugin) for tenant in tenants)
        found = [
            (row.tenant, row.configuration)
            for row in rows
            if row is not None and row.configuration is not None and row.pinned_version is None
        ]
        return found[:limit]

    async def sealed_otherwise(self, tenant: str, key_id: str, limit: int) -> Sequence[str]:
        record_rules.check_storable({"tenant": tenant, "keyId": key_id})
        state = await self._transaction.reading()
        found = [
            row.plugin
            for (owner, _), row in sorted(state.tenant_rows.items())
            if owner == tenant and any(secret.key_id != key_id for secret in row.secrets.values())
        ]
        return found[:limit]

    async def routes(self, plugins: Collection[str]) -> Sequence[RouteRecord]:
        record_rules.check_storable({"plugins": list(plugins)})
        state = await self._transaction.reading()
        ranked = sorted(state.environments.values(), key=lambda policy: policy.rank)
        found = [state.latest_route(policy.name, plugin) for plugin in sorted(set(plugins)) for policy in ranked]
        return [record for record in found if record is not None]

    async def worn(self, plugins: Collection[str]) -> Sequence[tuple[str, str, VersionStatus]]:
        record_rules.check_storable({"plugins": list(plugins)})
        worn = (VersionStatus.DEPRECATED, VersionStatus.ARCHIVED)
        versions = (await self._transaction.reading()).versions
        return [
            (*key, found.status)
            for key, found in sorted(versions.items())
            if key[0] in plugins and found.status in worn
        ]

    async def record(self, change: TenantChange) -> None:
        record_rules.storable(change, tenant_rules.CHANGE_LIMITS)
        state = await self._transaction.writing()
        if change.plugin not in state.plugins:
            raise record_rules.plugin_missing(change.plugin)
        state.tenant_changes[change.change_id] = _stored(change)
        for old in _newest(state, change.tenant, change.plugin)[HISTORY_KEPT:]:
            del state.tenant_changes[old.change_id]

    async def history(self, tenant: str, plugin: str, page: Page) -> tuple[Sequence[TenantChange], int]:
        record_rules.check_storable({"tenant": tenant, "plugin": plugin})
        return _slice(_newest(await self._transaction.reading(), tenant, plugin), page)


class MemoryDataKeyStore(_Store):
    async def lock(self, tenant: str) -> None:
        record_rules.check_storable({"tenant": tenant})
        await self._transaction.writing()

    async def current(self, tenant: str) -> DataKey | None:
        found = [key for key in await self.of_tenant(tenant) if key.retired_at is None]
        return found[-1] if found else None

    async def find(self, key_ids: Collection[str]) -> Sequence[DataKey]:
        record_rules.check_storable({"keyIds": list(key_ids)})
        state = await self._transaction.reading()
        return [state.data_keys[key_id] for key_id in sorted(set(key_ids)) if key_id in state.data_keys]

    async def of_tenant(self, tenant: str) -> Sequence[DataKey]:
        record_rules.check_storable({"tenant": tenant})
        state = await self._transaction.reading()
        found = [key for key in state.data_keys.values() if key.tenant == tenant]
        return sorted(found, key=lambda key: (key.created_at, key.key_id))

    async def page(self, after: str, limit: int) -> Sequence[DataKey]:
        record_rules.check_storable({"after": after})
        state = await self._transaction.reading()
        return [key for key_id, key in sorted(state.data_keys.items()) if key_id > after][:limit]

    async def add(self, key: DataKey) -> None:
        record_rules.storable(key, tenant_rules.KEY_LIMITS)
        state = await self._transaction.writing()
        if key.key_id in state.data_keys:
            raise tenant_rules.key_taken(key.key_id)
        state.data_keys[key.key_id] = _stored(key)

    async def rewrap(self, key: DataKey, wrapped_before: str) -> bool:
        record_rules.storable(key, tenant_rules.KEY_LIMITS)
        state = await self._transaction.writing()
        known = state.data_keys.get(key.key_id)
        if known is None or known.wrapped != wrapped_before:
            return False
        changed = {"wrapped": key.wrapped, "wrapped_by": key.wrapped_by}
        state.data_keys[key.key_id] = known.model_copy(update=changed)
        return True

    async def retire(self, key_ids: Collection[str], at: datetime) -> None:
        record_rules.check_storable({"keyIds": list(key_ids)})
        state = await self._transaction.writing()
        for key_id in key_ids:
            key = state.data_keys.get(key_id)
            if key is not None and key.retired_at is None:
                state.data_keys[key_id] = key.model_copy(update={"retired_at": at})

    async def delete_retired(self, tenant: str, before: datetime) -> int:
        state = await self._transaction.writing()
        old = [
            key.key_id for key in await self.of_tenant(tenant) if key.retired_at is not None and key.retired_at < before
        ]
        for key_id in old:
            del state.data_keys[key_id]
        return len(old)


class MemoryHealthStore(_Store):
    async def add(self, checks: Sequence[HealthCheck]) -> None:
        for check in checks:
            record_rules.storable(check, tenant_rules.CHECK_LIMITS)
        state = await self._transaction.writing()
        for check in checks:
            if check.plugin in state.plugins:
                kept = _stored(check).model_copy(update={"duration_ms": float(round(check.duration_ms))})
                state.health_checks.setdefault(check.check_id, kept)

    async def list(self, plugin: str, environment: str | None, page: Page) -> tuple[Sequence[HealthCheck], int]:
        record_rules.check_storable({"plugin": plugin, "environment": environment})
        state = await self._transaction.reading()
        found = [
            check
            for check in state.health_checks.values()
            if check.plugin == plugin and environment in (None, check.environment)
        ]
        return _slice(sorted(found, key=lambda one: (one.checked_at, one.check_id), reverse=True), page)

    async def forget(self, older_than: timedelta, most: int) -> int:
        state = await self._transaction.writing()
        oldest = self._transaction.instant() - older_than
        ordered = sorted(state.health_checks.values(), key=lambda one: one.checked_at)
        gone = [check.check_id for check in ordered if check.checked_at < oldest][:most]
        for check_id in gone:
            del state.health_checks[check_id]
        return len(gone)


def _row(state: RecordState, tenant: str, plugin: str) -> TenantPlugin | None:
    """With what PinStore and QuotaStore may have changed: in PostgreSQL it is the same row."""
    key = (tenant, plugin)
    row, pin, quota = state.tenant_rows.get(key), state.pins.get(key), state.quotas.get(key)
    if row is None and pin is None and quota is None:
        return None
    row = row or TenantPlugin(tenant=tenant, plugin=plugin)
    return row.model_copy(update={"pinned_version": pin, "quotas": quota.override if quota is not None else None})


def _newest(state: RecordState, tenant: str, plugin: str) -> list[TenantChange]:
    found = [one for one in state.tenant_changes.values() if (one.tenant, one.plugin) == (tenant, plugin)]
    return sorted(found, key=lambda one: (one.at, one.change_id), reverse=True)
