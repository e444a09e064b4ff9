"""Unpacked bundles on this node's disk, by digest: fetched, verified and unpacked once, reused by every later start.

Neighbours: hotswap.ports.artifacts fetches and verifies, hotswap.runtime.bundle unpacks what is hostile,
hotswap.node.hosts asks for a spec before each launch.
"""

import asyncio
import logging
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path

from hotswap.config import SandboxSettings
from hotswap.domain.errors import BundleRejected, Unavailable
from hotswap.domain.ids import artifact_key
from hotswap.domain.manifest import Manifest
from hotswap.domain.routes import ArtifactRef
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.hosts import HostSpec
from hotswap.runtime.bundle import sweep_unfinished, unpack, unpacked_manifest
from hotswap.runtime.caps import above, capped

log = logging.getLogger(__name__)

PARALLEL_UNPACKS = 4
"""Unpacking compiles: one core each."""


class BundleCache:
    """`<directory>/<digest>/` holds one unpacked bundle; present means whole (hotswap.runtime.bundle.unpack)."""

    def __init__(
        self,
        store: ArtifactStore,
        directory: Path,
        max_bytes: int,
        caps: SandboxSettings,
        max_reply_bytes: int,
        max_concurrency: int = 1,
        check_signature: Callable[[ArtifactRef], Awaitable[None]] | None = None,
    ) -> None:
        """`caps` and `max_concurrency` cap what a manifest asks for, `max_bytes` an archive. `check_signature` raises
        SignatureRefused for what may not be loaded here; None where nobody asks (tests).
        """
        self._store = store
        self._check_signature = check_signature
        self._directory = directory.absolute()
        self._max_bytes = max_bytes
        self._caps = caps
        self._max_reply_bytes = max_reply_bytes
        self._max_concurrency = max_concurrency
        self._locks: dict[str, asyncio.Lock] = {}
        self._manifests: dict[str, Manifest] = {}
        """By digest, of what is unpacked here: reading one anew costs 5 ms, most of a restart."""
        self._unpacks = asyncio.Semaphore(PARALLEL_UNPACKS)

    async def prepare(self, ref: ArtifactRef) -> HostSpec:
        """What the launcher needs for this version.

        Raises ArtifactMissing, ArtifactCorrupt, ArtifactTooLarge, BundleRejected, SignatureRefused or ManifestInvalid
        (repeats cannot help), Unavailable when the object store or the disk refuses (a repeat may help).
        """
        root = self._directory / ref.digest
        manifest = await self.manifest(ref)
        if over := above(manifest.resources, self._caps):
            named = "; ".join(f"{fault.field} {fault.message}" for fault in over)
            log.warning("%s %s gets less than its manifest asks for: %s", ref.plugin, ref.version, named)
        resources = capped(manifest.resources, self._caps)
        return HostSpec.of(
            manifest,
            root,
            resources=resources,
            max_reply_bytes=self._max_reply_bytes,
            concurrency=min(manifest.concurrency, self._max_concurrency),
        )

    async def manifest(self, ref: ArtifactRef) -> Manifest:
        """What the bundle says of itself; fetched and unpacked first when it is not here. Raises as `prepare` does."""
        if self._check_signature is not None:
            await self._check_signature(ref)
        root = self._directory / ref.digest
        manifest = self._manifests.get(ref.digest)
        if manifest is None or not _touch(root):
            self._manifests.pop(ref.digest, None)
            lock = self._locks.setdefault(ref.digest, asyncio.Lock())
            async with lock:
                manifest = await asyncio.to_thread(self._cached, root)
                if manifest is None:
                    manifest = await self._obtain(ref, root)
                self._manifests[ref.digest] = manifest
        self._check_identity(ref, manifest)
        return manifest

    @staticmethod
    def _cached(root: Path) -> Manifest | None:
        manifest = unpacked_manifest(root)
        if manifest is not None:
            os.utime(root)
        return manifest

    async def _obtain(self, ref: ArtifactRef, root: Path) -> Manifest:
        # A name of its own: while a node is being replaced two processes use this directory.
        archive = self._directory / f"{ref.digest}.{secrets.token_hex(4)}.zip"
        async with self._unpacks:
            try:
                await asyncio.to_thread(self._directory.mkdir, parents=True, exist_ok=True)
                most = max(ref.size_bytes, self._max_bytes)  # a presigned upload may be larger
                await self._store.fetch(artifact_key(ref.plugin, ref.digest), archive, ref.digest, most)
                try:
                    return await asyncio.to_thread(unpack, archive, root)
                finally:
                    archive.unlink(missing_ok=True)
            except OSError as fault:
                raise Unavailable(f"{ref.plugin} {ref.version} cannot be unpacked here: {fault}") from fault

    @staticmethod
    def _check_identity(ref: ArtifactRef, manifest: Manifest) -> None:
        if (manifest.name, manifest.version) != (ref.plugin, ref.version):
            raise BundleRejected(
                f"the bundle registered as {ref.plugin} {ref.version} calls itself {manifest.name} {manifest.version}"
            )

    async def prune(self, in_use: Iterable[str], older_than: timedelta) -> int:
        """Remove unpacked bundles whose digest is not `in_use` and that are older; returns how many went."""
        return await asyncio.to_thread(self._prune, frozenset(in_use), older_than.total_seconds())

    def _prune(self, in_use: frozenset[str], older_than_seconds: float) -> int:
        if not self._directory.is_dir():
            return 0
        sweep_unfinished(self._directory)
        horizon = time.time() - older_than_seconds
        gone = 0
        for place in self._directory.iterdir():
            if place.name.startswith(".") or place.name in in_use:
                continue
            lock = self._locks.get(place.name.partition(".")[0])
            if lock is not None and lock.locked():
                continue
            self._manifests.pop(place.name, None)
            try:
                if _removed(place, horizon):
                    gone += 1
                    self._locks.pop(place.name, None)
            except FileNotFoundError:
                continue  # the process that replaces this node, or is replaced by it, was here first
        if gone:
            log.info("removed %d bundles that nothing here uses any more", gone)
        return gone


def _removed(place: Path, horizon: float) -> bool:
    """Remove what is older than the horizon; False when it is younger. Raises FileNotFoundError when it has gone."""
    if place.lstat().st_mtime >= horizon:
        return False
    if place.is_dir():
        aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.pruned")
        place.replace(aside)
        shutil.rmtree(aside)
    else:
        place.unlink()
    return True


def _touch(root: Path) -> bool:
    """Keep what is unpacked there from being pruned between now and its launch; False when it is not there."""
    try:
        os.utime(root)
    except OSError:
        return False
    return True
