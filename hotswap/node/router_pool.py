"""The routers of a node when they run in processes of their own: one listener each, one state that all of them mirror.

To the node it is what one Router would be (`bind`, `serve`, `drain`, `close`, the gauges); to the supervisor it is who must
have heard of a route before an order is done (`spread`). Neighbours: hotswap.node.router_process is one process,
hotswap.node.mirror what all of them are told, pool_figures what they counted, pooled_hosts brings the hosts, shared_quotas
holds quotas over all. ADR 23 has the reasons.

What each process is told goes down one ordered channel, and a process that starts is told everything before it listens, so
there is no moment at which one that serves knows less than an order that was acknowledged.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any, Protocol, cast

from hotswap.domain.accounts import PublicKey
from hotswap.domain.errors import HotSwapError
from hotswap.domain.quota import QuotaOverride
from hotswap.node.call_spans import CallSpans
from hotswap.node.control import Message
from hotswap.node.figures import FigureBook
from hotswap.node.hosts import SupervisedHost
from hotswap.node.mirror import LearnSecrets, Mirror
from hotswap.node.pool_figures import PoolFigures
from hotswap.node.quotas import Key
from hotswap.node.router_process import RouterProcess
from hotswap.node.router_setup import RouterSetup
from hotswap.node.routes import Route
from hotswap.node.shared_quotas import QuotaMemory
from hotswap.node.traced_calls import EndedCall
from hotswap.ports.hosts import HostSpec, LinedHost
from hotswap.ports.tenant_settings import NodeTenants

log = logging.getLogger(__name__)

START_PATIENCE = 120.0
"""Seconds for a process to start and take in the whole state: 0.5 s of CPU; this is for a machine in deep trouble."""

ACK_PATIENCE = 5.0
"""Seconds an order waits for one router before that router is killed: a healthy one answers in a millisecond."""

HUNG_PATIENCE, LOOK_SECONDS = 10.0, 2.0
"""A router that answers nothing for the first is killed; it is asked this often."""

RENEW_PATIENCE = 10.0
"""Seconds a starting router waits for hosts that have no line left to be replaced by fresh ones."""

FIRST_BACKOFF, LAST_BACKOFF, STEADY_SECONDS = 0.05, 10.0, 10.0
"""Before a router that keeps dying is started again, doubled in between; one that lived long is started at once."""

SPARE_LINES = 2
"""Of each host, beyond one for each router: so many routers may die before hosts must be replaced (ADR 23)."""


class SharedProcess(Protocol):
    """A host process as hotswap.node.pooled_hosts.PooledHost shows it."""

    id: int
    leaving: bool

    @property
    def spec(self) -> HostSpec: ...
    @property
    def inner(self) -> LinedHost: ...


class RouterPool(PoolFigures):
    """Belongs to the node's event loop. `routers` processes from `bind` to `close`."""

    def __init__(
        self,
        setup: RouterSetup,
        routers: int,
        routes: Mapping[str, Route],
        book: FigureBook,
        tenants: NodeTenants | None = None,
        learn_secrets: LearnSecrets | None = None,
        spans: CallSpans | None = None,
    ) -> None:
        """`routes` is the supervisor's; `spans` makes spans of calls that routers traced."""
        super().__init__(book)
        self.lines = routers + SPARE_LINES
        """How many a host must be launched with."""
        self.unknown_key = asyncio.Event()
        """As TenantAuth's."""
        self._setup = setup
        self._spans = spans
        self._count = routers
        self._routes = routes
        self._mirror = Mirror(routes, lambda handle: cast(SharedProcess, handle).id, tenants, learn_secrets)
        self._quotas = QuotaMemory(routers)
        self._keepers: list[asyncio.Task[None]] = []
        self._reserved: socket.socket | None = None
        self._may_serve = asyncio.Event()
        self._closing = asyncio.Event()
        self._sending_away = False
        self._first: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in range(routers)]
        """Whether each has served, or why it could not."""
        for first in self._first:
            first.add_done_callback(_seen)
        self._hosts: dict[int, SharedProcess] = {}
        self._last_host = 0
        self._host_left = asyncio.Event()

    # -- as a router ---------------------------------------------------------------------------------------------

    async def bind(self, host: str, port: int) -> int:
        """As Router.bind, and start the processes, which then take in the state. Raises OSError when the address is taken.

        The node itself holds the address, without listening, so that it stays ours while no router lives.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        reserved = self._reserved = socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        reserved.bind((host, port))  # not shared yet, so that another node on this port is noticed
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        chosen: int = reserved.getsockname()[1]
        for number in range(self._count):
            keeper = asyncio.create_task(self._keep(number, host, chosen), name=f"router {number}")
            self._keepers.append(keeper)
        return chosen

    async def serve(self) -> None:
        """Let all of them listen; returns when they do. Raises HotSwapError when one cannot."""
        self._may_serve.set()
        await asyncio.gather(*self._first)

    def send_away(self) -> None:
        """As Router.send_away; one that is started later does so too."""
        self._sending_away = True
        self._tell_all({"kind": "send away"})

    async def drain(self, grace: timedelta, idle: timedelta = timedelta(0)) -> bool:
        """As Router.drain, all side by side. None that dies is started again."""
        self._closing.set()
        try:
            async with asyncio.timeout((idle + grace).total_seconds() + HUNG_PATIENCE):
                done = await asyncio.gather(*(process.drain(grace, idle) for process in self._processes.values()))
        except TimeoutError:
            log.warning("a router process did not say that it had drained")
            return False
        return all(done)

    async def close(self) -> None:
        """End every router. Repeats are fine."""
        self._closing.set()
        await asyncio.gather(*(process.close() for process in self._processes.values()))
        await asyncio.gather(*self._keepers)
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        self._quotas.close()

    # -- what the node's parts tell ------------------------------------------------------------------------------

    def changed(self, plugin: str) -> None:
        """A route was swapped, or a process of the plugin came or went (NodeSupervisor.on_change)."""
        self._tell_all(self._mirror.route_change(plugin))

    async def spread(self, plugin: str) -> None:
        """Return when every router that serves does so by the route in force."""
        self.changed(plugin)
        await asyncio.gather(*(process.ask(ACK_PATIENCE) for process in self.live))

    def learn(self, keys: Sequence[PublicKey], revoked: Collection[str]) -> None:
        """As TenantAuth.learn."""
        self._tell_all(self._mirror.key_change(keys, revoked))

    def set_overrides(self, overrides: Mapping[Key, QuotaOverride]) -> None:
        """As Meters.set_overrides."""
        self._tell_all(self._mirror.override_change(overrides))

    def tell_tenants(self, plugins: Iterable[str] | None = None) -> None:
        """Tell what changed of tenants' settings, and who is disabled. `plugins`: to look at; None = all."""
        for message in self._mirror.tenant_changes(plugins):
            self._tell_all(message)

    def add_host(self, host: SharedProcess) -> None:
        """A fresh process: give every router a line to it. Before any route names it."""
        self._last_host += 1
        host.id = self._last_host
        self._hosts[host.id] = host
        for process in self._processes.values():
            self._give(process, host)

    def busy(self, host: SharedProcess) -> int:
        """Calls that routers have under way there, as they told last."""
        return sum(process.busy.get(host.id, 0) for process in self._processes.values())

    async def release(self, host: SharedProcess) -> None:
        """Have no router use it any more; returns when nothing of theirs is in flight there."""
        host.leaving = True
        self._left()
        await asyncio.gather(*(process.release(host.id) for process in self._processes.values()))

    def host_ended(self, host: SharedProcess, limit: str, reason: str) -> None:
        """It is no more, or about to be: what routers have in flight there has failed, for this reason."""
        host.leaving = True
        if self._hosts.pop(host.id, None) is not None:
            self._tell_all({"kind": "ended", "id": host.id, "limit": limit, "reason": reason})
            for process in self._processes.values():
                process.given.discard(host.id)
        self._left()

    # -- one process's life --------------------------------------------------------------------------------------

    async def _keep(self, number: int, host: str, port: int) -> None:
        """Keep one router alive until the pool closes."""
        first = self._first[number]
        backoff = 0.0
        while not self._closing.is_set():
            began = monotonic()
            try:
                how = await self._live_once(number, host, port)
            except Exception as fault:
                # Nobody awaits this task: no process to be had, or a bug below, must neither end the keeping nor spin.
                log.exception("keeping router process %d alive failed", number)
                how = f"could not be kept alive: {fault}"
            if self._closing.is_set():
                break
            self.deaths += 1
            if not first.done():
                first.set_exception(HotSwapError(f"router process {number} cannot serve: {how}"))
                break
            lived = monotonic() - began
            backoff = 0.0 if lived >= STEADY_SECONDS else min(max(backoff * 2, FIRST_BACKOFF), LAST_BACKOFF)
            log.error("router process %d %s; starting another in %.2f s", number, how, backoff)
            await _either(self._closing.wait(), asyncio.sleep(backoff))
        if not first.done():
            first.cancel()

    async def _live_once(self, number: int, host: str, port: int) -> str:
        """One process from start to end; returns how it ended, in words. Raises OSError when none can be started."""
        process = self._processes[number] = RouterProcess(number, self._heard)
        try:
            self._tell_begin(process, host, port)
            if await process.ask(START_PATIENCE):  # lines to hosts are few: none for one that does not even start
                self._tell_everything(process)
                if await process.ask(START_PATIENCE) and await self._allowed(process):
                    await self._serve_with(process)
            await process.ended.wait()
        finally:
            process.kill()
            await process.ended.wait()
            self.buried(process)
            self._quotas.wipe(number)
        return f"(pid {process.pid}) {process.how}"

    async def _allowed(self, process: RouterProcess) -> bool:
        """Wait for `serve`, and for hosts that it must have; False when the process or the pool has ended before."""
        await _either(self._may_serve.wait(), process.ended.wait(), self._closing.wait())
        await self._renew_worn(process)
        return not process.gone and not self._closing.is_set()

    async def _serve_with(self, process: RouterProcess) -> None:
        """From here on orders wait for it; it listens once it knows what came before."""
        process.live = True
        process.tell({"kind": "serve"})
        if await process.ask(START_PATIENCE):
            log.info("router process %d (pid %d) serves", process.number, process.pid)
            if not self._first[process.number].done():
                self._first[process.number].set_result(None)
            await self._watch(process)

    async def _watch(self, process: RouterProcess) -> None:
        """Until it has ended, or does not answer."""
        while not process.gone:
            await _either(process.ended.wait(), asyncio.sleep(LOOK_SECONDS))
            if not self._closing.is_set():
                await process.ask(HUNG_PATIENCE)

    async def _renew_worn(self, process: RouterProcess) -> None:
        """Have hosts that had no line left for this process replaced; what cannot be replaced does not hold it up for ever."""
        worn = self._mirror.used_hosts() - process.given
        if not worn or self._closing.is_set():
            return
        log.info("%d hosts have no line left for router process %d: replacing them", len(worn), process.number)
        versions = {version for route in self._routes.values() for version in route.hosts.values()}
        for version in versions:
            cast(SupervisedHost, version).renew(lambda handle: getattr(handle, "id", 0) in worn)
        try:
            async with asyncio.timeout(RENEW_PATIENCE):
                while any(host.id in worn and not host.leaving for host in list(self._hosts.values())):
                    if process.gone or self._closing.is_set():
                        return
                    self._host_left.clear()
                    await _either(self._host_left.wait(), process.ended.wait(), self._closing.wait())
        except TimeoutError:
            log.warning("some hosts were not replaced in time; router process %d serves without them", process.number)

    def _left(self) -> None:
        self._host_left.set()

    # -- telling a process ---------------------------------------------------------------------------------------

    def _tell_all(self, message: Message | None) -> None:
        if message is None:
            return
        for process in self._processes.values():
            if process.informed:
                process.tell(message)

    def _tell_begin(self, process: RouterProcess, host: str, port: int) -> None:
        begin = {
            "kind": "begin",
            "setup": self._setup.model_dump(mode="json"),
            "routers": self._count,
            "number": process.number,
            "host": host,
            "port": port,
        }
        process.tell(begin, [os.dup(self._quotas.descriptor), os.dup(process.journal.descriptor)])

    def _tell_everything(self, process: RouterProcess) -> None:
        """From here on it is told every change."""
        process.informed = True
        if self._sending_away:
            process.tell({"kind": "send away"})
        for message in self._mirror.everything():
            process.tell(message)
        for each in self._hosts.values():
            if not each.leaving:
                self._give(process, each)
        for message in self._mirror.routes():
            process.tell(message)

    def _give(self, process: RouterProcess, host: SharedProcess) -> None:
        """A line to the host, unless none is left."""
        if process.gone or not process.informed:
            return
        line = host.inner.take_line()
        if line is None:
            return
        process.given.add(host.id)
        message: Message = {
            "kind": "host",
            "id": host.id,
            "spec": host.spec.model_dump(mode="json"),
            "line": line.index,
        }
        process.tell(message, [line.channel, line.watermark])

    # -- hearing a process ---------------------------------------------------------------------------------------

    def _heard(self, process: RouterProcess, message: Message) -> None:
        match message["kind"]:
            case "told":
                self.absorb(message["counts"])
                for plugin, version, _ in message["counts"]:
                    if (asked := self._version(plugin, version)) is not None:
                        asked.asked = True
            case "traced":
                if self._spans is not None:
                    self._spans.record([EndedCall(*call) for call in message["calls"]])
            case "wake":
                if (host := self._version(message["plugin"], message["version"])) is not None:
                    host.wake()
            case "unknown key":
                self.unknown_key.set()
            case "distrust":
                if (broken := self._hosts.get(message["id"])) is not None:
                    broken.inner.distrust(message["what"])
            case "log":
                record = logging.getLogger(message["name"])
                record.log(message["level"], "router process %d: %s", process.number, message["text"])
            case unknown:
                log.error("router process %d said %s, which nobody knows here", process.number, unknown)

    def _version(self, plugin: str, version: str) -> SupervisedHost | None:
        route = self._routes.get(plugin)
        found = route.hosts.get(version) if route is not None else None
        return cast(SupervisedHost, found) if found is not None else None


def _seen(first: "asyncio.Future[None]") -> None:
    """Its fault is told by `serve`, if anybody asks."""
    if not first.cancelled():
        first.exception()


async def _either(*work: Any) -> None:
    """Return when one is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
