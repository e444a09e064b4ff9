"""The in-memory twin of hotswap.adapters.minio_artifacts: same contract (tests/contract), no server."""

import asyncio
import hashlib
import os
import tempfile
from datetime import timedelta
from pathlib import Path

from hotswap.adapters.artifact_keys import (
    check_any_key,
    check_key,
    check_upload_key,
    corrupt,
    missing,
    never_came,
    too_large,
)
from hotswap.domain.errors import Unavailable
from hotswap.ports.artifacts import PresignedPost


class MemoryArtifactStore:
    """ArtifactStore in a dict. `reachable = False` makes every call raise Unavailable, as a stopped server would."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reachable = True

    async def ensure_bucket(self) -> None:
        """Nothing to create; raises Unavailable as the real one would."""
        self._check_reachable()

    async def put(self, key: str, source: Path, digest: str) -> None:
        check_key(key, digest)
        content = await asyncio.to_thread(source.read_bytes)
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise corrupt(source.name, found, digest)
        self._check_reachable()
        self.objects[key] = content

    async def fetch(self, key: str, target: Path, digest: str, max_bytes: int) -> None:
        content = self._verified(key, digest, max_bytes)
        await asyncio.to_thread(_write_whole, target, content)

    async def verify(self, key: str, digest: str, max_bytes: int) -> int:
        return len(self._verified(key, digest, max_bytes))

    async def delete(self, key: str) -> None:
        check_key(key)
        self._check_reachable()
        self.objects.pop(key, None)

    async def presign(self, key: str, size_bytes: int, valid_for: timedelta) -> PresignedPost:
        check_upload_key(key)
        self._check_reachable()
        return PresignedPost("http://store.test/plugins", {"key": key})

    async def take(self, key: str, target: Path, digest: str, size_bytes: int) -> None:
        check_upload_key(key)
        self._check_reachable()
        if key not in self.objects:
            raise never_came(key)
        await asyncio.to_thread(_write_whole, target, self._right(key, digest, size_bytes))

    async def purge(self, key: str) -> None:
        check_any_key(key)
        self._check_reachable()
        self.objects.pop(key, None)

    async def ready(self) -> None:
        self._check_reachable()

    async def close(self) -> None:
        """Nothing to release."""

    def _verified(self, key: str, digest: str, max_bytes: int) -> bytes:
        check_key(key, digest)
        self._check_reachable()
        if key not in self.objects:
            raise missing(key)
        return self._right(key, digest, max_bytes)

    def _right(self, key: str, digest: str, max_bytes: int) -> bytes:
        content = self.objects[key]
        if len(content) > max_bytes:
            raise too_large(key, max_bytes)
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise corrupt(key, found, digest)
        return content

    def _check_reachable(self) -> None:
        if not self.reachable:
            raise Unavailable("the object store does not answer (in-memory, switched off)")


def _write_whole(target: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
