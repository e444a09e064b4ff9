"""Tenants' settings in memory: the twin of hotswap.adapters.postgres.tenant_settings, for tests and local runs."""

from collections.abc import Mapping
from typing import Any

from hotswap.ports.tenant_settings import TenantSettings


class MemoryTenantSettings:
    """A TenantSettingsProvider. What is `put` counts at once."""

    def __init__(self) -> None:
        self._settings: dict[tuple[str, str], TenantSettings] = {}
        self._version = 0
        self.disabled: set[tuple[str, str]] = set()

    def put(
        self, tenant: str, plugin: str, config: Mapping[str, Any], secrets: Mapping[str, str] | None = None
    ) -> None:
        """Replace what the tenant has."""
        self._version += 1
        self._settings[tenant, plugin] = TenantSettings(self._version, dict(config), dict(secrets or {}))

    def remove(self, tenant: str, plugin: str) -> None:
        self._settings.pop((tenant, plugin), None)

    def current(self, tenant: str, plugin: str) -> TenantSettings | None:
        return self._settings.get((tenant, plugin))

    async def ensure(self, plugin: str) -> None:
        """Nothing to fetch."""

    async def refresh(self) -> None:
        """Nothing to fetch."""
