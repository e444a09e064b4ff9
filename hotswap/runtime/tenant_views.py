"""What a host knows of its tenants: the SETTINGS frames of its node as views for the plugin's context. Host side, used by
hotswap.runtime.host_server; hotswap.runtime.tenant_ledger at the node decides what is here. Standard library only.
"""

from typing import Any

from hotswap.runtime import protocol
from hotswap_plugin.settings import TenantView


class TenantViews:
    """A tenant without settings of its own has the manifest's defaults; one with some has the defaults it does not set."""

    def __init__(self, secrets_granted: bool) -> None:
        self._secrets_granted = secrets_granted
        self._defaults: dict[str, Any] = {}
        self._views: dict[str, TenantView] = {}
        self._without = self._view(0, {}, {})

    def of(self, tenant: str) -> TenantView:
        return self._views.get(tenant) or self._without

    def take(self, payload: bytes) -> None:
        """Obey one frame. A call that runs keeps the view it has. Raises FrameError."""
        settings = protocol.decode_settings(payload)
        if not settings.tenant:  # comes first, before any tenant's
            self._defaults = settings.config or {}
            self._without = self._view(0, {}, {})
        elif settings.config is None:
            self._views.pop(settings.tenant, None)
        else:
            self._views[settings.tenant] = self._view(settings.version, settings.config, settings.secrets)

    def _view(self, version: int, config: dict[str, Any], secrets: dict[str, str]) -> TenantView:
        return TenantView(version, {**self._defaults, **config}, secrets if self._secrets_granted else None)
