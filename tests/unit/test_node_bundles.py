"""A node's bundles when two of its processes use the directory at once: one that is being replaced, and the next."""

import asyncio
import hashlib
import os
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hotswap.config import MIB, SandboxSettings
from hotswap.domain.routes import ArtifactRef
from hotswap.node.bundles import BundleCache
from tests.unit.bundle_archives import GOOD


class Store:
    """Has one archive; who asks second is given it once the first has done everything."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.digest = hashlib.sha256(content).hexdigest()
        self.first_asked = asyncio.Event()
        self.second_has_it = asyncio.Event()
        self.first_is_done = asyncio.Event()

    async def fetch(self, key: str, target: Path, digest: str, max_bytes: int) -> None:
        target.write_bytes(self.content)
        if not self.first_asked.is_set():
            self.first_asked.set()
            await self.second_has_it.wait()
        else:
            self.second_has_it.set()
            await self.first_is_done.wait()


def cache(store: Any, folder: Path) -> BundleCache:
    return BundleCache(store, folder, MIB, SandboxSettings(), MIB)


async def test_two_processes_that_fetch_one_bundle_at_once_both_have_it(tmp_path: Path) -> None:
    archive = tmp_path / "shout.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name, content in GOOD.items():
            packed.writestr(name, content)
    store = Store(archive.read_bytes())
    ref = ArtifactRef(plugin="shout", version="1.0.0", digest=store.digest, size_bytes=len(store.content))
    folder = tmp_path / "bundles"
    first = asyncio.create_task(cache(store, folder).manifest(ref))
    await store.first_asked.wait()
    second = asyncio.create_task(cache(store, folder).manifest(ref))
    assert (await first).name == "shout"
    store.first_is_done.set()
    assert (await second).name == "shout"
    assert [place.name for place in folder.iterdir()] == [store.digest]


async def test_what_another_process_removes_first_keeps_nobody_from_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, ghost = tmp_path / "old", tmp_path / "ghost"
    old.mkdir()
    os.utime(old, (0, 0))

    def listed(folder: Path) -> Iterator[Path]:
        return iter([ghost, old])  # as it was a moment ago

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", listed)
        assert await cache(None, tmp_path).prune((), timedelta(hours=1)) == 1
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_remembered_of_a_bundle_that_is_removed(tmp_path: Path) -> None:
    kept = cache(None, tmp_path)
    (tmp_path / "old").mkdir()
    os.utime(tmp_path / "old", (0, 0))
    kept._locks["old"] = asyncio.Lock()
    assert await kept.prune((), timedelta(hours=1)) == 1
    assert kept._locks == {}
