"""Tenants' quotas on PostgreSQL: hotswap.ports.quotas over tenant_plugin_configs.quotas."""

from collections.abc import Sequence

from sqlalchemy import extract, func, null, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import tenant_plugin_configs
from hotswap.domain.ids import derived_id
from hotswap.domain.quota import QuotaOverride, TenantQuota


class PostgresQuotaStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def set(self, tenant: str, plugin: str, override: QuotaOverride | None, by: str) -> None:
        rules.check_storable(
            {"tenant": tenant, "plugin": plugin, "by": by},
            {"tenant": rules.NAME, "plugin": rules.NAME, "by": rules.NAME},
        )
        table = tenant_plugin_configs
        if override is None:
            await self._session.run(
                update(table)
                .where(table.c.tenant_id == tenant, table.c.plugin_id == plugin)
                .values(quotas=null(), updated_at=func.clock_timestamp())
            )
            return
        row = insert(table).values(
            config_id=derived_id("cfg", tenant, plugin),
            tenant_id=tenant,
            plugin_id=plugin,
            quotas=override.model_dump(mode="json", exclude_none=True),
            enabled_by=by,
        )
        await self._session.run_guarded(
            row.on_conflict_do_update(
                index_elements=["tenant_id", "plugin_id"],
                set_={"quotas": row.excluded.quotas, "updated_at": func.clock_timestamp()},
            ),
            foreign=rules.plugin_missing(plugin),
        )

    async def stamp(self) -> str:
        # A sum, not a maximum: a transaction that began earlier may commit later, with an older instant.
        table = tenant_plugin_configs
        row = await self._session.first(
            select(func.count().label("rows"), func.sum(extract("epoch", table.c.updated_at)).label("instants")).where(
                table.c.quotas.is_not(None)
            )
        )
        assert row is not None
        return f"{row.rows}/{row.instants}"

    async def list(self, after: tuple[str, str] | None = None, limit: int = 500) -> Sequence[TenantQuota]:
        table = tenant_plugin_configs
        key = tuple_(table.c.tenant_id, table.c.plugin_id)
        query = (
            select(table.c.tenant_id, table.c.plugin_id, table.c.quotas)
            .where(table.c.quotas.is_not(None))
            .order_by(table.c.tenant_id, table.c.plugin_id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(key > after)
        rows = await self._session.all(query)
        return [TenantQuota.read(row.tenant_id, row.plugin_id, row.quotas) for row in rows]
