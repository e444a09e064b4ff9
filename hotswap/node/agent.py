"""One node, whole: starts its parts in the order that loses nothing, and stops them in the order that loses nothing.

Start: sandbox proven, listeners bound, routes restored from PostgreSQL, Temporal polled, row written, ready. Stop: no more
orders, router drained, row removed, hosts ended. Neighbours: hotswap.node.__main__ builds the adapters and calls `run`;
activities.nodes brings a workflow's orders. Serving needs neither Temporal nor PostgreSQL once it is ready.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

from temporalio.client import Client
from temporalio.worker import Worker

from activities.drift import NodeRepairActivities
from activities.nodes import NodeActivities
from hotswap.activity_tracing import ActivityTracing
from hotswap.config import MIB, NodeSettings, Settings, SettingsInvalid
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Unavailable
from hotswap.domain.ids import node_queue
from hotswap.domain.registry import NodeRecord
from hotswap.node.admin import AdminServer, create_admin
from hotswap.node.alarm import FaultAlarm, by_signal
from hotswap.node.bundles import BundleCache
from hotswap.node.call_spans import CallSpans
from hotswap.node.cores import Cores
from hotswap.node.eviction import EvictionPolicy, Evictor
from hotswap.node.figures import FigureBook
from hotswap.node.front import front_of
from hotswap.node.health_log import HealthLog
from hotswap.node.outage import Outage
from hotswap.node.reconcile import Reconciler
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

FIRST_POLL_WAIT = 2.0
"""Seconds to wait for Temporal before the node is ready without it."""

RETRY_FIRST, RETRY_LAST = 0.1, 2.0
"""Seconds between attempts to reach Temporal."""

ORDERS_GRACE = timedelta(seconds=1)
"""How long orders under way may take once the node stops; then they are cancelled and their workflow orders elsewhere."""

DRAIN_GRACE = timedelta(seconds=35)
"""For requests in flight at the end: the default request timeout and a little."""

ORDERS_AT_ONCE = 100
"""Activities at once: orders of one plugin queue behind a lock here, so a few slow plugins must not fill all slots."""


def check_settings(settings: Settings) -> None:
    """Raises SettingsInvalid naming every setting without which a node must not start."""
    faults = []
    if settings.node.admin_token is None or not settings.node.admin_token.get_secret_value():
        faults.append("HOTSWAP_NODE__ADMIN_TOKEN is not set; every node needs one, the same in the environment")
    if settings.sandbox.tier == "none" and settings.node.environment is Environment.PRODUCTION:
        faults.append("HOTSWAP_SANDBOX__TIER=none is never accepted for Production; use strong or standard")
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
        self._polling = asyncio.Event()
        self._temporal = Outage(f"Temporal at {settings.temporal.address}")
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
        """Serve until `stop`; `announce` is called once when ready. Raises SandboxUnavailable, OSError (address taken)."""
        async with AsyncExitStack() as parts:
            record = await self._start(parts)
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
            if not await _unless(stop, reconciler.restore()):
                return
            tenant_keys = TenantKeys(self._front.verifier, self._unit_of_work, self._settings.node.reconcile)
            await tenant_keys.look()
            following = {asyncio.create_task(tenant_keys.run(), name="tenants' keys")}
            if self._tenant_changes is not None:
                watch = TenantWatch(self._tenant_changes, reconciler.tenants_changed)
                following.add(asyncio.create_task(watch.run(), name="tenants' changes"))
            try:
                await self.router.serve()
                await self._serve(reconciler, stop, announce)
            finally:
                for task in following:
                    task.cancel()
                await asyncio.wait(following)

    async def _start(self, parts: AsyncExitStack) -> NodeRecord:
        node = self._settings.node
        parts.push_async_callback(self._launcher.close)
        await self._launcher.start()
        parts.push_async_callback(self.supervisor.close)
        parts.push_async_callback(_cancel, asyncio.create_task(self._evictor.run(), name="evict"))
        parts.push_async_callback(self.router.close)
        router_port = await self.router.bind(node.host, node.router_port)
        admin = AdminServer(self._admin_app, node.host, node.admin_port)
        parts.push_async_callback(admin.close)
        admin.start()
        host = f"[{node.advertise_host}]" if ":" in node.advertise_host else node.advertise_host
        record = NodeRecord(
            node_id=node.id,
            environment=node.environment,
            boot_id=uuid.uuid4().hex,
            router_url=f"http://{host}:{router_port}",
            admin_url=f"http://{host}:{admin.port}",
            sandbox_tier=self._launcher.sandbox_tier,
            last_seen_at=datetime.now(UTC),
        )
        log.info("%s serves %s, admin %s", node.id, record.router_url, record.admin_url, extra={"node": node.id})
        return record

    async def _serve(self, reconciler: Reconciler, stop: asyncio.Event, announce: Callable[[], None]) -> None:
        polling = asyncio.create_task(self._poll(stop, reconciler), name="orders")
        try:
            await _unless(stop, self._first_poll())
            await reconciler.beat_now()
            keeping = asyncio.create_task(reconciler.run(), name="reconcile")
            self._waiting_for = ""
            announce()
            log.info("ready", extra={"node": self.supervisor.node_id})
            await stop.wait()
            log.info("stopping", extra={"node": self.supervisor.node_id})
            self._waiting_for = "nothing: it is stopping"
            keeping.cancel()
            await asyncio.wait({keeping})
        finally:
            stop.set()
            await asyncio.wait({polling})
            await reconciler.leave_now()
            if not await self.router.drain(DRAIN_GRACE):
                log.warning("%d requests were cut at the end", self.router.in_flight)
        if not polling.cancelled() and (fault := polling.exception()) is not None:
            raise fault

    async def _first_poll(self) -> None:
        try:
            async with asyncio.timeout(FIRST_POLL_WAIT):
                await self._polling.wait()
        except TimeoutError:
            log.warning("serving without Temporal for now", extra={"node": self.supervisor.node_id})

    async def _poll(self, stop: asyncio.Event, reconciler: Reconciler) -> None:
        """Take orders until `stop`; a Temporal that is away is tried again for ever."""
        delay = RETRY_FIRST
        while not stop.is_set():
            try:
                client = await self._connect()
                worker = self._worker(client, reconciler)
                async with worker:
                    self._temporal.passed()
                    self._polling.set()
                    delay = RETRY_FIRST
                    await self._tell_of_faults(client, stop)
            except Unavailable as fault:
                self._temporal.failed(fault)
            except Exception:
                # The worker gave up (a namespace that is gone, a rejected key). The node serves on.
                log.exception("taking orders failed; trying again", extra={"node": self.supervisor.node_id})
            await _unless(stop, asyncio.sleep(delay))
            delay = min(delay * 2, RETRY_LAST)

    async def _tell_of_faults(self, client: Client, stop: asyncio.Event) -> None:
        node = self._settings.node
        alarm = FaultAlarm(self.supervisor, by_signal(client, node.environment, node.id))
        await _unless(stop, alarm.run(node.beat))

    def _worker(self, client: Client, reconciler: Reconciler) -> Worker:
        orders = NodeActivities(self.supervisor)
        return Worker(
            client,
            task_queue=node_queue(self.supervisor.node_id),
            activities=[
                orders.stage_version,
                orders.apply_routes,
                orders.probe_version,
                orders.smoke_version,
                orders.retire_versions,
                NodeRepairActivities(self.supervisor.node_id, reconciler.repair).reconcile_node,
            ],
            identity=self.supervisor.node_id,
            interceptors=[ActivityTracing({"node": self.supervisor.node_id, "environment": self._environment})],
            max_concurrent_activities=ORDERS_AT_ONCE,
            graceful_shutdown_timeout=ORDERS_GRACE,
        )


def _call_spans(tracing: Tracing | None, node: NodeSettings) -> CallSpans | None:
    if tracing is None or not tracing.exported:
        return None
    return CallSpans(tracing.record, tracing.resource, tracing.sampling_rate, node.id, str(node.environment))


async def _unless(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Do the work, but leave it when told to stop. True when it was done; raises what it raised."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        for each in (task, stopping):
            each.cancel()
        await asyncio.wait({task, stopping})


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
