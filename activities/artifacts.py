"""Proves that the object store holds the bytes that the registry means."""

from temporalio import activity

from activities.errors import translated
from activities.heartbeat import heartbeating
from hotswap.domain.base import Model
from hotswap.domain.ids import artifact_key
from hotswap.domain.routes import ArtifactRef
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.signatures import SignatureGuard


class VerifiedArtifact(Model):
    digest: str
    size_bytes: int


class ArtifactActivities:
    def __init__(self, store: ArtifactStore, max_bytes: int, guard: SignatureGuard) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._guard = guard

    @activity.defn
    @translated
    async def verify_artifact(self, ref: ArtifactRef) -> VerifiedArtifact:
        """Read the object through, and check its signature when it has one; planning asked whether it must.

        Raises ArtifactMissing, ArtifactCorrupt, SignatureRefused (never retried), Unavailable (retried).
        """
        async with heartbeating():
            await self._guard.check(ref, None)
            key = artifact_key(ref.plugin, ref.digest)
            size = await self._store.verify(key, ref.digest, max(ref.size_bytes, self._max_bytes))
        return VerifiedArtifact(digest=ref.digest, size_bytes=size)
