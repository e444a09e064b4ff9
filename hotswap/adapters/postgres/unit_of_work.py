"""One transaction over all stores, on PostgreSQL: hotswap.ports.records.UnitOfWork. database makes these."""

from datetime import datetime
from types import TracebackType
from typing import Self

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from hotswap.adapters.postgres.accounts import PostgresSessionStore, PostgresUserStore
from hotswap.adapters.postgres.aftercare import PostgresDriftStore, PostgresHeldVersionStore
from hotswap.adapters.postgres.audit import PostgresAuditStore
from hotswap.adapters.postgres.credentials import (
    PostgresServiceTokenStore,
    PostgresSigningKeyStore,
    PostgresTenantTokenStore,
)
from hotswap.adapters.postgres.deployments import PostgresApprovalStore, PostgresDeploymentStore
from hotswap.adapters.postgres.notifications import PostgresNotificationStore
from hotswap.adapters.postgres.promotion import PostgresFreezeStore, PostgresPipelineStore
from hotswap.adapters.postgres.quotas import PostgresQuotaStore
from hotswap.adapters.postgres.registry import PostgresEnvironmentStore, PostgresPluginStore, PostgresVersionStore
from hotswap.adapters.postgres.routing import PostgresNodeStore, PostgresPinStore, PostgresRouteStore
from hotswap.adapters.postgres.sandbox import PostgresSandboxStore
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tenants import PostgresDataKeyStore, PostgresHealthStore, PostgresTenantStore
from hotswap.adapters.postgres.trail import PostgresIdempotencyStore
from hotswap.adapters.postgres.versions import (
    PostgresDependencyStore,
    PostgresPendingUploadStore,
    PostgresPublisherKeyStore,
)
from hotswap.ports import accounts, records
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


class PostgresUnitOfWork:
    """READ COMMITTED: each statement sees what others have committed by then.

    A refusal (Conflict, NotFound, StaleGeneration, InvalidInput) leaves the transaction usable; Unavailable ends it.
    """

    def __init__(self, engine: AsyncEngine, *, reading: bool = False) -> None:
        """`reading`: as hotswap.adapters.postgres.session has it."""
        self._session = Session(engine, reading=reading)
        self.plugins: records.PluginStore = PostgresPluginStore(self._session)
        self.versions: records.VersionStore = PostgresVersionStore(self._session)
        self.deployments: records.DeploymentStore = PostgresDeploymentStore(self._session)
        self.routes: records.RouteStore = PostgresRouteStore(self._session)
        self.nodes: records.NodeStore = PostgresNodeStore(self._session)
        self.approvals: records.ApprovalStore = PostgresApprovalStore(self._session)
        self.audit: AuditStore = PostgresAuditStore(self._session)
        self.environments: records.EnvironmentStore = PostgresEnvironmentStore(self._session)
        self.pins: records.PinStore = PostgresPinStore(self._session)
        self.idempotency: records.IdempotencyStore = PostgresIdempotencyStore(self._session)
        self.held: HeldVersionStore = PostgresHeldVersionStore(self._session)
        self.drift: DriftStore = PostgresDriftStore(self._session)
        self.freezes: FreezeStore = PostgresFreezeStore(self._session)
        self.pipelines: PipelineStore = PostgresPipelineStore(self._session)
        self.quotas: QuotaStore = PostgresQuotaStore(self._session)
        self.sandboxes: SandboxStore = PostgresSandboxStore(self._session)
        self.tenants: TenantStore = PostgresTenantStore(self._session)
        self.data_keys: DataKeyStore = PostgresDataKeyStore(self._session)
        self.health: HealthStore = PostgresHealthStore(self._session)
        self.users: accounts.UserStore = PostgresUserStore(self._session)
        self.sessions: accounts.SessionStore = PostgresSessionStore(self._session)
        self.service_tokens: accounts.ServiceTokenStore = PostgresServiceTokenStore(self._session)
        self.tenant_tokens: accounts.TenantTokenStore = PostgresTenantTokenStore(self._session)
        self.signing_keys: accounts.SigningKeyStore = PostgresSigningKeyStore(self._session)
        self.dependencies: DependencyStore = PostgresDependencyStore(self._session)
        self.publisher_keys: PublisherKeyStore = PostgresPublisherKeyStore(self._session)
        self.uploads: PendingUploadStore = PostgresPendingUploadStore(self._session)
        self.notifications: NotificationStore = PostgresNotificationStore(self._session)

    async def now(self) -> datetime:
        # Not now(): that is when the transaction began.
        done = await self._session.run(select(func.clock_timestamp()))
        instant: datetime = done.scalar_one()
        return instant

    async def commit(self) -> None:
        await self._session.commit()

    async def __aenter__(self) -> Self:
        await self._session.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.end()
