"""A tenant's plugins as clients write and read them. No shape that is answered can hold a secret's value."""

from typing import Any

from pydantic import Field, SecretStr, field_validator

from api.schemas.common import Line
from hotswap.domain.base import Instant, Model, PluginName
from hotswap.domain.deployment import Environment
from hotswap.domain.lifecycle import PluginStatus
from hotswap.domain.manifest import SemVer
from hotswap.domain.quota import QuotaOverride
from hotswap.domain.tenants import MAX_SECRET_BYTES


class ReasonIn(Model):
    """Body of .../enable and .../disable; may be left out."""

    reason: Line = Field(default="", max_length=2000)


class ConfigIn(Model):
    """Body of PUT .../config: the whole configuration, in place of the one before."""

    configuration: dict[str, Any] = Field(description="must fit the configurationSchema of what serves the tenant")
    reason: Line = Field(default="", max_length=2000)


class SecretIn(Model):
    """Body of PUT .../secrets/{name}."""

    value: SecretStr = Field(
        description=f"at most {MAX_SECRET_BYTES} bytes of UTF-8; never shown again",
        json_schema_extra={"minLength": 1, "maxLength": MAX_SECRET_BYTES},
    )

    @field_validator("value")
    @classmethod
    def _fits(cls, value: SecretStr) -> SecretStr:
        try:
            size = len(value.get_secret_value().encode())
        except UnicodeEncodeError:
            raise ValueError("must be valid UTF-8") from None
        if not 1 <= size <= MAX_SECRET_BYTES:
            raise ValueError(f"must be 1 to {MAX_SECRET_BYTES} bytes long")
        return value


class PinIn(Model):
    """Body of PUT .../pin."""

    version: SemVer
    reason: Line = Field(default="", max_length=2000)


class SecretOut(Model):
    """That there is one, and since when."""

    name: str
    updated_at: Instant


class ConfigOut(Model):
    configuration: dict[str, Any] | None
    secrets: tuple[SecretOut, ...]
    updated_at: Instant | None


class Serving(Model):
    """What serves the tenant in one environment. `movingTo`: some nodes of a rolling deployment serve that already."""

    environment: Environment
    version: SemVer | None
    moving_to: SemVer | None = None
    pinned: bool = False


class TenantPluginOut(Model):
    """What one tenant has of one plugin."""

    plugin_id: PluginName
    display_name: str
    plugin_status: PluginStatus
    enabled: bool
    pinned_version: SemVer | None
    serving: tuple[Serving, ...]
    quotas: QuotaOverride | None = Field(description="null: the platform's defaults")
    warnings: tuple[str, ...] = Field(description="of deprecated or archived versions that serve or are pinned")
    updated_at: Instant | None


class RotateIn(Model):
    """Body of .../keys/rotate; may be left out."""

    reason: Line = Field(default="", max_length=2000)


class RotateOut(Model):
    """A part of a rotation. Call again while `done` is false."""

    key_id: str = Field(description="the data key that seals from now on")
    rewrapped: int = Field(description="data keys that an older key of the provider had wrapped")
    resealed: int = Field(description="plugins whose secrets were sealed anew")
    done: bool


class RewrapIn(Model):
    after: str = Field(default="", max_length=255, pattern=r"^[!-~]*$", description="`next` of the answer before")
    limit: int = Field(default=100, ge=1, le=500)


class RewrapOut(Model):
    """`next` is null when every tenant's keys were looked at."""

    looked_at: int
    rewrapped: int
    next: str | None
