"""One node, whole: starts its parts in the order that loses nothing, and stops them in the order that loses nothing.

Start: sandbox proven, listeners bound, routes restored from PostgreSQL, Temporal polled, row written, ready. Stop: not ready,
no more orders, row removed, router drained, hosts ended. Neighbours: hotswap.node.__main__ builds the adapters and calls `run`;
activities.nodes brings a workflow's orders. Serving needs neither Temporal nor PostgreSQL once it is ready.
"""

import asyncio
import gc
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

from temporalio.client import Client

from activities.drift import NodeRepairActivities
from activities.nodes import NodeActivities
from hotswap.activity_tracing import ActivityTracing
from hotswap.config import MIB, NodeSettings, Settings, SettingsInvalid
from hotswap.domain.deployment import Environment
from hotswap.domain.registry import NodeRecord
from hotswap.node.admin import AdminServer, create_admin
from hotswap.node.alarm import FaultAlarm, by_signal
from hotswap.node.bundles import BundleCache
from hotswap.node.call_spans import CallSpans
from hotswap.node.cores import Cores
from hotswap.node.eviction import EvictionPolicy, Evictor
from hotswap.node.figures import FigureBook
from hotswap.node.front import front_of
from hotswap.node.handover import Predecessor, Successor
from hotswap.node.health_log import HealthLog
from hotswap.node.orders import Orders, until
from hotswap.node.reconcile import Reconciler
from hotswap.node.router import Router
from hotswap.node.succession import Succession, drain_grace, predecessor
from hotswap.node.supervisor import NodeSupervisor
from hotswap.node.tenant_auth import TenantKeys
from hotswap.node.tenant_watch import TenantWatch
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.hosts import HostLauncher, SchemaCheck
from hotswap.ports.records import UnitOfWorkFactory
from hotswap.ports.tenant_changes import TenantChanges
from hotswap.ports.tenant_settings import NodeTenants
from hotswap.runtime import preload
from hotswap.runtime.signature_guard import guard_of
from hotswap.telemetry import Tracing

log = logging.getLogger(__name__)

STOPPING = "nothing: it is stopping"


def check_settings(settings: Settings) -> None:
    """Raises SettingsInvalid naming every setting without which a node must not start."""
    faults = []
    if settings.node.admin_token is None or not settings.node.admin_token.get_secret_value():
        faults.append("HOTSWAP_NODE__ADMIN_TOKEN is not set; every node needs one, the same in the environment")
    if settings.sandbox.tier == "none" and settings.node.environment is Environment.PRODUCTION:
        faults.append("HOTSWAP_SANDBOX__TIER=none is never accepted for Production; use strong or standard")
    if settings.node.replace and settings.node.routers != 1:
        faults.append(
            f"HOTSWAP_NODE__REPLACE=true does not go with HOTSWAP_NODE__ROUTERS={settings.node.routers}: listeners of "
            "router processes cannot be handed over; set HOTSWAP_NODE__ROUTERS=1, or stop the node and start it anew"
        )
    for module in preload.missing(settings.sandbox.preload):
        faults.append(
            f"{preload.SETTING}: there is no module '{module}'; correct its name, install it, or take it off the list"
        )
    if faults:
        raise SettingsInvalid("settings are wrong:\n" + "\n".join(f"  {fault}" for fault in faults))


class NodeAgent:
    """The parts of a node. `run` serves until `stop` is set."""

    def __init__(
        self,
        settings: Settings,
        launcher: HostLauncher,
        store: ArtifactStore,
        unit_of_work: UnitOfWorkFactory,
        connect: Callable[[], Awaitable[Client]],
        check_schema: SchemaCheck | None = None,
        tenants: NodeTenants | None = None,
        tenant_changes: TenantChanges | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`connect` gives a Temporal client or raises Unavailable; `tenants`, which the launcher asks too, is kept fresh.
        `tracing`: where spans of tenants' calls go; without it, or with none exported, none are made.

        Raises SettingsInvalid. Made inside the running loop.
        """
        check_settings(settings)
        node = settings.node
        assert node.admin_token is not None
        self._settings = settings
        self._environment = str(node.environment)
        self._launcher = launcher
        self._unit_of_work = unit_of_work
        self._connect = connect
        self._tenant_changes = tenant_changes
        self._book = FigureBook()
        self._front = front_of(settings, launcher, self._book, tenants, _call_spans(tracing, node))
        self.router = self._front.router
        bundles = BundleCache(
            store,
            node.data_dir / "bundles",
            settings.max_plugin_bytes,
            settings.sandbox,
            node.max_reply_bytes,
            min(node.max_concurrency, len(Cores())),
            check_signature=partial(guard_of(settings.signatures, unit_of_work).check, environment=node.environment),
        )
        self.supervisor = NodeSupervisor(
            node.id,
            self._front.launcher,
            bundles,
            self._book,
            node.probe,
            check_schema,
            standby=node.standby,
            routes=self._front.routes,
            spread=self._front.spread,
        )
        self._evictor = Evictor(
            self.supervisor,
            EvictionPolicy(idle_after=node.idle_after, budget_bytes=node.memory_budget_mb * MIB),
        )
        self.supervisor.on_change(self._front.changed)
        self._waiting_for = "its parts to start"
        self._admin_app = create_admin(
            node.environment,
            node.admin_token.get_secret_value(),
            self.supervisor,
            self._book,
            self.router,
            lambda: self._waiting_for,
            self._front.refresh,
        )

    async def run(self, stop: asyncio.Event, announce: Callable[[], None]) -> None:
        """Serve until `stop`, or until another process has taken this one's place; `announce` is called once when ready.

        Raises SandboxUnavailable, HandoverFailed, OSError (address taken).
        """
        async with AsyncExitStack() as parts:
            before = await predecessor(self._settings.node)
            if before is not None:
                parts.push_async_callback(before.close)
            record = await self._start(parts, before)
            reconciler = Reconciler(
                self.supervisor,
                self._unit_of_work,
                record,
                self._settings.node.reconcile,
                self._settings.node.beat,
                self._front.set_quotas,
                self._front.tenants,
                HealthLog(self.supervisor, self._unit_of_work, self._settings.node.environment),
            )
            self._waiting_for = "PostgreSQL, to restore its routes"
            if not await until(stop, reconciler.restore()):
                return
            tenant_keys = TenantKeys(self._front.verifier, self._unit_of_work, self._settings.node.reconcile)
            await tenant_keys.look()
            # What was restored stays, as what was imported does (__main__): with 1,000 plugins a full collection of it would
            # stop the router for 25 ms.
            gc.collect()
            gc.freeze()
            following = {asyncio.create_task(tenant_keys.run(), name="tenants' keys")}
            if self._tenant_changes is not None:
                watch = TenantWatch(self._tenant_changes, reconciler.tenants_changed)
                following.add(asyncio.create_task(watch.run(), name="tenants' changes"))
            try:
                if before is None:
                    await self.router.serve()
                elif not await until(stop, before.ready()):
                    return
                await self._serve(reconciler, stop, announce, before)
            finally:
                for task in following:
                    task.cancel()
                await asyncio.wait(following)

    async def _start(self, parts: AsyncExitStack, before: Predecessor | None) -> NodeRecord:
        node = self._settings.node
        parts.push_async_callback(self._launcher.close)
        await self._launcher.start()
        parts.push_async_callback(self.supervisor.close)
        parts.push_async_callback(_cancel, asyncio.create_task(self._evictor.run(), name="evict"))
        parts.push_async_callback(self.router.close)
        if before is None:
            router_port = await self.router.bind(node.host, node.router_port)
            self._admin = AdminServer(self._admin_app, node.host, node.admin_port)
            self._admin.start()
        else:
            router_port = int(before.router[0].getsockname()[1])
            assert isinstance(self.router, Router)  # check_settings refuses several
            await self.router.listening.adopt(before.router)
            self._admin = AdminServer(self._admin_app, node.host, node.admin_port, before.admin[0])
        parts.push_async_callback(self._admin.close)
        host = f"[{node.advertise_host}]" if ":" in node.advertise_host else node.advertise_host
        record = NodeRecord(
            node_id=node.id,
            environment=node.environment,
            boot_id=uuid.uuid4().hex,
            router_url=f"http://{host}:{router_port}",
            admin_url=f"http://{host}:{self._admin.port}",
            sandbox_tier=self._launcher.sandbox_tier,
            last_seen_at=datetime.now(UTC),
        )
        log.info("%s serves %s, admin %s", node.id, record.router_url, record.admin_url, extra={"node": node.id})
        return record

    async def _serve(
        self,
        reconciler: Reconciler,
        stop: asyncio.Event,
        announce: Callable[[], None],
        before: Predecessor | None,
    ) -> None:
        node = self._settings.node
        orders = self._orders(reconciler)
        router = self.router if isinstance(self.router, Router) else None
        succession = Succession(node, self.supervisor, self._book, router, self._admin, orders, reconciler)
        keeping: asyncio.Task[None] | None = None
        after: Successor | None = None
        try:
            if before is not None:
                await succession.take_over(before)
            orders.start()
            await until(stop, orders.first_poll())
            if before is None:
                await reconciler.beat_now()
            keeping = asyncio.create_task(reconciler.run(), name="reconcile")
            succession.open()
            self._waiting_for = ""
            announce()
            log.info("ready", extra={"node": node.id})
            after = await succession.until_over(stop)
            if after is None:
                await self._stand_aside(succession)
        finally:
            self._waiting_for = STOPPING
            if keeping is not None:
                await _cancel(keeping)
            await succession.close(replaced=after is not None)
            await orders.stop()
            if after is None:
                log.info("stopping", extra={"node": node.id})
                await reconciler.leave_now()
            answered = await (self._drain(reconciler) if after is None else succession.let_go(after, stop))
            if not answered:
                log.warning("%d requests were cut at the end", self.router.in_flight)

    async def _stand_aside(self, succession: Succession) -> None:
        """Not ready any more, so that balancers look elsewhere; until they have, a node as any other, and new connections
        are served. Every answer asks its client to connect anew.
        """
        self._waiting_for = STOPPING
        self.router.send_away()
        if delay := self._settings.node.drain_delay:
            log.info("not ready any more; listening for another %s", delay, extra={"node": self._settings.node.id})
            await succession.close(replaced=False)
            await asyncio.sleep(delay.total_seconds())

    async def _drain(self, reconciler: Reconciler) -> bool:
        """Answer what is here and on its way here; whether all of it was answered."""
        following = asyncio.create_task(reconciler.follow_to_the_end(), name="follow routes")
        try:
            return await self.router.drain(drain_grace(self._settings.node), self._settings.node.drain_idle)
        finally:
            await _cancel(following)

    async def _tell_of_faults(self, client: Client) -> None:
        node = self._settings.node
        await FaultAlarm(self.supervisor, by_signal(client, node.environment, node.id)).run(node.beat)

    def _orders(self, reconciler: Reconciler) -> Orders:
        does = NodeActivities(self.supervisor)
        return Orders(
            self.supervisor.node_id,
            self._settings.temporal.address,
            self._connect,
            [
                does.stage_version,
                does.apply_routes,
                does.probe_version,
                does.smoke_version,
                does.retire_versions,
                NodeRepairActivities(self.supervisor.node_id, reconciler.repair).reconcile_node,
            ],
            [ActivityTracing({"node": self.supervisor.node_id, "environment": self._environment})],
            self._tell_of_faults,
        )


def _call_spans(tracing: Tracing | None, node: NodeSettings) -> CallSpans | None:
    if tracing is None or not tracing.exported:
        return None
    return CallSpans(tracing.record, tracing.resource, tracing.sampling_rate, node.id, str(node.environment))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
