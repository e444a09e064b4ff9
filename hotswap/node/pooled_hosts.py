"""Hosts that several router processes call: launched with a line for each, known to the pool from READY to the end.

`PooledLauncher` stands between the supervisor and the real launcher; `PooledHost` is a HostHandle whose calls in flight are
those of all routers, and which is drained when they all have let go of it. Neighbour: hotswap.node.router_pool.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import cast

from hotswap.node.router_pool import RouterPool
from hotswap.ports.hosts import HostHandle, HostLauncher, HostSpec, LinedHost, Reply


class PooledLauncher:
    """Implements hotswap.ports.hosts.HostLauncher."""

    def __init__(self, launcher: HostLauncher, pool: RouterPool) -> None:
        """`launcher` must give hosts with as many lines as it is asked for (LinedHost)."""
        self._launcher = launcher
        self._pool = pool

    @property
    def sandbox_tier(self) -> str:
        return self._launcher.sandbox_tier

    async def start(self) -> None:
        await self._launcher.start()

    async def launch(self, spec: HostSpec) -> HostHandle:
        spec = spec.model_copy(update={"lines": self._pool.lines})
        inner = cast(LinedHost, await self._launcher.launch(spec))
        self._pool.tell_tenants([spec.plugin])  # which were read for this launch, if it is the plugin's first
        return PooledHost(inner, spec, self._pool)

    async def close(self) -> None:
        await self._launcher.close()


class PooledHost:
    """Implements hotswap.ports.hosts.HostHandle."""

    def __init__(self, inner: LinedHost, spec: HostSpec, pool: RouterPool) -> None:
        self.inner = inner
        self.spec = spec
        self.id = 0
        self.leaving = False
        self._pool = pool
        inner.on_exit(self._exited)
        pool.add_host(self)

    def _exited(self, reason: str) -> None:
        del reason  # worded for reports; callers are told the verdict's
        self._pool.host_ended(self, *self.inner.verdict)

    @property
    def pid(self) -> int:
        return self.inner.pid

    @property
    def sandbox_tier(self) -> str:
        return self.inner.sandbox_tier

    @property
    def load_ms(self) -> float:
        return self.inner.load_ms

    @property
    def alive(self) -> bool:
        return self.inner.alive

    @property
    def in_flight(self) -> int:
        return self.inner.in_flight + self._pool.busy(self)

    def unbegun(self) -> int:
        return self.inner.unbegun()

    def submit(
        self,
        method: str,
        tenant: str,
        body: bytes,
        timeout: float,
        done: Callable[[Reply], None],
        traceparent: bytes = b"",
    ) -> None:
        self.inner.submit(method, tenant, body, timeout, done, traceparent)

    async def invoke(self, method: str, tenant: str, body: bytes, timeout: timedelta) -> bytes:
        return await self.inner.invoke(method, tenant, body, timeout)

    async def ping(self, timeout: timedelta) -> float:
        return await self.inner.ping(timeout)

    async def drain(self, grace: timedelta) -> bool:
        """Routers are told to let go of it: nobody gives it a call any more."""
        released = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds()):
                await self._pool.release(self)
                released = True
        return await self.inner.drain(grace) and released

    async def close(self) -> None:
        self._pool.host_ended(self, "DIED", "the host was closed")
        await self.inner.close()

    def on_exit(self, callback: Callable[[str], None]) -> None:
        self.inner.on_exit(callback)

    def memory_bytes(self) -> int:
        return self.inner.memory_bytes()

    def own_memory_bytes(self) -> int:
        return self.inner.own_memory_bytes()
