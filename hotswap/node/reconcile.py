"""Keeps a node true to PostgreSQL: restores what should run at boot, repairs what orders missed, tells that it lives.

Neighbours: hotswap.node.supervisor does the work (fenced, so a slow read can undo nothing), hotswap.node.agent starts
this before it polls Temporal. PostgreSQL away never stops serving: logged once an outage, tried again and again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta

from hotswap.domain.base import bounded
from hotswap.domain.errors import HotSwapError, StaleGeneration, Unavailable
from hotswap.domain.quota import QuotaOverride, TenantQuota
from hotswap.domain.registry import NodeRecord
from hotswap.domain.routes import DesiredRoute
from hotswap.node.health_log import HealthLog
from hotswap.node.outage import READ_TIMEOUT, Outage
from hotswap.node.supervisor import NodeSupervisor
from hotswap.ports.records import UnitOfWorkFactory
from hotswap.ports.tenant_settings import TenantSettingsProvider

log = logging.getLogger(__name__)

RESTORES_AT_ONCE = 16
"""Plugins restored in parallel: enough to hide downloads, few enough not to starve what already serves."""

LEAVE_TIMEOUT = 2.0

RETRY_SECONDS = 0.5
"""Between attempts while PostgreSQL is away at boot."""

SURPLUS_LOOKS = 6
"""Looks at the same route after which a host that it does not name is nobody's: 30 s by default, while a workflow orders
the retirement within one second of the route it follows from."""

TIDY_EVERY = timedelta(hours=1)
UNUSED_FOR = timedelta(hours=24)
"""Bundles that nothing used for this long are removed: a rollback within a day finds its bundle on the disk."""


LISTED_FAULTS = 20
"""Quotas that cannot be used, named in the log at most; it is logged again only when something changes."""


class Reconciler:
    """The node's side of the record: its row in `nodes`, and the routes it should serve."""

    def __init__(
        self,
        supervisor: NodeSupervisor,
        unit_of_work: UnitOfWorkFactory,
        node: NodeRecord,
        reconcile_every: timedelta,
        beat_every: timedelta,
        set_quotas: Callable[[Mapping[tuple[str, str], QuotaOverride]], None],
        tenants: TenantSettingsProvider | None = None,
        health_log: HealthLog | None = None,
    ) -> None:
        """`set_quotas`: told every tenant's own limits, by (tenant, plugin), whenever any has changed.

        `tenants`: whose settings are kept fresh along with the routes.
        """
        self._tenants = tenants
        self._health_log = health_log
        self._supervisor = supervisor
        self._unit_of_work = unit_of_work
        self._node = node
        self._reconcile_every = reconcile_every.total_seconds()
        self._beat_every = beat_every.total_seconds()
        self._outage = Outage("PostgreSQL")
        self._set_quotas = set_quotas
        self._quota_stamp = ""
        self._seen: dict[str, int] = {}
        self._looks: dict[str, tuple[int, int]] = {}
        self._stuck: dict[str, int] = {}
        self._standing_back = False

    async def restore(self) -> None:
        """Serve everything PostgreSQL says, waiting for PostgreSQL as long as it takes."""
        while True:
            try:
                desired = await self._desired()
                await self._follow_quotas()
            except (Unavailable, TimeoutError) as fault:
                self._outage.failed(fault)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._outage.passed()
                break
        await self._follow(desired)
        self._seen = {item.order.plugin: item.order.generation for item in desired}
        log.info("restored %d plugins", len(desired), extra={"node": self._node.node_id})

    async def run(self) -> None:
        """Beat, reconcile and tidy until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._beat_every, self.beat))
            group.create_task(self._repeat(self._reconcile_every, self.reconcile))
            group.create_task(self._repeat(self._reconcile_every, self._follow_quotas))
            if self._health_log is not None:
                group.create_task(self._repeat(self._reconcile_every, self._health_log.look))
            group.create_task(self._repeat(TIDY_EVERY.total_seconds(), self._tidy))

    async def beat(self) -> None:
        """Tell that the node lives; register when the record does not know this boot. Raises Unavailable."""
        async with asyncio.timeout(READ_TIMEOUT), self._unit_of_work() as uow:
            known = await uow.nodes.beat(self._node.node_id, self._node.boot_id)
            if not known and not self._standing_back:
                await uow.nodes.register(self._node)
                log.info("registered as %s", self._node.node_id, extra={"node": self._node.node_id})
            await uow.commit()

    def stand_back(self, yes: bool) -> None:
        """Do not register while another process takes this one's place: two of one id would take turns in the row."""
        self._standing_back = yes

    async def beat_now(self) -> None:
        """The first beat. PostgreSQL away is no reason to wait: `run` goes on beating."""
        await self._tried(self.beat)

    async def leave_now(self) -> None:
        """Forget the node's row: it stops in order. Best effort: a row left behind grows old and counts as lost."""
        await self._tried(self._leave)

    async def _leave(self) -> None:
        async with asyncio.timeout(LEAVE_TIMEOUT), self._unit_of_work() as uow:
            await uow.nodes.remove(self._node.node_id, self._node.boot_id)
            await uow.commit()

    async def reconcile(self) -> None:
        """Repair what was missed. Raises Unavailable.

        A generation is followed when two looks in a row have seen it: the first belongs to the workflow that wrote it
        and is about to order it, which tells of failures where this can only log them.
        """
        if self._tenants is not None:
            await self._tenants.refresh()
        fences = self._supervisor.fences()
        desired = await self._desired()
        missed = [item for item in desired if self._seen.get(item.order.plugin, 0) >= item.order.generation]
        self._seen = {item.order.plugin: item.order.generation for item in desired}
        await self._follow(missed)
        await self._unload_what_lost_orders_left(missed)
        for plugin, fence in fences.items():
            if plugin not in self._seen:
                await self._supervisor.forget(plugin, fence)

    async def _unload_what_lost_orders_left(self, followed: Sequence[DesiredRoute]) -> None:
        """Unload what the same route has not named for many looks: the order to retire it was lost (the node was away)."""
        before, self._looks = self._looks, {}
        for item in followed:
            plugin, generation = item.order.plugin, item.order.generation
            known, looks = before.get(plugin, (generation, 0))
            self._looks[plugin] = (generation, looks + 1 if known == generation else 1)
            if self._looks[plugin][1] >= SURPLUS_LOOKS:
                await self._supervisor.drop_surplus(item.order)

    async def tenants_changed(self) -> None:
        """Somebody changed tenants' rows: learn settings and follow pins, now. PostgreSQL away: the next beat does it."""
        await self._tried(self._follow_tenants)

    async def _follow_tenants(self) -> None:
        if self._tenants is not None:
            await self._tenants.refresh()
        await self._follow_quotas()
        heard = self._supervisor.fences()
        # A generation that no order has brought here yet is its workflow's to bring (see `reconcile`).
        await self._follow(
            [item for item in await self._desired() if heard.get(item.order.plugin) == item.order.generation]
        )

    async def follow_to_the_end(self) -> None:
        """What a process does that only finishes what it has, until cancelled: no orders reach it any more."""
        while True:
            await asyncio.sleep(self._beat_every)
            await self.follow_now()

    async def follow_now(self) -> None:
        """Follow the routes of PostgreSQL, whoever orders them. PostgreSQL away: the next look."""
        await self._tried(self._follow_all)

    async def _follow_all(self) -> None:
        fences = self._supervisor.fences()
        desired = await self._desired()
        await self._follow(desired)
        for plugin in fences.keys() - {item.order.plugin for item in desired}:
            await self._supervisor.forget(plugin, fences[plugin])

    async def repair(self, plugins: Sequence[str]) -> dict[str, str]:
        """Make these plugins here what PostgreSQL says, at once and surplus unloaded; says why for each, "" when it is done.

        Raises Unavailable, TimeoutError.
        """
        fences = self._supervisor.fences()
        desired = {item.order.plugin: item for item in await self._desired()}

        async def one(plugin: str) -> str:
            try:
                if plugin in desired:
                    await self._supervisor.settle(desired[plugin])
                elif plugin in fences:
                    await self._supervisor.forget(plugin, fences[plugin])
            except HotSwapError as fault:
                return f"{type(fault).__name__}: {fault.message}"
            return ""

        return {plugin: await one(plugin) for plugin in plugins}

    async def catch_up(self) -> None:
        """Make everything here what PostgreSQL says now: what changed between `restore` and the end of the process before.

        A plugin that cannot follow is logged and does not keep the others back. Raises Unavailable, TimeoutError.
        """
        if self._tenants is not None:
            await self._tenants.refresh()
        await self._follow_quotas()
        desired = await self._desired()
        wanted = {item.order.plugin: item.order.generation for item in desired}
        for plugin, fault in (await self.repair(sorted(wanted.keys() | self._supervisor.fences().keys()))).items():
            if fault:
                log.error("%s cannot be followed here (%s); trying again", plugin, fault, extra={"plugin": plugin})
        self._seen = wanted

    async def _desired(self) -> Sequence[DesiredRoute]:
        async with asyncio.timeout(READ_TIMEOUT), self._unit_of_work() as uow:
            return await uow.routes.desired(self._node.environment)

    async def _follow_quotas(self) -> None:
        """Read tenants' own limits when any has changed, in small pages: the router works on the same loop."""
        async with asyncio.timeout(READ_TIMEOUT), self._unit_of_work() as uow:
            stamp = await uow.quotas.stamp()
            if stamp == self._quota_stamp:
                return
            overrides: dict[tuple[str, str], QuotaOverride] = {}
            faults: list[TenantQuota] = []
            after: tuple[str, str] | None = None
            while page := await uow.quotas.list(after):
                after = (page[-1].tenant, page[-1].plugin)
                overrides.update({(one.tenant, one.plugin): one.override for one in page if not one.fault})
                faults += [one for one in page if one.fault]
        for one in faults[:LISTED_FAULTS]:
            log.error(
                "the quota of tenant %s for %s cannot be used (%s); the default holds until its row is mended",
                one.tenant,
                one.plugin,
                bounded(one.fault),
                extra={"plugin": one.plugin},
            )
        self._set_quotas(overrides)
        self._quota_stamp = stamp

    async def _follow(self, desired: Sequence[DesiredRoute]) -> None:
        slots = asyncio.Semaphore(RESTORES_AT_ONCE)

        async def one(item: DesiredRoute) -> None:
            async with slots:
                await self._follow_one(item)

        async with asyncio.TaskGroup() as group:
            for item in desired:
                group.create_task(one(item))

    async def _follow_one(self, item: DesiredRoute) -> None:
        """A plugin that cannot be followed is logged once for its generation and does not keep the others waiting."""
        order = item.order
        try:
            await self._supervisor.restore(item)
        except StaleGeneration:
            return  # an order came while we read: it knows better
        except HotSwapError as fault:
            reason = f"{type(fault).__name__}: {fault.message}"
        except Exception as fault:
            log.exception("restoring failed", extra={"plugin": order.plugin})
            reason = repr(fault)
        else:
            self._stuck.pop(order.plugin, None)
            return
        if self._stuck.get(order.plugin) != order.generation:
            self._stuck[order.plugin] = order.generation
            log.error(
                "generation %d of %s cannot be followed here (%s); trying again",
                order.generation,
                order.plugin,
                reason,
                extra={"plugin": order.plugin},
            )

    async def _tidy(self) -> None:
        await self._supervisor.tidy(UNUSED_FOR)
        if self._health_log is not None:
            await self._health_log.forget()

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._tried(work)

    async def _tried(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (Unavailable, TimeoutError) as fault:
            self._outage.failed(fault)
        except Exception:
            # A bug here must not take a node down that serves.
            log.exception("looking after the record failed", extra={"node": self._node.node_id})
        else:
            self._outage.passed()
