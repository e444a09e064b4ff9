"""ArtifactStore over any S3 endpoint with the minio client. Neighbours: hotswap.ports.artifacts (contract), the
in-memory twin hotswap.adapters.memory.artifacts.

Immutability does not come from the server: the client offers no conditional put, and an If-None-Match given as metadata is
silently ignored. It comes from content-addressed keys, from a SHA-256 at every upload and every read, and from bucket
versioning, which keeps what was there should anything overwrite it.
"""

import asyncio
import contextvars
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.datatypes import PostPolicy
from minio.error import MinioException, S3Error
from minio.versioningconfig import VersioningConfig
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from hotswap.adapters.artifact_keys import (
    check_any_key,
    check_key,
    check_upload_key,
    corrupt,
    missing,
    never_came,
    too_large,
)
from hotswap.config import MinioSettings
from hotswap.domain.errors import ArtifactCorrupt, ArtifactMissing, ArtifactTooLarge, Unavailable
from hotswap.ports.artifacts import PresignedPost

_CHUNK = 1024 * 1024
_PART_BYTES = 16 * _CHUNK
"""Held in memory during an upload."""

# Connect 2 s: a server on the same network answers in a millisecond or is gone. Read 10 s between two packets, not in all.
_TIMEOUT = urllib3.Timeout(connect=2.0, read=10.0)


class _Retry(urllib3.Retry):
    """Repeats what broke, not what hung: who was silent for ten seconds will be again, and the caller waits all the while."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


# Two quick repeats hide a server's restart of its connection; longer outages are the caller's to retry (activities do).
_RETRIES = _Retry(
    total=2,
    backoff_factor=0.1,
    status_forcelist=(500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
    respect_retry_after_header=False,  # a server must not make a thread of ours sleep
)
_ABSENT = {"NoSuchKey", "NoSuchVersion"}
_MADE_ALREADY = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}

_THREADS = 16
"""Of the store's own: as many as it has connections. One that hangs must not take those that other work runs in."""

T = TypeVar("T")


class _Stopped(Exception):
    """The caller was cancelled; the thread gives up at its next chunk. Never seen outside."""


class _HashingReader:
    """A file that refuses to give its last bytes when the whole has another SHA-256: then nothing gets stored."""

    def __init__(self, file: BinaryIO, size: int, digest: str, name: str, stop: threading.Event) -> None:
        self._file, self._left, self._digest, self._name, self._stop = file, size, digest, name, stop
        self._hash = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        if self._stop.is_set():
            raise _Stopped
        chunk = self._file.read(min(count, _CHUNK) if count >= 0 else _CHUNK)
        self._hash.update(chunk)
        self._left -= len(chunk)
        if (self._left <= 0 or not chunk) and self._hash.hexdigest() != self._digest:
            raise corrupt(self._name, self._hash.hexdigest(), self._digest)
        return chunk


class MinioArtifactStore:
    """Blocking client calls run in threads; cancelling a call stops its thread at the next chunk."""

    def __init__(self, settings: MinioSettings) -> None:
        self._bucket = settings.bucket
        self._endpoint = settings.endpoint
        self._public = settings.public_endpoint or settings.endpoint
        self._tls = settings.tls if settings.public_tls is None else settings.public_tls
        self._threads = ThreadPoolExecutor(_THREADS, "object-store")
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=_RETRIES, maxsize=16)
        self._client = Minio(
            settings.endpoint,
            access_key=settings.access_key.get_secret_value(),
            secret_key=settings.secret_key.get_secret_value(),
            secure=settings.tls,
            http_client=self._pool,
        )

    async def ensure_bucket(self) -> None:
        """Create the bucket with versioning on; repeats and races are fine. Raises Unavailable."""
        await self._run(lambda stop: self._ensure_bucket())

    async def put(self, key: str, source: Path, digest: str) -> None:
        check_key(key, digest)
        await self._run(lambda stop: self._put(key, source, digest, stop))

    async def fetch(self, key: str, target: Path, digest: str, max_bytes: int) -> None:
        check_key(key, digest)
        await self._run(lambda stop: self._fetch(key, target, digest, max_bytes, stop))

    async def verify(self, key: str, digest: str, max_bytes: int) -> int:
        check_key(key, digest)
        return await self._run(lambda stop: self._read_through(key, digest, max_bytes, stop))

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._run(lambda stop: self._client.remove_object(self._bucket, key))

    async def presign(self, key: str, size_bytes: int, valid_for: timedelta) -> PresignedPost:
        check_upload_key(key)
        return await self._run(lambda stop: self._presign(key, size_bytes, valid_for))

    async def take(self, key: str, target: Path, digest: str, size_bytes: int) -> None:
        check_upload_key(key)
        try:
            await self._run(lambda stop: self._fetch(key, target, digest, size_bytes, stop))
        except ArtifactMissing:
            raise never_came(key) from None

    async def purge(self, key: str) -> None:
        check_any_key(key)
        await self._run(lambda stop: self._purge(key, stop))

    async def ready(self) -> None:
        if not await self._run(lambda stop: self._client.bucket_exists(self._bucket)):
            raise Unavailable(f"the bucket '{self._bucket}' does not exist at {self._endpoint}; create it")

    async def close(self) -> None:
        """Release the connections. Repeats are fine."""
        self._threads.shutdown(wait=False)
        self._pool.clear()

    async def _run(self, work: Callable[[threading.Event], T]) -> T:
        stop = threading.Event()
        run = contextvars.copy_context().run  # so that logs and spans know whose work it is
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, partial(run, self._translated, work, stop)
            )
        finally:
            stop.set()

    def _translated(self, work: Callable[[threading.Event], T], stop: threading.Event) -> T:
        """Run in the thread. What the server or the network did wrong becomes Unavailable: a repeat may help."""
        if stop.is_set():
            raise _Stopped  # the caller went while this waited for a thread
        try:
            return work(stop)
        except S3Error as fault:
            raise Unavailable(f"the object store at {self._endpoint} refused: {fault.code}: {fault.message}") from fault
        except (MinioException, HTTPError) as fault:
            raise Unavailable(
                f"the object store at {self._endpoint} does not answer: {_short(fault)}; bring it back, then try again"
            ) from fault

    def _ensure_bucket(self) -> None:
        if not self._client.bucket_exists(self._bucket):
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as fault:
                if fault.code not in _MADE_ALREADY:
                    raise
        if self._client.get_bucket_versioning(self._bucket).status != ENABLED:
            self._client.set_bucket_versioning(self._bucket, VersioningConfig(ENABLED))

    def _put(self, key: str, source: Path, digest: str, stop: threading.Event) -> None:
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for _ in self._checked(iter(lambda: file.read(_CHUNK), b""), source.name, digest, stop):
                pass
            if self._holds(key, digest, size, stop):
                return
            file.seek(0)
            self._client.put_object(
                self._bucket,
                key,
                _HashingReader(file, size, digest, source.name, stop),  # type: ignore[arg-type]
                size,
                content_type="application/zip",
                part_size=_PART_BYTES,
                # The client's parallel uploads leave their threads waiting for ever when the reader raises.
                num_parallel_uploads=1,
            )

    def _holds(self, key: str, digest: str, size: int, stop: threading.Event) -> bool:
        """Whether the right bytes are there already. Damaged ones are put again: that mends them."""
        try:
            return self._read_through(key, digest, size, stop) == size
        except (ArtifactMissing, ArtifactCorrupt, ArtifactTooLarge):
            return False

    def _fetch(self, key: str, target: Path, digest: str, max_bytes: int, stop: threading.Event) -> None:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in self._checked(self._chunks(key, max_bytes), key, digest, stop):
                    file.write(chunk)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)

    def _presign(self, key: str, size_bytes: int, valid_for: timedelta) -> PresignedPost:
        policy = PostPolicy(self._bucket, datetime.now(UTC) + valid_for)
        policy.add_equals_condition("key", key)
        policy.add_content_length_range_condition(size_bytes, size_bytes)
        fields = self._client.presigned_post_policy(policy)
        scheme = "https" if self._tls else "http"
        return PresignedPost(f"{scheme}://{self._public}/{self._bucket}", {**fields, "key": key})

    def _purge(self, key: str, stop: threading.Event) -> None:
        """A delete alone leaves the bytes behind a marker: the bucket is versioned."""
        for item in self._client.list_objects(self._bucket, prefix=key, recursive=True, include_version=True):
            if stop.is_set():
                raise _Stopped
            if item.object_name == key:
                self._client.remove_object(self._bucket, key, version_id=item.version_id)

    def _read_through(self, key: str, digest: str, max_bytes: int, stop: threading.Event) -> int:
        return sum(len(chunk) for chunk in self._checked(self._chunks(key, max_bytes), key, digest, stop))

    def _checked(self, chunks: Iterator[bytes], what: str, digest: str, stop: threading.Event) -> Iterator[bytes]:
        """Pass the chunks on; raise ArtifactCorrupt at the end when they were not what `digest` says."""
        found = hashlib.sha256()
        for chunk in chunks:
            if stop.is_set():
                raise _Stopped
            found.update(chunk)
            yield chunk
        if found.hexdigest() != digest:
            raise corrupt(what, found.hexdigest(), digest)

    def _chunks(self, key: str, max_bytes: int) -> Iterator[bytes]:
        try:
            response = self._client.get_object(self._bucket, key)
        except S3Error as fault:
            if fault.code in _ABSENT:
                raise missing(key) from fault
            raise
        try:
            # The header spares reading a huge object; the count below does not trust it.
            if int(response.headers.get("content-length", "0")) > max_bytes:
                raise too_large(key, max_bytes)
            read = 0
            for chunk in response.stream(_CHUNK):
                read += len(chunk)
                if read > max_bytes:
                    raise too_large(key, max_bytes)
                yield chunk
        finally:
            response.close()
            response.release_conn()


def _short(fault: Exception) -> str:
    """A server's or a library's words, cut: they end in logs and histories."""
    return f"{type(fault).__name__}: {fault}"[:300]
