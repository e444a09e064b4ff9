"""The registry and the record behind one transaction: the port of PostgreSQL (hotswap.adapters.postgres) and its twin.

Use: `async with uow_factory() as uow: ...; await uow.commit()`. Leaving without commit undoes everything.
Every method raises Unavailable when the server does not answer (a repeat helps).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, Self

from hotswap.domain.base import Model
from hotswap.domain.deployment import DeploymentProgress, Environment, TimelineEvent
from hotswap.domain.lifecycle import DeploymentStatus, PluginStatus, VersionStatus
from hotswap.domain.registry import (
    Approval,
    EnvironmentPolicy,
    NodeRecord,
    Page,
    Plugin,
    PluginVersion,
)
from hotswap.domain.routes import ArtifactRef, DesiredRoute, RouteRecord, RouteState
from hotswap.ports.accounts import ServiceTokenStore, SessionStore, SigningKeyStore, TenantTokenStore, UserStore
from hotswap.ports.aftercare import DriftStore, HeldVersionStore
from hotswap.ports.audit import AuditStore
from hotswap.ports.dependencies import DependencyStore
from hotswap.ports.freezes import FreezeStore
from hotswap.ports.notifications import NotificationStore
from hotswap.ports.pipelines import PipelineStore
from hotswap.ports.quotas import QuotaStore
from hotswap.ports.sandbox_records import SandboxStore
from hotswap.ports.signatures import PublisherKeyStore
from hotswap.ports.tenants import DataKeyStore, HealthStore, TenantStore
from hotswap.ports.uploads import PendingUploadStore


class PluginFilter(Model):
    type: str | None = None
    status: PluginStatus | None = None
    tags: tuple[str, ...] = ()
    search: str | None = None


class DeploymentFilter(Model):
    plugin: str | None = None
    environment: Environment | None = None
    status: DeploymentStatus | None = None


class DeploymentRow(Model):
    """A projected deployment with the handle of its workflow."""

    progress: DeploymentProgress
    config: dict[str, Any]
    workflow_id: str
    run_id: str


class StoredAnswer(Model):
    """The answer an Idempotency-Key got the first time."""

    request_hash: str
    status_code: int
    body: dict[str, Any]


class PluginStore(Protocol):
    async def add(self, plugin: Plugin) -> None:
        """Raises Conflict when the name is taken."""
        ...

    async def get(self, name: str) -> Plugin:
        """Raises NotFound."""
        ...

    async def list(self, where: PluginFilter, page: Page) -> tuple[Sequence[Plugin], int]:
        """A slice ordered by name, and the total."""
        ...

    async def save(self, plugin: Plugin) -> None:
        """Replace the row. Raises NotFound."""
        ...

    async def delete(self, name: str) -> None:
        """Raises NotFound, or Conflict while a route or a deployment names it."""
        ...


class VersionStore(Protocol):
    async def add(self, version: PluginVersion) -> None:
        """Raises Conflict when (plugin, version) is there already, NotFound without the plugin. Raises plugin.current_version."""
        ...

    async def get(self, plugin: str, version: str) -> PluginVersion:
        """Raises NotFound."""
        ...

    async def list(self, plugin: str, page: Page) -> tuple[Sequence[PluginVersion], int]:
        """Newest SemVer first, and the total. Raises NotFound without the plugin."""
        ...

    async def move(self, version: PluginVersion, expected: VersionStatus) -> None:
        """Store status, signature, and who changed what when; all else never changes.

        Raises NotFound, and Conflict when the row is not `expected` any more: somebody else moved it first.
        """
        ...

    async def before(self, plugin: str, version: str) -> PluginVersion | None:
        """The highest release below `version` by SemVer; without a release the highest pre-release below it."""
        ...

    async def archived(self, limit: int) -> Sequence[PluginVersion]:
        """Archived versions whose artifact is still kept, longest archived first."""
        ...

    async def signed_by(self, key_id: str, limit: int) -> Sequence[PluginVersion]:
        """Versions whose signature is by this key, by plugin, newest first."""
        ...


class DeploymentStore(Protocol):
    async def open(self, row: DeploymentRow) -> None:
        """Insert once; a repeat with the same deployment id changes nothing (workflow and facade both call it)."""
        ...

    async def project(self, progress: DeploymentProgress, events: Sequence[TimelineEvent]) -> None:
        """Store the newer progress (an older `sequence` is ignored) and append events not there yet."""
        ...

    async def get(self, deployment_id: str) -> DeploymentRow:
        """Raises NotFound."""
        ...

    async def list(self, where: DeploymentFilter, page: Page) -> tuple[Sequence[DeploymentRow], int]:
        """Newest first, and the total."""
        ...

    async def unfinished(self, environment: str, plugin: str) -> Sequence[DeploymentRow]:
        """Those of one place that have not ended, oldest request first: the one that runs and those that wait."""
        ...

    async def standing(self) -> Mapping[tuple[str, str], int]:
        """How many have not ended, by environment and status; pairs without any are left out."""
        ...

    async def hand_over(self, deployment_id: str, workflow_id: str, run_id: str) -> None:
        """Another workflow carries the deployment on: commands go there from now on. Raises NotFound."""
        ...

    async def events(self, deployment_id: str, after: int = 0, limit: int = 500) -> Sequence[TimelineEvent]:
        """Events with a sequence above `after`, in order."""
        ...


class RouteStore(Protocol):
    async def current(self, environment: str, plugin: str) -> RouteRecord | None:
        """The highest generation, or None before the first deployment."""
        ...

    async def write(
        self, environment: str, plugin: str, expected_generation: int, state: RouteState, deployment_id: str
    ) -> RouteRecord:
        """Compare and set: append generation `expected_generation + 1`.

        A repeat of the same write (same deployment, same state) returns the row it made the first time.
        Raises StaleGeneration when another writer came first.
        """
        ...

    async def desired(self, environment: str) -> Sequence[DesiredRoute]:
        """What every node of the environment should run now, pins included; plugins with an empty state left out."""
        ...

    async def history(self, environment: str, plugin: str, page: Page) -> tuple[Sequence[RouteRecord], int]:
        """Newest generation first, and the total."""
        ...


class NodeStore(Protocol):
    async def register(self, node: NodeRecord) -> None:
        """Insert, or replace the node of the same id (a restart has a new boot_id)."""
        ...

    async def beat(self, node_id: str, boot_id: str) -> bool:
        """Note that the node lives, by the server's clock. False when the row holds another boot (or none)."""
        ...

    async def list(self, environment: str | None, seen_within: timedelta | None) -> Sequence[NodeRecord]:
        """Nodes by id; with `seen_within`, only those whose last beat is that recent by the server's clock."""
        ...

    async def remove(self, node_id: str, boot_id: str) -> None:
        """Forget a node that left in order. A row of another boot stays: that one took its place. Unknown ids are fine."""
        ...


class ApprovalStore(Protocol):
    async def record(self, approval: Approval) -> None:
        """Append; a repeat by the same person for the same deployment and plan hash changes nothing."""
        ...

    async def list(self, deployment_id: str) -> Sequence[Approval]: ...


class EnvironmentStore(Protocol):
    async def get(self, name: str) -> EnvironmentPolicy:
        """Raises NotFound."""
        ...

    async def list(self) -> Sequence[EnvironmentPolicy]: ...


class PinStore(Protocol):
    """Tenant rows of tenant_plugin_configs, as far as routing needs them."""

    async def pin(self, tenant: str, plugin: str, version: str | None, by: str) -> None:
        """Pin the tenant to a version, or with None take the pin away. Raises NotFound for an unknown version."""
        ...

    async def pins(self, plugin: str) -> dict[str, ArtifactRef]: ...

    async def tenants(self, plugin: str) -> Sequence[str]:
        """Tenants on record for this plugin, pinned or not, by name."""
        ...


class IdempotencyStore(Protocol):
    async def find(self, user: str, operation: str, key: str) -> StoredAnswer | None: ...

    async def keep(self, user: str, operation: str, key: str, answer: StoredAnswer) -> None:
        """Keep the first answer; a repeat changes nothing. Rows older than 24 h may go."""
        ...


class UnitOfWork(Protocol):
    """One transaction over all stores."""

    @property
    def plugins(self) -> PluginStore: ...
    @property
    def versions(self) -> VersionStore: ...
    @property
    def deployments(self) -> DeploymentStore: ...
    @property
    def routes(self) -> RouteStore: ...
    @property
    def nodes(self) -> NodeStore: ...
    @property
    def approvals(self) -> ApprovalStore: ...
    @property
    def audit(self) -> AuditStore: ...
    @property
    def environments(self) -> EnvironmentStore: ...
    @property
    def pins(self) -> PinStore: ...
    @property
    def idempotency(self) -> IdempotencyStore: ...
    @property
    def held(self) -> HeldVersionStore: ...
    @property
    def drift(self) -> DriftStore: ...
    @property
    def freezes(self) -> FreezeStore: ...
    @property
    def pipelines(self) -> PipelineStore: ...
    @property
    def quotas(self) -> QuotaStore: ...
    @property
    def sandboxes(self) -> SandboxStore: ...
    @property
    def tenants(self) -> TenantStore: ...
    @property
    def data_keys(self) -> DataKeyStore: ...
    @property
    def health(self) -> HealthStore: ...
    @property
    def users(self) -> UserStore: ...
    @property
    def sessions(self) -> SessionStore: ...
    @property
    def service_tokens(self) -> ServiceTokenStore: ...
    @property
    def tenant_tokens(self) -> TenantTokenStore: ...
    @property
    def signing_keys(self) -> SigningKeyStore: ...
    @property
    def dependencies(self) -> DependencyStore: ...
    @property
    def publisher_keys(self) -> PublisherKeyStore: ...
    @property
    def uploads(self) -> PendingUploadStore: ...
    @property
    def notifications(self) -> NotificationStore: ...

    async def now(self) -> datetime:
        """The server's clock, aware."""
        ...

    async def commit(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


UnitOfWorkFactory = Callable[[], UnitOfWork]
