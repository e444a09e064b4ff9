"""What routes are given: the container of services, the caller, the Idempotency-Key, identifiers out of the path.

Neighbours: api.app fills the container, api.security knows the caller.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Path, Request

from activities.retention import Retention, SweepOrder, SweepReport
from api.metrics import ApiMetrics
from api.services.accounts import AccountService
from api.services.actor import Actor
from api.services.aftercare import DriftDesk, DriftService
from api.services.approvals import ApprovalService
from api.services.audit import AuditService
from api.services.authentication import AuthenticationService
from api.services.commands import CommandService
from api.services.dependency_desk import DependencyDesk
from api.services.deployments import DeploymentService
from api.services.event_stream import EventStreams
from api.services.freezes import FreezeService
from api.services.health import HealthService
from api.services.idempotency import Once
from api.services.identity import Authenticator, DevelopmentTokens, ServiceTokens
from api.services.limits import RouteLimits
from api.services.notifications import NotificationService
from api.services.oidc import OidcVerifier
from api.services.pipelines import PipelineService
from api.services.plugins import PluginService
from api.services.presigned import PresignedService
from api.services.promotions import Promotions
from api.services.publishers import PublisherService
from api.services.readiness import Readiness
from api.services.releases import ReleaseService
from api.services.rollouts import Rollouts
from api.services.sandbox import SandboxService
from api.services.sandbox_gateway import Sandboxes
from api.services.tenant_secrets import TenantSecretService
from api.services.tenants import TenantService
from api.services.tokens import TokenService
from api.services.trust import TrustStore
from api.services.versions import VersionService
from hotswap.config import Settings
from hotswap.domain.base import PluginName
from hotswap.domain.manifest import SemVer
from hotswap.identity.passwords import Passwords
from hotswap.keys.ring import DataKeyRing
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.events import EventBus
from hotswap.ports.health import ProbeSource
from hotswap.ports.inventory import InventorySource
from hotswap.ports.keys import KeyProvider
from hotswap.ports.limits import RateLimiter
from hotswap.ports.notices import Notices
from hotswap.ports.oidc import KeySetSource
from hotswap.ports.records import UnitOfWorkFactory
from hotswap.runtime.signature_guard import guard_of


async def _nothing() -> None:
    """Closes a container that holds nothing to close."""


@dataclass
class Container:
    """The ports the facade runs on, and its services on top of them. `close` frees what the ports hold."""

    settings: Settings
    unit_of_work: UnitOfWorkFactory
    artifacts: ArtifactStore
    events: EventBus
    rollouts: Rollouts
    limiter: RateLimiter
    reading: UnitOfWorkFactory | None = None
    """Of units that only read, where those are cheaper."""
    inventories: InventorySource | None = None
    nodes: ProbeSource | None = None
    keys: KeyProvider | None = None
    drift_desk: DriftDesk | None = None
    promotions: Promotions | None = None
    sandboxes: Sandboxes | None = None
    oidc_keys: KeySetSource | None = None
    passwords: Passwords = field(default_factory=Passwords)
    notices: Notices | None = None
    close: Callable[[], Awaitable[None]] = _nothing
    metrics: ApiMetrics = field(default_factory=ApiMetrics)
    plugins: PluginService = field(init=False)
    versions: VersionService = field(init=False)
    releases: ReleaseService = field(init=False)
    presigned: PresignedService = field(init=False)
    publishers: PublisherService = field(init=False)
    dependency_desk: DependencyDesk = field(init=False)
    deployments: DeploymentService = field(init=False)
    commands: CommandService = field(init=False)
    streams: EventStreams = field(init=False)
    readiness: Readiness = field(init=False)
    freezes: FreezeService = field(init=False)
    pipelines: PipelineService = field(init=False)
    drift: DriftService = field(init=False)
    sandbox: SandboxService = field(init=False)
    health: HealthService = field(init=False)
    tenants: TenantService = field(init=False)
    tenant_secrets: TenantSecretService = field(init=False)
    limits: RouteLimits = field(init=False)
    trust: TrustStore = field(init=False)
    authenticator: Authenticator = field(init=False)
    authentication: AuthenticationService = field(init=False)
    accounts: AccountService = field(init=False)
    tokens: TokenService = field(init=False)
    approvals: ApprovalService = field(init=False)
    audit: AuditService = field(init=False)
    notifications: NotificationService = field(init=False)

    def __post_init__(self) -> None:
        settings, metrics = self.settings, self.metrics
        reading = self.reading or self.unit_of_work
        self.plugins = PluginService(self.unit_of_work, reading, metrics)
        guard = guard_of(settings.signatures, self.unit_of_work)
        self.versions = VersionService(
            self.unit_of_work,
            reading,
            self.artifacts,
            metrics,
            settings.work_dir,
            settings.max_plugin_bytes,
            settings.sandbox,
            guard,
        )
        self.releases = ReleaseService(self.unit_of_work, guard, self.notices)
        self.presigned = PresignedService(self.unit_of_work, self.artifacts, self.versions, settings)
        self.publishers = PublisherService(self.unit_of_work, settings.signatures)
        self.dependency_desk = DependencyDesk(self.unit_of_work)
        self.deployments = DeploymentService(self.unit_of_work, reading, self.rollouts, settings, metrics, guard)
        self.commands = CommandService(self.unit_of_work, self.rollouts, self.deployments, metrics)
        self.streams = EventStreams(self.unit_of_work, self.events, self.deployments, metrics)
        self.readiness = Readiness(self.unit_of_work, self.rollouts, self.artifacts, self.events, self.keys)
        self.freezes = FreezeService(self.unit_of_work, self.promotions)
        self.pipelines = PipelineService(self.unit_of_work, self.promotions, settings)
        self.drift = DriftService(self.unit_of_work, self.inventories, self.drift_desk)
        self.sandbox = SandboxService(self.unit_of_work, self.sandboxes, settings)
        self.health = HealthService(self.unit_of_work, self.nodes)
        self.tenants = TenantService(self.unit_of_work, reading)
        ring = DataKeyRing(self.unit_of_work, self.keys) if self.keys is not None else None
        self.tenant_secrets = TenantSecretService(self.unit_of_work, ring)
        self.approvals = ApprovalService(self.unit_of_work, self.commands, self.pipelines)
        self.audit = AuditService(self.unit_of_work, settings.audit)
        self.notifications = NotificationService(self.unit_of_work, settings.notifications)
        self._open_the_doors()

    def _open_the_doors(self) -> None:
        """What proves who calls, and counts how often."""
        settings, auth = self.settings, self.settings.auth
        factor, proxies = settings.api.rate_limit_factor, settings.api.trusted_proxies
        self.limits = RouteLimits(self.limiter, factor, proxies)
        self.trust = TrustStore(self.unit_of_work, auth)
        services = ServiceTokens(self.unit_of_work)
        oidc = OidcVerifier(settings.oidc, self.oidc_keys) if self.oidc_keys is not None else None
        development = DevelopmentTokens(settings.api.development_users)
        self.authenticator = Authenticator(development, services, self.trust, oidc)
        self.authentication = AuthenticationService(self.unit_of_work, self.trust, self.passwords, self.limits, auth)
        self.accounts = AccountService(self.unit_of_work, self.trust, self.passwords)
        self.tokens = TokenService(self.unit_of_work, self.trust, services, auth)

    async def sweep(self, actor: Actor, *, dry_run: bool) -> SweepReport:
        """What retention removes now, by this person's order. Raises Unavailable."""
        order = SweepOrder(archived_for=self.settings.retention.archived_for, dry_run=dry_run, by=actor.user)
        return await Retention(self.unit_of_work, self.artifacts).sweep(order)


def container(request: Request) -> Container:
    found: Container = request.app.state.container
    return found


ContainerDep = Annotated[Container, Depends(container)]

PluginId = Annotated[PluginName, Path(alias="pluginId", description="the plugin's name")]
VersionId = Annotated[SemVer, Path(alias="version", description="SemVer 2.0.0")]
DeploymentId = Annotated[str, Path(alias="deploymentId", pattern=r"^dep_[0-9a-f]{32}$")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="a repeat with the same key gets the first answer again, for 24 hours",
    ),
]


def once(actor: Actor, operation: str, key: str | None) -> Once:
    """The caller's key for this operation; services keep and find answers with it."""
    return Once(user=actor.user, operation=operation, key=key)
