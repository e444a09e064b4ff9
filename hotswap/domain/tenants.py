"""What is kept of a tenant's use of a plugin: enabled or not, pin, configuration, sealed secrets, quotas; and who changed it.

Rows as frozen facts. Neighbours: hotswap.ports.tenants keeps them, hotswap.keys seals and opens secrets.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from hotswap.domain.base import Instant, Model, PluginName, TenantId
from hotswap.domain.manifest import SemVer
from hotswap.domain.quota import QuotaOverride

SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]

MAX_SECRETS = 100
"""Secrets of one tenant for one plugin."""

MAX_SECRET_BYTES = 64 * 1024
"""A certificate chain with its key is 10 KiB."""


class SealedSecret(Model):
    """AES-256-GCM under a data key of the tenant's; `sealed` is base64 of nonce, ciphertext and tag."""

    key_id: str = Field(min_length=1, max_length=64)
    sealed: str = Field(min_length=1)
    updated_at: Instant
    json_bytes: int = Field(default=0, ge=0, description="of the plain text as JSON, for the bound of all of them")


class TenantPlugin(Model):
    """One row of tenant_plugin_configs. A tenant without a row has the defaults below."""

    tenant: TenantId
    plugin: PluginName
    enabled: bool = True
    pinned_version: SemVer | None = None
    configuration: dict[str, Any] | None = None
    secrets: dict[str, SealedSecret] = Field(default_factory=dict)
    quotas: QuotaOverride | None = None
    updated_at: Instant | None = Field(default=None, description="None: never changed")


class DataKey(Model):
    """A key that seals one tenant's secrets, itself wrapped by the platform's key provider."""

    key_id: str
    tenant: TenantId
    wrapped: str = Field(description="as the provider gave it")
    wrapped_by: str = Field(description="id of the provider's key")
    created_at: Instant
    retired_at: Instant | None = Field(default=None, description="nothing is sealed with it any more since then")


class ChangeKind(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"
    CONFIGURED = "configured"
    SECRET_SET = "secret-set"  # noqa: S105 - a kind of change, not a secret
    SECRET_DELETED = "secret-deleted"  # noqa: S105
    PINNED = "pinned"
    UNPINNED = "unpinned"
    QUOTAS_SET = "quotas-set"


class TenantChange(Model):
    """One entry of a tenant's history for a plugin. Of a secret it says which and when, never what."""

    change_id: str
    tenant: TenantId
    plugin: PluginName
    kind: ChangeKind
    by: str
    reason: str = ""
    before: dict[str, Any] = Field(default_factory=dict)
    after: dict[str, Any] = Field(default_factory=dict)
    trace_id: str = ""
    at: Instant
