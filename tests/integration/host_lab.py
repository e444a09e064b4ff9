"""What the tests of plugin hosts share: the fixture plugins of tests/plugins, small bundles, and counting leftovers."""

import asyncio
import contextlib
import json
import os
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from hotswap.domain.manifest import Resources, parse_manifest
from hotswap.ports.hosts import HostSpec, Reply
from hotswap.runtime.handle import ZygoteHost
from hotswap.runtime.launcher import ZygoteLauncher

PLUGINS = Path(__file__).parent.parent / "plugins"
SOON = timedelta(seconds=20)
"""Longer than anything here should take on a machine under load."""


def spec_of(name: str, **changes: Any) -> HostSpec:
    """The host spec of a plugin in tests/plugins."""
    manifest = parse_manifest((PLUGINS / name / "plugin.json").read_bytes(), "plugin.json")
    spec = HostSpec(
        plugin=manifest.name,
        version=manifest.version,
        bundle_dir=PLUGINS / name,
        entry_point=manifest.entry_point,
        resources=manifest.resources,
        methods=tuple(method.name for method in manifest.methods),
    )
    return spec.model_copy(update=changes)


def spec_of_source(folder: Path, source: str, **changes: Any) -> HostSpec:
    """The host spec of a plugin whose one module is `source`; its class must be Plugin."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # as an unpacked bundle is: a strong host of root's is another user
    (folder / "made.py").write_text(textwrap.dedent(source), encoding="utf-8")
    spec = HostSpec(
        plugin="made", version="1.0.0", bundle_dir=folder, entry_point="made:Plugin", resources=Resources(memory_mb=256)
    )
    return spec.model_copy(update=changes)


@contextlib.asynccontextmanager
async def launched(
    spec: HostSpec, tier: Any = "standard", *, tenants: Any = None, egress: Any = None, **more: Any
) -> AsyncIterator[ZygoteHost]:
    """One host of a launcher of its own."""
    launcher = ZygoteLauncher(tier, 2048, tenants=tenants, egress=egress)
    try:
        yield await launcher.launch(spec, **more)
    finally:
        await launcher.close()


async def ask(host: ZygoteHost, method: str, timeout: timedelta = SOON, **parameters: Any) -> Any:
    return json.loads(await host.invoke(method, "tenant-1", json.dumps(parameters).encode(), timeout))


def exit_of(host: ZygoteHost) -> asyncio.Future[str]:
    """The reason on_exit tells. A second call of it would be an InvalidStateError in the loop, which fails the test run."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    host.on_exit(ended.set_result)
    return ended


class Replies:
    """Collects what `submit` answers and lets a test wait for a number of answers."""

    def __init__(self) -> None:
        self.got: list[Reply] = []
        self._changed = asyncio.Event()

    def __call__(self, reply: Reply) -> None:
        self.got.append(reply)
        self._changed.set()

    async def wait(self, count: int) -> list[Reply]:
        async with asyncio.timeout(SOON.total_seconds()):
            while len(self.got) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.got


async def until(condition: Callable[..., bool]) -> None:
    """Wait for something that cannot call back, such as another process."""
    async with asyncio.timeout(SOON.total_seconds()):
        while not condition():
            await asyncio.sleep(0.005)


def children_of(pid: int) -> set[int]:
    """Living and dead child processes, by /proc."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            fields = status.read_text("ascii", "replace").rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.add(int(status.parent.name))
    return found


def alive(pid: int) -> bool:
    """Running, neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def leaves_nothing() -> Iterator[None]:
    """Fails when descriptors, threads or child processes are more after than before."""

    def count() -> tuple[set[str], set[str], set[int]]:
        descriptors = {f"{fd} -> {_target(fd)}" for fd in Path("/proc/self/fd").iterdir()}
        return descriptors - {d for d in descriptors if d.endswith("-> gone")}, _threads(), children_of(os.getpid())

    before = count()
    yield
    after = count()
    descriptors, threads, processes = after[0] - before[0], after[1] - before[1], after[2] - before[2]
    left = f"left behind: descriptors {descriptors}, threads {threads}, processes {processes}"
    assert not any((descriptors, threads, processes)), left


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return "gone"


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
