"""What the registry and the record hold: plugins, versions, nodes, approvals, audit. Rows as frozen facts."""

from typing import Any

from pydantic import Field

from hotswap.domain.base import BoundedText, Digest, Instant, Model, PluginName
from hotswap.domain.deployment import Environment, Role, Strategy
from hotswap.domain.lifecycle import PluginStatus, VersionStatus
from hotswap.domain.manifest import Manifest, PluginType, SemVer
from hotswap.domain.routes import ArtifactRef
from hotswap.domain.signatures import Signature


class Plugin(Model):
    """A registered plugin. Its id is its name (docs/adr): one word in URLs, keys, routes and logs."""

    name: PluginName
    display_name: str = Field(min_length=1, max_length=255)
    description: str = Field(default="", max_length=4000)
    type: PluginType = PluginType.OTHER
    status: PluginStatus = PluginStatus.DRAFT
    current_version: SemVer | None = Field(default=None, description="highest version registered")
    author: str = Field(default="", max_length=255)
    documentation_url: str = Field(default="", max_length=2000)
    tags: tuple[str, ...] = ()
    deprecation_reason: str = Field(default="", max_length=2000, description="why Deprecated, while it is")
    created_at: Instant
    updated_at: Instant


class PluginVersion(Model):
    """One immutable version: a zip in the object store, known by its digest."""

    plugin: PluginName
    version: SemVer
    release_notes: str = Field(default="", max_length=20_000)
    manifest: Manifest
    digest: Digest
    size_bytes: int = Field(ge=1)
    status: VersionStatus = VersionStatus.APPROVED
    is_breaking_change: bool = Field(default=False, description="against the release before it, found at upload")
    breaking_changes: tuple[str, ...] = Field(default=(), description="what breaks callers, one sentence each")
    signature: Signature | None = Field(default=None, description="over the digest, by a registered publisher")
    created_by: str
    created_at: Instant
    approved_by: str | None = None
    approved_at: Instant | None = None
    deprecated_at: Instant | None = None
    deprecation_reason: str = ""
    archived_at: Instant | None = None
    artifact_removed_at: Instant | None = Field(default=None, description="when retention took the zip away")

    @property
    def ref(self) -> ArtifactRef:
        return ArtifactRef(plugin=self.plugin, version=self.version, digest=self.digest, size_bytes=self.size_bytes)


class EnvironmentPolicy(Model):
    """What an environment asks of a deployment (table `environments`)."""

    name: Environment
    rank: int = Field(description="order of promotion, Development = 0")
    default_strategy: Strategy
    required_approvals: int = Field(ge=0)
    require_admin_approval: bool = False


class NodeRecord(Model):
    """A node as it last told. `boot_id` changes with every start of its process."""

    node_id: str
    environment: Environment
    boot_id: str
    router_url: str
    admin_url: str
    sandbox_tier: str
    last_seen_at: Instant


class Approval(Model):
    """One person's decision on one plan of one deployment; void for any other digest or plan hash."""

    deployment_id: str
    approver: str
    roles: tuple[Role, ...]
    decision: str = Field(description="Approved or Rejected")
    comment: BoundedText = ""
    digest: str
    plan_hash: str
    decided_at: Instant


class AuditEntry(Model):
    """Who did what to what, and from where. `details` says why (`reason`) and what it was before and after. Append-only."""

    event_type: str
    entity_type: str
    entity_id: str
    user: str
    details: dict[str, Any] = Field(default_factory=dict)
    trace_id: str = ""
    address: str = Field(default="", description="of the caller, as the api saw it; empty: not by way of the api")
    at: Instant


class Page(Model):
    """Which slice of a list: 1 to 100 rows from `offset`."""

    limit: int = Field(default=20, ge=1, le=100)
    offset: int = Field(default=0, ge=0, le=1_000_000)
