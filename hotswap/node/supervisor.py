"""Carries out route orders on this node: loads what they name, swaps the route, drains and unloads the rest.

Implements hotswap.ports.node_runtime.NodeRuntime. Neighbours: activities.nodes (a workflow's orders) and
hotswap.node.reconcile (PostgreSQL's) both come through here, fenced by generation; hotswap.node.router serves from
`routes`; hotswap.node.hosts keeps each process alive. One event loop, one lock a plugin.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from hotswap.domain.analysis import Health
from hotswap.domain.base import bounded
from hotswap.domain.errors import HotSwapError, StaleGeneration
from hotswap.domain.routes import ArtifactRef, DesiredRoute, RouteOrder, RouteState
from hotswap.node.bundles import BundleCache
from hotswap.node.cores import Cores
from hotswap.node.figures import FigureBook
from hotswap.node.hosts import NO_GRACE, SupervisedHost, Tally, first_fault
from hotswap.node.routes import Lane, Route
from hotswap.node.smoke import smoke_host
from hotswap.node.standing import Standing
from hotswap.ports.hosts import HostLauncher, SchemaCheck
from hotswap.ports.node_runtime import NodeReport, ProbeReport, SmokeReport

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[None, None, None]]

EVERY_PLUGIN = "*"
"""In the list of plugins with a standby: all."""

FORGOTTEN_GRACE = timedelta(seconds=30)
"""Drain of versions that PostgreSQL no longer wants at all: the request timeout, so that nothing is cut."""


class NodeSupervisor(Standing):
    """NodeRuntime over real processes. `routes` maps a plugin to its Route; readers take it without a lock."""

    def __init__(
        self,
        node_id: str,
        launcher: HostLauncher,
        bundles: BundleCache,
        book: FigureBook,
        probe_every: timedelta,
        check_schema: SchemaCheck | None = None,
        standby: Collection[str] = (),
        routes: dict[str, Route] | None = None,
        spread: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`check_schema`: for smoke tests with an expectedSchema; without it those fail.

        `standby`: plugins whose answering versions have a spare process each, EVERY_PLUGIN for all.
        `routes`: to publish in, if somebody has it already.
        `spread(plugin)` returns when every router serves by the route just published; none = there is but the one here.
        """
        super().__init__(node_id, book)
        self.routes = routes if routes is not None else {}
        self._launcher = launcher
        self._bundles = bundles
        self._probe_every = probe_every
        self._check_schema = check_schema or _cannot_check
        self._standby = frozenset(standby)
        self._spread = spread or _nobody_else
        self._cores = Cores()
        self.tally = Tally()
        self._listeners: list[Callable[[str], None]] = []

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call `listener(plugin)` whenever a route is swapped or a host comes or goes."""
        self._listeners.append(listener)

    # -- NodeRuntime ---------------------------------------------------------------------------------------------

    async def stage(self, order: RouteOrder) -> NodeReport:
        lane = self._lane(order.plugin)
        lane.admit(order)
        async with lane.lock:
            await self._follow(lane, order, insist=True)
        return self._report(lane)

    async def apply(self, order: RouteOrder) -> NodeReport:
        # What is loaded is not loaded again, so a switch between loaded versions is one assignment. A loaded version
        # that is down just now stops nothing: its route is right, it restarts, and an abort must always go through.
        lane = self._lane(order.plugin)
        lane.admit(order)
        async with lane.lock:
            await self._follow(lane, order)
        return self._report(lane)

    async def probe(self, plugin: str, version: str) -> ProbeReport:
        lane = self._lanes.get(plugin)
        host = lane.hosts.get(version) if lane else None
        health, milliseconds, detail = Health.UNHEALTHY, 0.0, "is not loaded on this node"
        if host is not None:
            try:
                milliseconds = await host.probe()
                health, detail = Health.HEALTHY, ""
            except HotSwapError as fault:
                detail = fault.message
        return ProbeReport(
            node_id=self.node_id,
            plugin=plugin,
            version=version,
            health=health,
            latency_ms=milliseconds,
            detail=bounded(detail),
        )

    async def probe_all(self, plugin: str) -> tuple[ProbeReport, ...]:
        """Probe every version of the plugin that is loaded here, side by side."""
        lane = self._lanes.get(plugin)
        versions = sorted(lane.hosts) if lane else []
        return tuple(await asyncio.gather(*(self.probe(plugin, version) for version in versions)))

    async def smoke(self, plugin: str, version: str, timeout: timedelta) -> SmokeReport:
        lane = self._lanes.get(plugin)
        host = lane.hosts.get(version) if lane else None
        if host is None:
            return SmokeReport(
                node_id=self.node_id, plugin=plugin, version=version, passed=False, detail="is not loaded on this node"
            )
        tests = (await self._bundles.manifest(host.ref)).smoke_tests
        return await smoke_host(self.node_id, host, tests, timeout, self._check_schema)

    async def retire(self, order: RouteOrder, grace: timedelta) -> NodeReport:
        lane = self._lane(order.plugin)
        lane.admit(order)
        async with lane.lock:
            await self._follow(lane, order)
            self._drain_surplus(lane, grace)
        if lane.draining:
            # The draining goes on when the caller is cancelled: it is already out of the routes.
            await asyncio.wait(set(lane.draining))
        return self._report(lane)

    # -- reconciliation ------------------------------------------------------------------------------------------

    async def restore(self, desired: DesiredRoute) -> None:
        """Follow what PostgreSQL says, pins included. A version that cannot load does not block the others: it is
        kept trying. Raises StaleGeneration when a newer order was heard meanwhile."""
        lane = self._lane(desired.order.plugin)
        lane.admit(desired.order)
        if desired.order.generation == lane.generation and desired.pins == lane.pins:
            return
        async with lane.lock:
            await self._follow(lane, desired.order, desired.pins, keep_trying=True)

    async def settle(self, desired: DesiredRoute) -> None:
        """Follow what PostgreSQL says and unload what it does not name, also at a generation that is in force here already.

        A version that cannot load is kept trying. Raises StaleGeneration when a newer order was heard meanwhile.
        """
        lane = self._lane(desired.order.plugin)
        lane.admit(desired.order)
        async with lane.lock:
            await self._follow(lane, desired.order, desired.pins, keep_trying=True)
            self._drain_surplus(lane, FORGOTTEN_GRACE)

    async def drop_surplus(self, order: RouteOrder) -> None:
        """Drain and unload what the route in force does not name; nothing while another order is in force or under way."""
        lane = self._lanes.get(order.plugin)
        if lane is None or lane.lock.locked() or not self._surplus(lane):
            return
        async with lane.lock:
            if lane.generation == lane.fence == order.generation:
                log.warning(
                    "generation %d of %s does not name %s; unloading what an order that was lost left here",
                    order.generation,
                    order.plugin,
                    ", ".join(self._surplus(lane)),
                    extra={"plugin": order.plugin},
                )
                self._drain_surplus(lane, FORGOTTEN_GRACE)

    async def forget(self, plugin: str, fence: int) -> None:
        """Stop serving a plugin that PostgreSQL wants no more, unless an order came since `fence` was read."""
        lane = self._lanes.get(plugin)
        if lane is None or lane.fence != fence:
            return
        if lane.idle and not lane.needed():
            del self._lanes[plugin]
            return
        async with lane.lock:
            if lane.fence != fence:
                return
            if lane.needed():
                log.warning("%s is wanted here no more; unloading it", plugin, extra={"plugin": plugin})
                lane.fence += 1  # whatever emptied the route has at least this generation
                lane.generation, lane.state, lane.pins = lane.fence, RouteState(), {}
                self._publish(lane)
                await self._spread(plugin)
            self._drain_surplus(lane, FORGOTTEN_GRACE)

    async def tidy(self, unused_for: timedelta) -> None:
        """Drop bundles and counters that nothing uses any more."""
        hosts = [host for lane in self._lanes.values() for host in lane.hosts.values()]
        self._book.forget({(host.ref.plugin, host.ref.version) for host in hosts})
        await self._bundles.prune((host.ref.digest for host in hosts), unused_for)

    async def close(self) -> None:
        """End every host at once. For the end of the node, after the router has drained."""
        self.routes.clear()
        for lane in self._lanes.values():
            lane.fence += 1
            if lane.loading is not None:
                lane.loading.cancel()
        draining = [task for lane in self._lanes.values() for task in lane.draining]
        hosts = [host for lane in self._lanes.values() for host in lane.hosts.values()]
        await asyncio.gather(*(host.retire(NO_GRACE) for host in hosts), *draining)

    # -- how -----------------------------------------------------------------------------------------------------

    def _lane(self, plugin: str) -> Lane:
        return self._lanes.setdefault(plugin, Lane(plugin))

    async def _follow(
        self,
        lane: Lane,
        order: RouteOrder,
        pins: Mapping[str, ArtifactRef] | None = None,
        *,
        insist: bool = False,
        keep_trying: bool = False,
    ) -> None:
        """Load what is missing, then swap. Under the lane's lock. A failure changes nothing that serves.

        `insist`: the candidate must be up too if it was loaded before. `keep_trying`: what cannot load is kept as crashed.
        """
        lane.check(order)  # a newer order may have come while this one waited for the lock
        wanted = dict(lane.pins if pins is None else pins)
        refs = {ref.version: ref for ref in (*wanted.values(), *order.state.versions())}
        fresh = [self._new_host(ref) for ref in refs.values() if not _has(lane, ref)]
        loaded = [lane.hosts[ref.version] for ref in refs.values() if _has(lane, ref)]
        for host in loaded:
            host.hurry()
        candidate = order.state.candidate
        work: list[Work] = [partial(_load_or_keep, host) if keep_trying else host.load for host in fresh]
        if insist:  # only on the candidate: a stable version that keeps crashing must not keep its successor out
            work += [host.ensure for host in loaded if host.ref == candidate]
        if work:
            await self._load(lane, order, work, fresh)
        for host in fresh:
            replaced = lane.hosts.pop(host.ref.version, None)
            lane.hosts[host.ref.version] = host
            if replaced is not None:  # same version, other bytes: a plugin that was deleted and made anew
                self._drain(lane, replaced, FORGOTTEN_GRACE)
        lane.generation, lane.state, lane.pins = order.generation, order.state, wanted
        self._publish(lane)
        await self._spread(lane.plugin)

    def _new_host(self, ref: ArtifactRef) -> SupervisedHost:
        counter = self._book.counter(ref.plugin, ref.version)
        return SupervisedHost(
            ref,
            self._bundles.prepare,
            self._launcher,
            counter,
            self._probe_every,
            self._changed,
            self._cores,
            self.tally,
        )

    async def _load(self, lane: Lane, order: RouteOrder, work: list[Work], fresh: list[SupervisedHost]) -> None:
        """Do the work in parallel, all or nothing: on failure, cancel or a newer order none of `fresh` is left."""
        loading = lane.loading = asyncio.create_task(first_fault(work))
        done = False
        try:
            await asyncio.wait({loading})
            if loading.cancelled():
                raise StaleGeneration(
                    f"generation {order.generation} of {lane.plugin} was overtaken by generation {lane.fence} while loading"
                )
            loading.result()
            lane.check(order)
            done = True
        finally:
            lane.loading = None
            if not done:
                loading.cancel()
                await asyncio.wait({loading})
                if not loading.cancelled():
                    loading.exception()  # seen: the caller gets its own
                await asyncio.gather(*(host.retire(NO_GRACE) for host in fresh))

    def _publish(self, lane: Lane) -> None:
        route = lane.route(self.node_id)
        answering: Collection[str] = ()
        if route is None:
            self.routes.pop(lane.plugin, None)
        else:
            self.routes[lane.plugin] = route
            if self._standby & {lane.plugin, EVERY_PLUGIN}:
                answering = route.answering()
        for host in lane.hosts.values():
            host.stand_by(host.ref.version in answering)
        self._changed(lane.plugin)

    def _surplus(self, lane: Lane) -> list[str]:
        named = {ref.version for ref in lane.needed()}
        return [version for version in lane.hosts if version not in named]

    def _drain_surplus(self, lane: Lane, grace: timedelta) -> None:
        for version in self._surplus(lane):
            self._drain(lane, lane.hosts.pop(version), grace)

    def _drain(self, lane: Lane, host: SupervisedHost, grace: timedelta) -> None:
        task = asyncio.create_task(host.retire(grace), name=f"drain {host.ref.plugin} {host.ref.version}")
        lane.draining[task] = host
        task.add_done_callback(lambda done: self._drained(lane, done))

    def _drained(self, lane: Lane, done: asyncio.Task[None]) -> None:
        host = lane.draining.pop(done)
        if not done.cancelled() and done.exception() is not None:
            log.error(
                "unloading %s %s failed",
                host.ref.plugin,
                host.ref.version,
                exc_info=done.exception(),
                extra={"plugin": host.ref.plugin, "version": host.ref.version},
            )

    def _changed(self, plugin: str) -> None:
        for listener in self._listeners:
            listener(plugin)


async def _cannot_check(schema: dict[str, Any], result: Any, timeout: timedelta) -> str:
    return "its expectedSchema cannot be checked on this node"


async def _nobody_else(plugin: str) -> None:
    del plugin


def _has(lane: Lane, ref: ArtifactRef) -> bool:
    host = lane.hosts.get(ref.version)
    return host is not None and host.ref.digest == ref.digest


async def _load_or_keep(host: SupervisedHost) -> None:
    """Load; a version that cannot goes on trying and is no fault of the others."""
    try:
        await host.load()
    except HotSwapError as fault:
        host.keep_trying(fault)
