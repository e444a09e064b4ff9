"""What the doctor and the backup ask of the object store as a whole: what is there, its clock, versioning.

Neighbours: hotswap.adapters.minio_artifacts, the ArtifactStore, reads and writes single artifacts.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from hotswap.config import MinioSettings
from hotswap.domain.errors import Unavailable

ARTIFACTS = "artifacts/"

T = TypeVar("T")


class BucketInspection:
    """Every method raises Unavailable when the server does not answer or refuses. `close` when done."""

    def __init__(self, settings: MinioSettings) -> None:
        self._settings = settings
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=2.0, read=10.0), retries=urllib3.Retry(total=2, backoff_factor=0.1)
        )
        self._client = Minio(
            settings.endpoint,
            access_key=settings.access_key.get_secret_value(),
            secret_key=settings.secret_key.get_secret_value(),
            secure=settings.tls,
            http_client=self._pool,
        )

    async def sizes(self) -> dict[str, int]:
        """Key -> bytes of everything under artifacts/: one request a thousand objects."""
        return await self._run(
            lambda: {
                str(item.object_name): int(item.size or 0)
                for item in self._client.list_objects(self._settings.bucket, prefix=ARTIFACTS, recursive=True)
                if not item.is_dir
            }
        )

    async def versioned(self) -> bool:
        return await self._run(lambda: self._client.get_bucket_versioning(self._settings.bucket).status == ENABLED)

    async def exists(self) -> bool:
        return await self._run(lambda: self._client.bucket_exists(self._settings.bucket))

    async def now(self) -> datetime | None:
        """The server's clock, in whole seconds; None when it does not tell."""
        scheme = "https" if self._settings.tls else "http"
        answer = await self._run(
            lambda: self._pool.request("HEAD", f"{scheme}://{self._settings.endpoint}/", redirect=False)
        )
        try:
            return parsedate_to_datetime(answer.headers.get("date", "")).astimezone(UTC)
        except ValueError:
            return None

    async def close(self) -> None:
        self._pool.clear()

    async def _run(self, ask: Callable[[], T]) -> T:
        endpoint = self._settings.endpoint
        try:
            return await asyncio.to_thread(ask)
        except S3Error as fault:
            raise Unavailable(f"the object store at {endpoint} refused: {fault.code}: {fault.message}") from fault
        except (MinioException, HTTPError) as fault:
            raise Unavailable(f"the object store at {endpoint} does not answer: {str(fault)[:300]}") from fault
