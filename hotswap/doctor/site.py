"""What the checks may ask: the servers of one installation, each by its adapter. Built in hotswap.doctor.__main__."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio.client import Client

from hotswap import temporal
from hotswap.adapters.key_providers import key_provider
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.adapters.minio_inspection import BucketInspection
from hotswap.adapters.node_figures import NodeFiguresSource
from hotswap.adapters.postgres.database import Database
from hotswap.adapters.redis_events import RedisEventBus
from hotswap.config import Settings
from hotswap.ports.keys import KeyProvider


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Site:
    """`deep`: read every artifact through. `clock`: this machine's."""

    settings: Settings
    database: Database
    artifacts: MinioArtifactStore
    bucket: BucketInspection
    events: RedisEventBus
    nodes: NodeFiguresSource | None
    keys: KeyProvider | None
    deep: bool = False
    clock: Callable[[], datetime] = now
    _client: Client | None = None

    @classmethod
    def of(cls, settings: Settings, *, deep: bool = False, clock: Callable[[], datetime] = now) -> "Site":
        """Connects to nothing yet. `close` when done."""
        token = settings.node.admin_token
        return cls(
            settings=settings,
            database=Database(settings.postgres),
            artifacts=MinioArtifactStore(settings.minio),
            bucket=BucketInspection(settings.minio),
            events=RedisEventBus(settings.redis),
            nodes=NodeFiguresSource(token.get_secret_value()) if token is not None else None,
            keys=key_provider(settings.keys),
            deep=deep,
            clock=clock,
        )

    async def temporal(self) -> Client:
        """Raises Unavailable."""
        if self._client is None:
            self._client = await temporal.connect(self.settings.temporal)
        return self._client

    async def close(self) -> None:
        if self.nodes is not None:
            await self.nodes.close()
        if self.keys is not None:
            await self.keys.close()
        await self.events.close()
        await self.artifacts.close()
        await self.bucket.close()
        await self.database.close()
