"""What one tenant may ask of one plugin: the limits of specification section 7, and a row's own ones over the defaults.

Pure. hotswap.node.quotas meters them on a node; rows come from tenant_plugin_configs.quotas.
"""

from typing import Any

from pydantic import Field, ValidationError

from hotswap.domain.base import Model

MAX_REQUESTS_PER_MINUTE = 100_000_000
MAX_CONCURRENT = 100_000
MAX_MEMORY_MB = 1024 * 1024


class Quota(Model):
    """Enforced by each node for itself: with N nodes behind a balancer a tenant gets up to N times as much."""

    requests_per_minute: int = Field(default=100, ge=1, le=MAX_REQUESTS_PER_MINUTE)
    """A bucket of that many, filled evenly within a minute."""
    concurrent: int = Field(default=10, ge=1, le=MAX_CONCURRENT)
    execution_seconds: float = Field(default=30.0, ge=0.001, le=3600)
    """Longest call; a node's own invoke timeout holds too."""
    memory_mb: int = Field(default=512, ge=1, le=MAX_MEMORY_MB)
    """Bytes of its calls under way that a node may have to hold: bodies, and the largest reply for each."""


class QuotaOverride(Model):
    """A row's own limits; what it leaves out is the node's default."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=MAX_REQUESTS_PER_MINUTE)
    concurrent: int | None = Field(default=None, ge=1, le=MAX_CONCURRENT)
    execution_seconds: float | None = Field(default=None, ge=0.001, le=3600)
    memory_mb: int | None = Field(default=None, ge=1, le=MAX_MEMORY_MB)

    def over(self, default: Quota) -> Quota:
        """The default with what this names in its place."""
        return default.model_copy(update=self.model_dump(by_alias=False, exclude_none=True))


class TenantQuota(Model):
    """One row's limits. `fault` says why a row that somebody else wrote cannot be used; the default holds then."""

    tenant: str
    plugin: str
    override: QuotaOverride = QuotaOverride()
    fault: str = ""

    @classmethod
    def read(cls, tenant: str, plugin: str, quotas: Any) -> "TenantQuota":
        """From a row's JSON, which may hold anything."""
        try:
            return cls(tenant=tenant, plugin=plugin, override=QuotaOverride.model_validate(quotas))
        except ValidationError as fault:
            first = fault.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "quotas"
            return cls(tenant=tenant, plugin=plugin, fault=f"{where}: {first['msg']}")
