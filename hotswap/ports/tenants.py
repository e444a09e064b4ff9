"""What is kept of tenants' plugins, their data keys and the health of plugins: stores of `UnitOfWork` (ports.records)."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from hotswap.domain.lifecycle import VersionStatus
from hotswap.domain.plugin_health import HealthCheck
from hotswap.domain.registry import Page
from hotswap.domain.routes import RouteRecord
from hotswap.domain.tenants import DataKey, TenantChange, TenantPlugin

HISTORY_KEPT = 200
"""Changes of one (tenant, plugin) that are kept; older ones go when a new one comes."""


class TenantStore(Protocol):
    async def find(self, tenant: str, plugin: str) -> TenantPlugin | None: ...

    async def hold(self, tenant: str, plugin: str, by: str) -> TenantPlugin:
        """The row, made if there is none, locked until the transaction ends. Raises NotFound without the plugin."""
        ...

    async def save(self, row: TenantPlugin) -> TenantPlugin:
        """Replace a held row; the server's clock sets `updated_at`. Raises NotFound for an unknown pinned version."""
        ...

    async def of_tenant(self, tenant: str, plugins: Collection[str]) -> Sequence[TenantPlugin]:
        """The tenant's rows for these plugins, by plugin."""
        ...

    async def configured(self, plugin: str, after: str, limit: int) -> Sequence[tuple[str, dict[str, Any]]]:
        """(tenant, configuration) of tenants past `after`, by tenant, that have one and are not pinned to a version."""
        ...

    async def sealed_otherwise(self, tenant: str, key_id: str, limit: int) -> Sequence[str]:
        """Plugins of the tenant, in order, with a secret that another data key than this one sealed."""
        ...

    async def routes(self, plugins: Collection[str]) -> Sequence[RouteRecord]:
        """The highest generation of each (environment, plugin)."""
        ...

    async def worn(self, plugins: Collection[str]) -> Sequence[tuple[str, str, VersionStatus]]:
        """(plugin, version, status) of versions that are Deprecated or Archived."""
        ...

    async def record(self, change: TenantChange) -> None:
        """Append to the history; the oldest beyond HISTORY_KEPT go."""
        ...

    async def history(self, tenant: str, plugin: str, page: Page) -> tuple[Sequence[TenantChange], int]:
        """Newest first, and the total."""
        ...


class DataKeyStore(Protocol):
    async def lock(self, tenant: str) -> None:
        """Take turns with whoever else makes or retires keys of the tenant, until the transaction ends."""
        ...

    async def current(self, tenant: str) -> DataKey | None:
        """The newest that is not retired."""
        ...

    async def find(self, key_ids: Collection[str]) -> Sequence[DataKey]: ...

    async def of_tenant(self, tenant: str) -> Sequence[DataKey]:
        """Oldest first, the retired ones included."""
        ...

    async def page(self, after: str, limit: int) -> Sequence[DataKey]:
        """Every tenant's keys by id, those past `after`."""
        ...

    async def add(self, key: DataKey) -> None:
        """Raises Conflict when the id is taken."""
        ...

    async def rewrap(self, key: DataKey, wrapped_before: str) -> bool:
        """Replace how it is wrapped, unless somebody else did meanwhile (then False)."""
        ...

    async def retire(self, key_ids: Collection[str], at: datetime) -> None:
        """Mark those that are not marked yet."""
        ...

    async def delete_retired(self, tenant: str, before: datetime) -> int:
        """Forget the tenant's keys that were retired before this instant; how many."""
        ...


class HealthStore(Protocol):
    """Rows of plugin_health_checks."""

    async def add(self, checks: Sequence[HealthCheck]) -> None:
        """Append. A check of a plugin that is gone by now is left out; a repeat of an id changes nothing."""
        ...

    async def list(self, plugin: str, environment: str | None, page: Page) -> tuple[Sequence[HealthCheck], int]:
        """Newest first, and the total."""
        ...

    async def forget(self, older_than: timedelta, most: int) -> int:
        """Delete at most so many rows of that age; how many."""
        ...
