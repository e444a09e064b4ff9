"""How a node's routers are made: one in the node's own process, or several in processes of their own (ADR 23).

Neighbours: hotswap.node.agent asks for one front and treats both kinds alike; hotswap.node.router is the former,
hotswap.node.router_pool the latter.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Protocol, cast

from hotswap.config import MAX_ROUTERS, Settings
from hotswap.domain.quota import QuotaOverride
from hotswap.node.call_spans import CallSpans
from hotswap.node.figures import FigureBook
from hotswap.node.limits import RouterLimits
from hotswap.node.metrics import RouterGauges
from hotswap.node.pooled_hosts import PooledLauncher
from hotswap.node.quotas import Key, Meters
from hotswap.node.router import Router
from hotswap.node.router_pool import RouterPool
from hotswap.node.router_setup import RouterSetup
from hotswap.node.routes import Route
from hotswap.node.tenant_auth import TenantAuth, Verifier
from hotswap.ports.hosts import HostLauncher
from hotswap.ports.tenant_settings import NodeTenants, TenantSettingsProvider


class Doorway(RouterGauges, Protocol):
    """A node's router, or all of them."""

    async def bind(self, host: str, port: int) -> int: ...
    async def serve(self) -> None: ...
    def send_away(self) -> None: ...
    async def drain(self, grace: timedelta, idle: timedelta = ...) -> bool: ...
    async def close(self) -> None: ...


class LearnsSecrets(Protocol):
    """A launcher whose hosts are told secrets by routers too: hotswap.runtime.launcher.ZygoteLauncher."""

    def learn_secrets(self, plugin: str, values: Iterable[str]) -> None: ...


@dataclass(slots=True)
class Front:
    """What the rest of a node needs of its routers."""

    router: Doorway
    launcher: HostLauncher
    """To make hosts by."""
    verifier: Verifier
    set_quotas: Callable[[Mapping[Key, QuotaOverride]], None]
    tenants: TenantSettingsProvider | None
    """Whose refreshing reaches the routers."""
    changed: Callable[[str], None]
    """To be told whenever a plugin's route or processes change."""
    spread: Callable[[str], Awaitable[None]] | None
    refresh: Callable[[], Awaitable[None]]
    """Returns when the node's counts hold what every router counted until now."""
    routes: dict[str, Route] = field(default_factory=dict)
    """For the supervisor to publish in."""


def front_of(
    settings: Settings,
    launcher: HostLauncher,
    book: FigureBook,
    tenants: NodeTenants | None,
    spans: CallSpans | None = None,
) -> Front:
    """As HOTSWAP_NODE__ROUTERS says. Made inside the running loop. `spans`: without them no call is traced."""
    node = settings.node
    limits = RouterLimits(
        body_bytes=node.max_request_bytes,
        reply_bytes=node.max_reply_bytes,
        connections=node.max_connections,
        connections_per_address=node.max_connections_per_address,
        queued=node.max_queued,
        in_flight_per_host=node.max_in_flight_per_host,
    )
    if node.routers == 1:
        return _within(settings, launcher, tenants, limits, spans)
    routers = node.routers or min(len(os.sched_getaffinity(0)), MAX_ROUTERS)
    return _of_processes(settings, launcher, book, tenants, limits, routers, spans)


def _within(
    settings: Settings,
    launcher: HostLauncher,
    tenants: NodeTenants | None,
    limits: RouterLimits,
    spans: CallSpans | None,
) -> Front:
    node, token = settings.node, _platform_token(settings)
    routes: dict[str, Route] = {}
    auth = TenantAuth(node.environment, token, settings.auth.issuer, settings.auth.clock_skew)
    meters = Meters(node.quota.quota(), monotonic)
    router = Router(
        node.id,
        routes,
        token,
        node.invoke_timeout,
        limits,
        meters,
        tenant_auth=auth,
        disabled=tenants.disabled if tenants is not None else frozenset(),
        spans=spans,
    )
    return Front(router, launcher, auth, meters.set_overrides, tenants, router.wake, None, _fresh_already, routes)


def _of_processes(
    settings: Settings,
    launcher: HostLauncher,
    book: FigureBook,
    tenants: NodeTenants | None,
    limits: RouterLimits,
    routers: int,
    spans: CallSpans | None,
) -> Front:
    node = settings.node
    setup = RouterSetup(
        node_id=node.id,
        environment=node.environment,
        tenant_token=_platform_token(settings),
        issuer=settings.auth.issuer,
        leeway=settings.auth.clock_skew,
        invoke_timeout=node.invoke_timeout,
        limits=limits,
        quota=node.quota.quota(),
        sampling_rate=spans.sampling_rate if spans is not None else None,
        log_level=settings.telemetry.log_level,
    )
    routes: dict[str, Route] = {}
    pool = RouterPool(setup, routers, routes, book, tenants, cast(LearnsSecrets, launcher).learn_secrets, spans)
    told = _ToldTenants(tenants, pool) if tenants is not None else None
    return Front(
        pool,
        PooledLauncher(launcher, pool),
        pool,
        pool.set_overrides,
        told,
        pool.changed,
        pool.spread,
        pool.refresh,
        routes,
    )


class _ToldTenants:
    """Settings that the routers hear of as soon as the node has refreshed them."""

    def __init__(self, tenants: NodeTenants, pool: RouterPool) -> None:
        self._tenants = tenants
        self._pool = pool
        self.current = tenants.current

    async def ensure(self, plugin: str) -> None:
        await self._tenants.ensure(plugin)
        self._pool.tell_tenants([plugin])

    async def refresh(self) -> None:
        try:
            await self._tenants.refresh()
        finally:
            self._pool.tell_tenants()  # what was learned before a fault counts too


def _platform_token(settings: Settings) -> str:
    token = settings.node.tenant_token
    return token.get_secret_value() if token is not None else ""


async def _fresh_already() -> None:
    """A router in this process counts where the node reads."""
