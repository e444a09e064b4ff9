"""Tenants' quotas in memory: the twin of hotswap.adapters.postgres.quotas."""

from collections.abc import Sequence

from hotswap.adapters import record_rules as rules
from hotswap.adapters.memory.record_stores import _Store
from hotswap.domain.quota import QuotaOverride, TenantQuota


class MemoryQuotaStore(_Store):
    async def set(self, tenant: str, plugin: str, override: QuotaOverride | None, by: str) -> None:
        rules.check_storable(
            {"tenant": tenant, "plugin": plugin, "by": by},
            {"tenant": rules.NAME, "plugin": rules.NAME, "by": rules.NAME},
        )
        state = await self._transaction.writing()
        if override is None:
            state.quotas.pop((tenant, plugin), None)
        elif plugin not in state.plugins:
            raise rules.plugin_missing(plugin)
        else:
            state.tenants[(tenant, plugin)] = None
            state.quotas[(tenant, plugin)] = TenantQuota(tenant=tenant, plugin=plugin, override=override)

    async def stamp(self) -> str:
        return str(hash(frozenset((await self._transaction.reading()).quotas.values())))

    async def list(self, after: tuple[str, str] | None = None, limit: int = 500) -> Sequence[TenantQuota]:
        quotas = (await self._transaction.reading()).quotas
        return [quota for key, quota in sorted(quotas.items()) if after is None or key > after][:limit]
