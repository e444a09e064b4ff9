"""Where artifacts are kept: the port of S3/MinIO (hotswap.adapters.minio) and its in-memory twin. Keys: hotswap.domain.ids."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PresignedPost:
    """A form that the object store takes: `fields` first, the file last, as `file`. The store holds it to its conditions."""

    url: str
    fields: dict[str, str]


class ArtifactStore(Protocol):
    """Content-addressed and append-only. Unavailable when the server does not answer (a repeat helps)."""

    async def put(self, key: str, source: Path, digest: str) -> None:
        """Store the file; the same key again is fine (same bytes by construction).

        Raises ArtifactCorrupt when the file's SHA-256 is not `digest`; nothing is stored then.
        """
        ...

    async def fetch(self, key: str, target: Path, digest: str, max_bytes: int) -> None:
        """Stream the object into `target` (created atomically). Raises ArtifactMissing, ArtifactCorrupt, ArtifactTooLarge."""
        ...

    async def verify(self, key: str, digest: str, max_bytes: int) -> int:
        """Read the object through and compare its SHA-256; returns its size in bytes. Raises as `fetch`."""
        ...

    async def delete(self, key: str) -> None:
        """Unknown keys are fine. Only for an upload whose registration failed."""
        ...

    async def presign(self, key: str, size_bytes: int, valid_for: timedelta) -> PresignedPost:
        """Let who holds the answer store exactly this many bytes under an upload key (hotswap.domain.ids.upload_key)."""
        ...

    async def take(self, key: str, target: Path, digest: str, size_bytes: int) -> None:
        """Stream what came under an upload key into `target`.

        Raises ArtifactMissing when nothing came, ArtifactCorrupt, ArtifactTooLarge.
        """
        ...

    async def purge(self, key: str) -> None:
        """Remove an object with all its versions, of either kind of key. Unknown keys are fine."""
        ...

    async def ready(self) -> None:
        """Raises Unavailable when the server or the bucket cannot be reached."""
        ...
