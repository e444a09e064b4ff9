"""Everything that MemoryRecords holds, as dictionaries of frozen values: copying it is copying the dictionaries."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Self

from hotswap.domain.accounts import LoginSession, ServiceToken, SigningKey, TenantToken, User
from hotswap.domain.audit import Checkpoint, Seal
from hotswap.domain.deployment import Environment, Strategy, TimelineEvent
from hotswap.domain.drift import DriftReport
from hotswap.domain.freeze import Freeze
from hotswap.domain.holds import HeldVersion
from hotswap.domain.notices import Notice
from hotswap.domain.notification_rules import Delivery, StoredRule
from hotswap.domain.plugin_health import HealthCheck
from hotswap.domain.quota import TenantQuota
from hotswap.domain.registry import Approval, AuditEntry, EnvironmentPolicy, NodeRecord, Plugin, PluginVersion
from hotswap.domain.routes import RouteRecord
from hotswap.domain.sandbox import SandboxExecution, SandboxSession
from hotswap.domain.signatures import PublisherKey
from hotswap.domain.tenants import DataKey, TenantChange, TenantPlugin
from hotswap.domain.uploads import PendingUpload
from hotswap.ports.pipelines import PipelineRow
from hotswap.ports.records import DeploymentRow, StoredAnswer

_SEEDED = (
    EnvironmentPolicy(name=Environment.DEVELOPMENT, rank=0, default_strategy=Strategy.DIRECT, required_approvals=0),
    EnvironmentPolicy(name=Environment.QA, rank=1, default_strategy=Strategy.ROLLING, required_approvals=1),
    EnvironmentPolicy(name=Environment.STAGING, rank=2, default_strategy=Strategy.ROLLING, required_approvals=1),
    EnvironmentPolicy(
        name=Environment.PRODUCTION,
        rank=3,
        default_strategy=Strategy.CANARY,
        required_approvals=2,
        require_admin_approval=True,
    ),
)
"""The same four rows that migration 0001 writes; the contract suite compares them."""


@dataclass(frozen=True)
class KeptNotice:
    notice: Notice
    announced_at: datetime
    routed: bool = False


@dataclass
class RecordState:
    environments: dict[str, EnvironmentPolicy] = field(default_factory=dict)
    plugins: dict[str, Plugin] = field(default_factory=dict)
    versions: dict[tuple[str, str], PluginVersion] = field(default_factory=dict)
    deployments: dict[str, DeploymentRow] = field(default_factory=dict)
    events: dict[tuple[str, int], TimelineEvent] = field(default_factory=dict)
    routes: dict[tuple[str, str, int], RouteRecord] = field(default_factory=dict)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    approvals: dict[tuple[str, str, str], Approval] = field(default_factory=dict)
    audit: dict[int, AuditEntry] = field(default_factory=dict)
    seals: dict[int, Seal] = field(default_factory=dict)
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    notices: dict[str, KeptNotice] = field(default_factory=dict)
    notification_rules: dict[str, StoredRule] = field(default_factory=dict)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    pins: dict[tuple[str, str], str] = field(default_factory=dict)
    answers: dict[tuple[str, str, str], tuple[StoredAnswer, datetime]] = field(default_factory=dict)
    held: dict[tuple[str, str, str], HeldVersion] = field(default_factory=dict)
    drift: dict[str, DriftReport] = field(default_factory=dict)
    freezes: dict[str, Freeze] = field(default_factory=dict)
    pipelines: dict[str, PipelineRow] = field(default_factory=dict)
    quotas: dict[tuple[str, str], TenantQuota] = field(default_factory=dict)
    sandboxes: dict[str, SandboxSession] = field(default_factory=dict)
    executions: dict[str, SandboxExecution] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, LoginSession] = field(default_factory=dict)
    service_tokens: dict[str, ServiceToken] = field(default_factory=dict)
    tenant_tokens: dict[str, TenantToken] = field(default_factory=dict)
    keys: dict[str, SigningKey] = field(default_factory=dict)
    tenants: dict[tuple[str, str], None] = field(default_factory=dict)
    publisher_keys: dict[str, PublisherKey] = field(default_factory=dict)
    uploads: dict[str, PendingUpload] = field(default_factory=dict)
    tenant_rows: dict[tuple[str, str], TenantPlugin] = field(default_factory=dict)
    tenant_changes: dict[str, TenantChange] = field(default_factory=dict)
    data_keys: dict[str, DataKey] = field(default_factory=dict)
    health_checks: dict[str, HealthCheck] = field(default_factory=dict)

    @classmethod
    def seeded(cls) -> Self:
        return cls(environments={policy.name: policy for policy in _SEEDED})

    def copy(self) -> Self:
        return type(self)(**{item.name: dict(getattr(self, item.name)) for item in fields(self)})

    def latest_route(self, environment: str, plugin: str) -> RouteRecord | None:
        generations = [key[2] for key in self.routes if key[:2] == (environment, plugin)]
        return self.routes[(environment, plugin, max(generations))] if generations else None
