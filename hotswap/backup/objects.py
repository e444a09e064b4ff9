"""Artifacts to files and back. They are immutable and named by their SHA-256, so they are copied after the registry that
names them, and what an older backup has already need not be fetched again."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from hotswap.backup.manifest import OBJECTS, ObjectFile, sha256_of
from hotswap.domain.errors import ArtifactCorrupt, ArtifactMissing, ArtifactTooLarge
from hotswap.ports.artifacts import ArtifactStore

AT_ONCE = 4

Tell = Callable[[str], None]


async def copy_out(
    store: ArtifactStore, wanted: Iterable[ObjectFile], directory: Path, earlier: Path | None, tell: Tell
) -> list[tuple[str, str]]:
    """Fetch into `directory`; each is compared with its digest. (key, why) of those that could not be had.

    `earlier`: a former backup; what it has is linked instead (copied across file systems), after a look at its bytes.
    Raises Unavailable when the store is away: then there is no backup.
    """
    places = asyncio.Semaphore(AT_ONCE)
    wrong: list[tuple[str, str]] = []

    async def one(wanted: ObjectFile) -> None:
        target = directory / wanted.path
        async with places:
            await asyncio.to_thread(target.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
            if earlier is not None and await asyncio.to_thread(
                _taken_over, earlier / wanted.path, target, wanted.sha256
            ):
                return
            try:
                await store.fetch(wanted.key, target, wanted.sha256, wanted.size_bytes)
            except (ArtifactMissing, ArtifactCorrupt, ArtifactTooLarge) as fault:
                wrong.append((wanted.key, fault.message))

    every = list(wanted)
    (directory / OBJECTS).mkdir(mode=0o700)
    tell(f"copying {len(every)} artifacts, {sum(each.size_bytes for each in every) / 1e6:.1f} MB")
    await asyncio.gather(*(one(each) for each in every))
    return sorted(wrong)


async def copy_in(store: ArtifactStore, stored: Iterable[ObjectFile], directory: Path, tell: Tell) -> None:
    """Put every artifact; the store compares digests, and one that is there already and right is left alone."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(wanted: ObjectFile) -> None:
        async with places:
            await store.put(wanted.key, directory / wanted.path, wanted.sha256)

    every = list(stored)
    tell(f"putting {len(every)} artifacts into the object store")
    await asyncio.gather(*(one(each) for each in every))


def _taken_over(source: Path, target: Path, sha256: str) -> bool:
    try:
        if sha256_of(source) != sha256:
            return False
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
    except FileNotFoundError:
        return False
    return True
