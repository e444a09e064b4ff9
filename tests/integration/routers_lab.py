"""A node's data plane with routers in processes of their own, over real sandboxed hosts: what their tests share."""

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.config import SandboxSettings
from hotswap.domain.deployment import Environment
from hotswap.domain.quota import Quota, QuotaOverride
from hotswap.domain.routes import ArtifactRef, RouteOrder
from hotswap.node.bundles import BundleCache
from hotswap.node.call_spans import CallSpans
from hotswap.node.figures import FigureBook
from hotswap.node.limits import RouterLimits
from hotswap.node.pooled_hosts import PooledLauncher
from hotswap.node.quotas import UNLIMITED
from hotswap.node.router_pool import RouterPool
from hotswap.node.router_setup import RouterSetup
from hotswap.node.routes import Route
from hotswap.node.supervisor import NodeSupervisor
from hotswap.ports.tenant_settings import TenantSettings
from hotswap.runtime.launcher import ZygoteLauncher
from tests.http.router_client import Response, Wire, request
from tests.integration.node_bench import TENANT_TOKEN, make_version

MIB = 1024 * 1024
LONG = timedelta(seconds=60)
"""For requests that must not run out of time on a busy machine."""

EXTRA = """
    async def count(self, parameters, context):
        print(f"ran {parameters['id']}", flush=True)
        await asyncio.sleep(0.02)
        return {"id": parameters["id"]}

    async def tell(self, parameters, context):
        told = context.secrets if parameters.get("secret") else context.config
        return {"told": dict(told), "pid": os.getpid()}

    async def forge(self, parameters, context):
        for line in lines_of_routers():
            os.write(line, b"no frame at all")
        await GATE.wait()

    async def shut(self, parameters, context):
        for line in lines_of_routers():
            socket.socket(fileno=os.dup(line)).shutdown(socket.SHUT_RDWR)
        await GATE.wait()

    async def hold(self, parameters, context):
        await GATE.wait()
        return {}

    async def free(self, parameters, context):
        GATE.set()
        return {}

    async def leak(self, parameters, context):
        print("the secret is", context.secrets["key"], flush=True)
        raise ValueError("could not use " + context.secrets["key"])


import gc
import socket

GATE = asyncio.Event()


def lines_of_routers():
    lines = [each for each in gc.get_objects() if type(each).__name__ == "HostLine" and each._index]
    return [line._channel.fileno() for line in lines if line._channel is not None]
"""
METHODS = ("echo", "boom", "die", "count", "tell", "hold", "free", "leak", "forge", "shut")


class FakeTenants:
    """A NodeTenants that a test changes by hand."""

    def __init__(self) -> None:
        self.disabled: set[tuple[str, str]] = set()
        self.rows: dict[str, dict[str, TenantSettings]] = {}

    def current(self, tenant: str, plugin: str) -> TenantSettings | None:
        return self.rows.get(plugin, {}).get(tenant)

    def known(self, plugin: str) -> dict[str, TenantSettings]:
        return self.rows.get(plugin, {})

    def plugins(self) -> Sequence[str]:
        return list(self.rows)

    async def ensure(self, plugin: str) -> None:
        self.rows.setdefault(plugin, {})

    async def refresh(self) -> None: ...


@dataclass
class Site:
    supervisor: NodeSupervisor
    pool: RouterPool
    book: FigureBook
    tenants: FakeTenants
    store: MemoryArtifactStore
    folder: Path
    port: int
    setup: RouterSetup
    spans: list[ReadableSpan]
    versions: dict[str, ArtifactRef] = field(default_factory=dict)

    async def version(self, version: str, plugin: str = "invoice", **more: Any) -> ArtifactRef:
        made = await make_version(self.store, self.folder, plugin, version, extra=EXTRA, methods=METHODS, **more)
        self.versions[version] = made
        return made

    async def stage(self, made: RouteOrder) -> None:
        await self.supervisor.stage(made)

    async def wires(self) -> list[Wire]:
        """A connection to each router, in the order of their numbers."""
        found: dict[int, Wire] = {}
        while len(found) < len(self.pool.live):
            before = await self._connections()
            wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
            await wire.send(request("missing", plugin="nothing"))
            await wire.receive()
            after = await self._connections()
            number = next(number for number, count in after.items() if count > before.get(number, 0))
            if number in found:
                await wire.close()
                while (await self._connections())[number] >= after[number]:
                    await asyncio.sleep(0.002)
            else:
                found[number] = wire
        return [found[number] for number in sorted(found)]

    async def _connections(self) -> dict[int, int]:
        await self.pool.refresh()
        return {process.number: process.gauges["connections"] for process in self.pool.live}


class ManyRouters:
    """The site as tests.http.router_contract wants it."""

    hangs = "hold"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._wires: list[Wire] = []
        self._before = 0

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self._site.port))
        self._wires.append(wire)
        return wire

    async def call(self, method: str = "echo", tenant: str = "acme", body: bytes = b"{}") -> Response:
        wire = await self.wire()
        await wire.send(request(method, tenant, body))
        return await wire.receive()

    async def begin(self) -> None:
        self._before = await self.ran()

    async def ran(self) -> int:
        pool = self._site.pool
        await pool.refresh()
        async with asyncio.timeout(20):
            while pool.unsettled:
                await asyncio.sleep(0.01)
                await pool.refresh()
        counted = self._site.book.counter("invoice", "1.0.0")
        totals = counted.totals()
        return totals.requests - totals.failures + counted.rejected - self._before

    async def no_clients(self) -> None:
        async with asyncio.timeout(20):
            await self._site.pool.refresh()
            while self._site.pool.connections:
                await asyncio.sleep(0.005)
                await self._site.pool.refresh()

    async def limit(self, tenant: str, quota: QuotaOverride) -> None:
        self._site.pool.set_overrides({(tenant, "invoice"): quota})
        await self._site.pool.spread("invoice")

    @asynccontextmanager
    async def stalled(self) -> AsyncIterator[str]:
        [pid] = [host.pid for host in self._site.supervisor.hosts() if host.plugin == "invoice"]
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield "echo"
        finally:
            os.kill(pid, signal.SIGCONT)

    async def close(self) -> None:
        for wire in self._wires:
            await wire.close()
        await self.no_clients()  # `Site.wires` counts connections


async def ask(wire: Wire, method: str, plugin: str = "invoice", body: bytes = b"{}", tenant: str = "acme") -> Response:
    await wire.send(request(method, tenant, body, plugin=plugin))
    return await wire.receive()


class Ran(logging.Handler):
    """Counts what plugins printed: the only thing a shut-in process can leave that outlives it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.times: Counter[int] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.times.update(int(number) for number in re.findall(r"^ran (\d+)$", record.getMessage()))


@contextlib.contextmanager
def executions() -> Iterator[Ran]:
    ran, plugins = Ran(), logging.getLogger("hotswap.plugin")
    level = plugins.level
    plugins.addHandler(ran)
    plugins.setLevel(logging.INFO)
    yield ran
    plugins.setLevel(level)
    plugins.removeHandler(ran)


@asynccontextmanager
async def routers(
    folder: Path,
    count: int = 2,
    quota: Quota = UNLIMITED,
    standby: tuple[str, ...] = (),
    limits: RouterLimits | None = None,
) -> AsyncIterator[Site]:
    store = MemoryArtifactStore()
    await store.ensure_bucket()
    tenants = FakeTenants()
    zygote = ZygoteLauncher("standard", 512, tenants=tenants)
    routes: dict[str, Route] = {}
    book = FigureBook()
    setup = RouterSetup(
        node_id="node-t",
        environment=Environment.QA,
        tenant_token=TENANT_TOKEN,
        issuer="hotswap",
        leeway=timedelta(0),
        invoke_timeout=LONG,
        limits=limits or RouterLimits(wait_seconds=LONG.total_seconds()),
        quota=quota,
        sampling_rate=0.0,
    )
    spans: list[ReadableSpan] = []
    making = CallSpans(spans.append, Resource({}), 0.0, "node-t", "QA")
    async with contextlib.AsyncExitStack() as parts:
        pool = RouterPool(setup, count, routes, book, tenants, zygote.learn_secrets, making)
        launcher = PooledLauncher(zygote, pool)
        parts.push_async_callback(launcher.close)
        await launcher.start()
        bundles = BundleCache(store, folder / "bundles", MIB, SandboxSettings(), MIB, max_concurrency=2)
        supervisor = NodeSupervisor(
            "node-t",
            launcher,
            bundles,
            book,
            timedelta(seconds=30),
            standby=standby,
            routes=routes,
            spread=pool.spread,
        )
        supervisor.on_change(pool.changed)
        parts.push_async_callback(supervisor.close)
        parts.push_async_callback(pool.close)
        port = await pool.bind("127.0.0.1", 0)
        await pool.serve()
        yield Site(supervisor, pool, book, tenants, store, folder, port, setup, spans)
