"""What the data plane's benchmarks share: a node's parts in this process, without Temporal, PostgreSQL or S3.

The real router, supervisor, zygote and sandboxed hosts; only the artifact store is the in-memory twin. The node serves
in the benchmark's own event loop (uvloop, as in production), the load comes from benchmarks.hammer's process.
"""

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any, get_args

from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.config import SandboxSettings
from hotswap.domain.deployment import Environment
from hotswap.domain.quota import Quota
from hotswap.domain.routes import ArtifactRef
from hotswap.node.bundles import BundleCache
from hotswap.node.figures import FigureBook
from hotswap.node.limits import RouterLimits
from hotswap.node.pooled_hosts import PooledLauncher
from hotswap.node.quotas import UNLIMITED, Meters
from hotswap.node.router import Router
from hotswap.node.router_pool import RouterPool
from hotswap.node.router_setup import RouterSetup
from hotswap.node.routes import Route
from hotswap.node.supervisor import NodeSupervisor
from hotswap.ports.hosts import HostLauncher
from hotswap.runtime.launcher import ZygoteLauncher
from hotswap.runtime.sandbox import Tier
from tests.integration.node_bench import METHODS, TENANT_TOKEN, make_version

MIB = 1024 * 1024
TOKEN = TENANT_TOKEN
BODY = b'{"invoice": 4711, "currency": "EUR", "lines": [{"sku": "A-1", "amount": 12}, {"sku": "B-2", "amount": 3}]}'


def tier() -> Any:
    """The strongest this build's launcher knows."""
    known = get_args(Tier)
    return "strong" if "strong" in known else "standard"


@dataclass
class DataPlane:
    supervisor: NodeSupervisor
    router: Router | RouterPool
    meters: Meters | RouterPool
    port: int
    store: MemoryArtifactStore
    folder: Path

    def router_pids(self) -> list[int]:
        """The processes that route: this one, or those of several routers."""
        pool = self.router
        return [process.pid for process in pool.live] if isinstance(pool, RouterPool) else [os.getpid()]

    async def version(self, version: str, extra: str = "", methods: tuple[str, ...] = ()) -> ArtifactRef:
        return await make_version(
            self.store, self.folder, "invoice", version, extra=extra, methods=(*METHODS, *methods)
        )


@asynccontextmanager
async def data_plane(folder: Path, quota: Quota = UNLIMITED, routers: int = 1) -> AsyncIterator[DataPlane]:
    """`routers`: more than one are processes of their own."""
    store = MemoryArtifactStore()
    await store.ensure_bucket()
    launcher: HostLauncher = ZygoteLauncher(tier(), 512)
    await launcher.start()
    bundles = BundleCache(store, folder / "bundles", MIB, SandboxSettings(max_memory_mb=512), MIB)
    routes: dict[str, Route] = {}
    book = FigureBook()
    router: Router | RouterPool
    meters: Meters | RouterPool
    if routers == 1:
        meters = Meters(quota, monotonic)
        router = Router("node-bench", routes, TOKEN, timedelta(seconds=30), meters=meters)
        changed, spread = router.wake, None
    else:
        router = meters = RouterPool(_setup(quota), routers, routes, book)
        launcher = PooledLauncher(launcher, router)
        changed, spread = router.changed, router.spread
    supervisor = NodeSupervisor(
        "node-bench", launcher, bundles, book, timedelta(seconds=30), routes=routes, spread=spread
    )
    supervisor.on_change(changed)
    port = await router.bind("127.0.0.1", 0)
    gc.collect()
    gc.freeze()  # as a node does (hotswap.node.agent): a full collection of what was imported stops the loop for 40 ms
    await router.serve()
    try:
        yield DataPlane(supervisor, router, meters, port, store, folder)
    finally:
        await router.close()
        await supervisor.close()
        await launcher.close()


def _setup(quota: Quota) -> RouterSetup:
    return RouterSetup(
        node_id="node-bench",
        environment=Environment.DEVELOPMENT,
        tenant_token=TOKEN,
        issuer="hotswap",
        leeway=timedelta(0),
        invoke_timeout=timedelta(seconds=30),
        limits=RouterLimits(),
        quota=quota,
    )


def pin(pid: int, core: int) -> None:
    """Every thread of a process that there is now; 0 = the caller."""
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, exact to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
