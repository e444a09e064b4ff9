"""Restores a backup into an installation that stands still: looks at every byte first, then artifacts, then the tables.

The record never names an artifact that is not there yet. Ends with the doctor's look at what was restored.
"""

import asyncio
from pathlib import Path

from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.backup import database, objects
from hotswap.backup.manifest import Manifest, faults_of, read_manifest
from hotswap.backup.objects import Tell
from hotswap.config import Settings
from hotswap.doctor.catalog import CHECKS
from hotswap.doctor.examine import examine
from hotswap.doctor.report import Report
from hotswap.doctor.site import Site
from hotswap.domain.errors import Conflict, InvalidInput
from migrations import runner

NOT_YET = ("worker", "nodes", "drift", "sandbox")
"""Checks of what stands still during a restore."""

TOLD = 10


async def verify(directory: Path) -> Manifest:
    """Read everything and compare. Raises InvalidInput naming what is missing or has changed."""
    manifest = await asyncio.to_thread(read_manifest, directory)
    faults = await asyncio.to_thread(lambda: list(faults_of(directory, manifest)))
    if faults:
        more = f"\n  and {len(faults) - TOLD} more" if len(faults) > TOLD else ""
        raise InvalidInput("the backup is damaged:\n  " + "\n  ".join(faults[:TOLD]) + more)
    return manifest


async def restore(settings: Settings, directory: Path, *, force: bool, tell: Tell) -> Report:
    """What the doctor says of it afterwards.

    Raises InvalidInput (the backup cannot be used), Conflict (the target is used), Unavailable. The tables are filled in one
    transaction: a restore that broke off left them empty, and is simply repeated.
    """
    tell(f"reading {directory} through")
    manifest = await verify(directory)
    if not await asyncio.to_thread(runner.knows, manifest.schema_revision):
        raise InvalidInput(
            f"the backup's schema {manifest.schema_revision} is newer than this release's ({runner.head()}): restore it with "
            f"HotSwap {manifest.hotswap} or later"
        )
    url = settings.postgres.url.get_secret_value()
    await asyncio.to_thread(_prepare, url, manifest, force, tell)
    store = MinioArtifactStore(settings.minio)
    try:
        await store.ensure_bucket()
        await objects.copy_in(store, manifest.objects, directory, tell)
    finally:
        await store.close()
    tell(f"loading {len(manifest.tables)} tables, {sum(table.rows for table in manifest.tables)} rows")
    await asyncio.to_thread(database.load, url, directory, manifest)
    await asyncio.to_thread(runner.upgrade, url)
    tell(f"restored as of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC; the doctor looks at it")
    site = Site.of(settings, deep=True)
    try:
        return await examine(site, CHECKS, NOT_YET)
    finally:
        await site.close()


def _prepare(url: str, manifest: Manifest, force: bool, tell: Tell) -> None:
    """The target's schema, empty, at the backup's revision."""
    try:
        there = database.check_target(url)
    except Conflict as used:
        if not force or "sessions of HotSwap" in used.message:
            raise
        tell("--force: what the target holds is destroyed")
        there = True
    if there:
        runner.downgrade(url, "base")
    runner.upgrade(url, manifest.schema_revision)
