"""Tenants' quotas on record: the store behind `UnitOfWork.quotas`. What they mean is hotswap.domain.quota's to say."""

from collections.abc import Sequence
from typing import Protocol

from hotswap.domain.quota import QuotaOverride, TenantQuota


class QuotaStore(Protocol):
    """Tenant rows of tenant_plugin_configs, as far as quotas need them."""

    async def set(self, tenant: str, plugin: str, override: QuotaOverride | None, by: str) -> None:
        """Give the tenant its own limits for the plugin, or with None the defaults again. Raises NotFound without the plugin."""
        ...

    async def stamp(self) -> str:
        """Opaque; another one whenever the limits of any tenant have changed. Cheap enough to ask every few seconds."""
        ...

    async def list(self, after: tuple[str, str] | None = None, limit: int = 500) -> Sequence[TenantQuota]:
        """Rows with limits of their own, by (tenant, plugin), those past `after`. One that cannot be read carries its fault."""
        ...
