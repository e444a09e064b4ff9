"""Makes a backup: the tables as of one moment, then every artifact that they name, then the manifest.

In this order nothing can be missing: an artifact is never changed, and only retention removes one, which the registry
then says. What is uploaded meanwhile is in neither.
"""

import asyncio
from pathlib import Path

import hotswap
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.backup import database, objects
from hotswap.backup.manifest import Manifest, ObjectFile, read_manifest
from hotswap.backup.objects import Tell
from hotswap.config import Settings
from hotswap.domain.errors import InvalidInput


async def create(settings: Settings, directory: Path, earlier: Path | None, tell: Tell) -> Manifest:
    """Into `directory`, which must not exist or be empty. Raises InvalidInput, Unavailable; then nothing counts as one."""
    if earlier is not None:
        await asyncio.to_thread(read_manifest, earlier)
    await asyncio.to_thread(_empty_directory, directory)
    url = settings.postgres.url.get_secret_value()
    tell("copying the tables in one snapshot")
    dumped = await asyncio.to_thread(database.dump, url, directory)
    wanted = [ObjectFile(key=key, sha256=digest, size_bytes=size) for key, digest, size in dumped.artifacts]
    store = MinioArtifactStore(settings.minio)
    try:
        wrong = dict(await objects.copy_out(store, wanted, directory, earlier, tell))
    finally:
        await store.close()
    gone = await asyncio.to_thread(database.removed_meanwhile, url, sorted(wrong)) if wrong else set()
    for key in sorted(wrong.keys() - gone):
        tell(f"DAMAGED: {wrong[key]}")
    manifest = Manifest(
        taken_at=dumped.taken_at,
        hotswap=hotswap.__version__,
        schema_revision=dumped.schema_revision,
        postgres=dumped.postgres,
        tables=dumped.tables,
        sequences=dumped.sequences,
        objects=tuple(one for one in wanted if one.key not in wrong),
        gone=tuple(sorted(gone)),
        damaged=tuple(sorted(wrong.keys() - gone)),
        needed_keys=dumped.needed_keys,
    )
    await asyncio.to_thread(manifest.write, directory)
    return manifest


def _empty_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise InvalidInput(f"{directory} is not empty: name a new directory for each backup")
    except OSError as fault:
        raise InvalidInput(f"{directory} cannot be made: {fault.strerror}") from None
