"""Which tenants' settings one host holds, and the frames that keep that right. Node side; used by hotswap.runtime.handle.

Before a tenant's call goes out the host has that tenant's present settings: frames keep their order. So a change holds from
the next call on, with no restart, and a call that runs keeps what it began with. What a host holds is bounded: past it the
tenants given longest ago are taken back, and given again with their next call.
"""

from hotswap.domain.permissions import SECRETS_READ
from hotswap.ports.hosts import HostSpec
from hotswap.ports.tenant_settings import TenantSettings, TenantSettingsProvider
from hotswap.runtime import protocol
from hotswap.runtime.masking import SecretMask

MAX_HELD_BYTES = 4 * 1024 * 1024
"""Settings held by one host, as JSON; parsed they take about five times as much of the plugin's memory."""
_SHARE_OF_MEMORY = 32
MIB = 1024 * 1024


class TenantLedger:
    """One host's. Its secrets are known to `mask` before the host has them."""

    def __init__(self, spec: HostSpec, provider: TenantSettingsProvider, mask: SecretMask) -> None:
        self._plugin = spec.plugin
        self._current = provider.current
        self._secrets_granted = SECRETS_READ in spec.permissions
        self._mask = mask
        whole = min(MAX_HELD_BYTES, spec.resources.memory_mb * MIB // _SHARE_OF_MEMORY)
        self._max_bytes = whole // (1 + spec.lines)  # each line of a host has settings of its own
        self._held: dict[str, TenantSettings] = {}
        self._sizes: dict[str, int] = {}
        self._bytes = 0

    def before_call(self, tenant: str) -> bytes:
        """The frames to send ahead of a call of this tenant; nearly always none."""
        settings = self._current(tenant, self._plugin)
        return b"" if settings is self._held.get(tenant) else self._bring(tenant, settings)

    def _bring(self, tenant: str, settings: TenantSettings | None) -> bytes:
        self._drop(tenant)
        if settings is None:
            return protocol.encode_settings(tenant, 0, None, {})
        secrets = settings.secrets if self._secrets_granted else {}
        self._mask.add(secrets.values())
        frames = [protocol.encode_settings(tenant, settings.version, settings.config, secrets)]
        self._held[tenant] = settings
        self._sizes[tenant] = len(frames[0])
        self._bytes += len(frames[0])
        while self._bytes > self._max_bytes and len(self._held) > 1:
            oldest = next(iter(self._held))
            self._drop(oldest)
            frames.append(protocol.encode_settings(oldest, 0, None, {}))
        return b"".join(frames)

    def _drop(self, tenant: str) -> None:
        if self._held.pop(tenant, None) is not None:
            self._bytes -= self._sizes.pop(tenant)
