"""The in-memory twin of hotswap.adapters.postgres: the same port, the same refusals, nothing on disk. For tests.

`MemoryRecords` is the database, `records.unit_of_work` the factory. A unit of work reads what is committed; its first
write takes the one write lock and a copy, `commit` puts the copy in place, leaving without commit drops it. So two units
that both write take turns, as two transactions on one row do. hotswap.adapters.memory.record_stores holds the stores.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from hotswap.adapters.memory import record_stores as stores
from hotswap.adapters.memory.account_stores import (
    MemoryServiceTokenStore,
    MemorySessionStore,
    MemorySigningKeyStore,
    MemoryTenantTokenStore,
    MemoryUserStore,
)
from hotswap.adapters.memory.aftercare import MemoryDriftStore, MemoryHeldVersionStore
from hotswap.adapters.memory.audit import MemoryAuditStore
from hotswap.adapters.memory.notifications import MemoryNotificationStore
from hotswap.adapters.memory.promotion_stores import MemoryFreezeStore, MemoryPipelineStore
from hotswap.adapters.memory.quotas import MemoryQuotaStore
from hotswap.adapters.memory.record_state import RecordState
from hotswap.adapters.memory.sandbox_store import MemorySandboxStore
from hotswap.adapters.memory.tenants import MemoryDataKeyStore, MemoryHealthStore, MemoryTenantStore
from hotswap.adapters.memory.version_store import MemoryVersionStore
from hotswap.adapters.memory.versions import (
    MemoryDependencyStore,
    MemoryPendingUploadStore,
    MemoryPublisherKeyStore,
)
from hotswap.domain.errors import Unavailable
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


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryRecords:
    """`clock` is the server's clock. While `away` is true, every call raises Unavailable."""

    def __init__(self, clock: Callable[[], datetime] = _utc_now) -> None:
        self.clock = clock
        self.away = False
        self.committed = RecordState.seeded()
        self.write_lock = asyncio.Lock()

    def unit_of_work(self) -> "MemoryUnitOfWork":
        return MemoryUnitOfWork(self)

    async def ready(self) -> None:
        if self.away:
            raise Unavailable("the in-memory records are away")

    async def close(self) -> None:
        """Nothing to close; here so that both adapters can be ended alike."""


class MemoryUnitOfWork:
    """One transaction over all stores."""

    def __init__(self, records_: MemoryRecords) -> None:
        self._records = records_
        self._entered = False
        self._copy: RecordState | None = None
        self.plugins: records.PluginStore = stores.MemoryPluginStore(self)
        self.versions: records.VersionStore = MemoryVersionStore(self)
        self.deployments: records.DeploymentStore = stores.MemoryDeploymentStore(self)
        self.routes: records.RouteStore = stores.MemoryRouteStore(self)
        self.nodes: records.NodeStore = stores.MemoryNodeStore(self)
        self.approvals: records.ApprovalStore = stores.MemoryApprovalStore(self)
        self.audit: AuditStore = MemoryAuditStore(self)
        self.environments: records.EnvironmentStore = stores.MemoryEnvironmentStore(self)
        self.pins: records.PinStore = stores.MemoryPinStore(self)
        self.idempotency: records.IdempotencyStore = stores.MemoryIdempotencyStore(self)
        self.held: HeldVersionStore = MemoryHeldVersionStore(self)
        self.drift: DriftStore = MemoryDriftStore(self)
        self.freezes: FreezeStore = MemoryFreezeStore(self)
        self.pipelines: PipelineStore = MemoryPipelineStore(self)
        self.quotas: QuotaStore = MemoryQuotaStore(self)
        self.sandboxes: SandboxStore = MemorySandboxStore(self)
        self.tenants: TenantStore = MemoryTenantStore(self)
        self.data_keys: DataKeyStore = MemoryDataKeyStore(self)
        self.health: HealthStore = MemoryHealthStore(self)
        self.users: accounts.UserStore = MemoryUserStore(self)
        self.sessions: accounts.SessionStore = MemorySessionStore(self)
        self.service_tokens: accounts.ServiceTokenStore = MemoryServiceTokenStore(self)
        self.tenant_tokens: accounts.TenantTokenStore = MemoryTenantTokenStore(self)
        self.signing_keys: accounts.SigningKeyStore = MemorySigningKeyStore(self)
        self.dependencies: DependencyStore = MemoryDependencyStore(self)
        self.publisher_keys: PublisherKeyStore = MemoryPublisherKeyStore(self)
        self.uploads: PendingUploadStore = MemoryPendingUploadStore(self)
        self.notifications: NotificationStore = MemoryNotificationStore(self)

    async def reading(self) -> RecordState:
        """What this unit sees: its own copy once it has written, else what is committed now."""
        await self._check()
        return self._copy if self._copy is not None else self._records.committed

    async def writing(self) -> RecordState:
        """This unit's own copy to change; the first call waits for the write lock."""
        await self._check()
        if self._copy is None:
            await self._records.write_lock.acquire()
            self._copy = self._records.committed.copy()
        return self._copy

    def instant(self) -> datetime:
        return self._records.clock()

    async def now(self) -> datetime:
        await self._check()
        return self.instant()

    async def commit(self) -> None:
        await self._check()
        if self._copy is not None:
            self._records.committed, self._copy = self._copy, None
            self._records.write_lock.release()

    async def __aenter__(self) -> Self:
        await self._records.ready()
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        if self._copy is not None:
            self._copy = None
            self._records.write_lock.release()

    async def _check(self) -> None:
        if not self._entered:
            raise RuntimeError("a unit of work is used inside `async with` only")
        await self._records.ready()
