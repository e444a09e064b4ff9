"""Serves `POST /invoke/{tenant}/{plugin}/{method}`: decide the version, hand the body to its host, send back the result.

No task and no copy for a request: parsed by hotswap.node.connection, decided by hotswap.routing.decide on the Route that
hotswap.node.supervisor last published, submitted to the host with a callback, answered from that callback. A request
keeps the process it was given to, so a switch loses nothing; one that finds its host restarting waits a moment and is
decided again, so that a rollback also rescues who waits.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Set
from datetime import timedelta
from time import monotonic

from hotswap.domain.deployment import Environment
from hotswap.node import refusals
from hotswap.node.answers import Answers
from hotswap.node.backlog import FIRST_WINDOW
from hotswap.node.clients import Clients
from hotswap.node.connection import Connection
from hotswap.node.exchange import Exchange
from hotswap.node.figures import Result
from hotswap.node.limits import RouterLimits
from hotswap.node.listening import Listening
from hotswap.node.queues import Queues, Together
from hotswap.node.quotas import UNLIMITED, Meters
from hotswap.node.refusals import Refusal
from hotswap.node.routes import Route
from hotswap.node.serving import ServedVersion
from hotswap.node.targets import Targets
from hotswap.node.tenant_auth import FORBIDDEN, TenantAuth
from hotswap.node.traced_calls import TracedCalls
from hotswap.node.waiting import WaitingRoom
from hotswap.ports.hosts import Reply
from hotswap.routing.decide import choose_version

_CLOSE = b"connection: close\r\n"
_KEEP = b"connection: keep-alive\r\n"


class Router:
    """The listener and everything in flight. Belongs to one event loop."""

    routers, deaths = 1, 0
    """For a node's figures (hotswap.node.metrics.RouterGauges): the only one there is, which dies with its process."""

    def __init__(
        self,
        node_id: str,
        routes: Mapping[str, Route],
        tenant_token: str,
        invoke_timeout: timedelta,
        limits: RouterLimits | None = None,
        meters: Meters | None = None,
        tenant_auth: TenantAuth | None = None,
        disabled: Set[tuple[str, str]] = frozenset(),
        spans: TracedCalls | None = None,
        together: Together | None = None,
    ) -> None:
        """`routes` is read for each request and never changed here. `tenant_token` opens everything; with `tenant_auth`,
        which judges in its place, it is not looked at. `meters`: tenants' quotas; without them nobody has any.
        `spans`: of calls that are traced; without them none is. `together`: when other routers call the same hosts.
        """
        if not tenant_token and tenant_auth is None:
            raise ValueError("the data plane needs a tenant token, or what judges tenants' own")
        self.limits = limits or RouterLimits()
        self.too_large = Refusal(
            413, "PAYLOAD_TOO_LARGE", f"the body is over {self.limits.body_bytes} bytes", close=True
        )
        self.in_flight = 0
        self._routes = routes
        self._answers = Answers(node_id)
        self._auth = tenant_auth or TenantAuth(Environment.DEVELOPMENT, tenant_token)
        self._timeout = invoke_timeout.total_seconds()
        self._disabled = disabled
        self._spans = spans
        self._targets = Targets()
        self.clients = Clients(self.limits)
        self.refused: Counter[str] = Counter()
        """Requests turned away, by what they were too many for: a quota's name, or `overload`."""
        self._room = WaitingRoom()
        self._sending_away = False
        """Each client is told with its next answer that it is its connection's last."""
        self._draining = False
        """And no new one is taken: the router is quiet when the last has gone."""
        self._quiet = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.now = monotonic  # the clock of asyncio; uvloop's own has steps of 1 ms
        self._meters = Meters(UNLIMITED, self.now) if meters is None else meters
        self._unwatched = min(FIRST_WINDOW // (together.routers if together else 1), self.limits.in_flight_per_host)
        """Calls under way below which a process cannot be too busy while nothing is known of any."""
        self.queues = Queues(self.limits.queued, self.limits.in_flight_per_host, self._turn, self._turn_away, together)
        self.listening = Listening(lambda: Connection(self))
        self._sweeper: asyncio.TimerHandle | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def bind(self, host: str, port: int, *, shared: bool = False) -> int:
        """Take the address; returns the port (chosen when `port` is 0). Raises OSError when the address is taken.

        `shared`: with others of this user that do so too; the kernel spreads connections over all that listen.

        Nobody is listened to yet: a connection is refused, so that a balancer asks another node until `serve`.
        """
        return await self.listening.bind(host, port, shared=shared)

    async def serve(self) -> None:
        """Listen, once the node serves all it should."""
        await self.listening.start()
        self._sweep()

    def send_away(self) -> None:
        """Tell each client with its next answer that it is its connection's last. New connections are still taken."""
        self._sending_away = True

    async def stop_listening(self) -> None:
        """Take no new connection but those that the kernel has accepted already, and send everybody away."""
        self._sending_away = True
        await self.listening.stop()
        self._draining = True  # not before: while those are taken there may be a moment without any client

    async def drain(self, grace: timedelta, idle: timedelta = timedelta(0)) -> bool:
        """Take no new connection, answer what is here and end each connection; True when all was done in time.

        `idle`: how long a connection without a request stays open, as its client may be sending one just then, which is
        answered. `grace`: how long what is under way after that may take.
        """
        await self.stop_listening()
        self._note_quiet()
        if await self._quiet_within(idle):
            return True
        self.clients.close_idle()
        return await self._quiet_within(grace)

    async def _quiet_within(self, patience: timedelta) -> bool:
        try:
            async with asyncio.timeout(patience.total_seconds()):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop listening and cut every connection. Repeats are fine."""
        self._sending_away = self._draining = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.listening.close()
        for exchange in (*self._room.empty(), *self.queues.close()):
            self._refuse(exchange, refusals.STOPPING)
        await self.clients.cut()
        if self._spans is not None:
            self._spans.flush()

    @property
    def connections(self) -> int:
        return len(self.clients)

    @property
    def waiting(self) -> int:
        return len(self._room)

    @property
    def queued(self) -> int:
        return self.queues.size

    @property
    def unsettled(self) -> int:
        return self.queues.unsettled

    @property
    def metered(self) -> int:
        return len(self._meters)

    def _sweep(self) -> None:
        # First, so that a fault in one look is not the end of all: nobody would be cut any more.
        self._sweeper = self._loop.call_later(self.limits.sweep_seconds, self._sweep)
        self._answers.tick()
        if self._spans is not None:
            self._spans.flush()
        self.clients.check(self.now())
        self.queues.forget(self._routes.values())

    # -- called by connections -----------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> Refusal | None:
        """As Clients.opened."""
        return self.clients.opened(connection)

    def gone(self, connection: Connection) -> None:
        self.clients.gone(connection)
        self._note_quiet()

    def admit(self, method: bytes, url: bytes, headers: Mapping[bytes, bytes]) -> tuple[str, str, str] | Refusal:
        """Judge a request by its head: (tenant, plugin, method), or why not. Runs before any of the body is kept."""
        grant = self._auth.known(headers.get(b"authorization", b""))
        if grant is None:
            return refusals.UNAUTHORIZED
        target = self._targets.get(url) or self._targets.read(url)
        if target is None:
            return refusals.NO_PATH
        if not grant.allows(target[0], target[1]):
            return FORBIDDEN
        if method != b"POST":
            return refusals.NO_METHOD
        now = self.now()
        meter = self._meters.of(target[0], target[1])
        if short := meter.charge(now):
            self.refused["requestsPerMinute"] += 1
            return refusals.over_rate(target[0], target[1], meter, short, now)
        return target

    def dispatch(self, exchange: Exchange) -> None:
        """Carry a request out; its connection hears of the answer by `complete`, perhaps before this returns."""
        self.in_flight += 1
        exchange.started = self.now()
        if exchange.refusal is not None:
            self._refuse(exchange, exchange.refusal)
            return
        if self._spans is not None:
            self._spans.begin(exchange)
        meter = self._meters.of(exchange.tenant, exchange.plugin)
        if limit := meter.enter(len(exchange.body) + self.limits.reply_bytes):
            self.refused[limit] += 1
            self._refuse(exchange, refusals.over_share(exchange.tenant, exchange.plugin, meter, limit))
            return
        exchange.meter = meter
        self._submit(exchange, min(self._timeout, meter.execution_seconds))

    def abandon(self, exchange: Exchange) -> None:
        """The client has gone. What runs is counted when it ends; what waits need not start."""
        exchange.abandoned = True
        if exchange.timer is not None:
            self._room.leave(exchange)
            self._drop(exchange)
        elif exchange.backlog is not None:
            self.queues.leave(exchange)
            self._drop(exchange)

    # -- a request's way -----------------------------------------------------------------------------------------

    def _submit(self, exchange: Exchange, left: float, turn_at: ServedVersion | None = None) -> None:
        """Decide and hand over. `left`: seconds of its time. `turn_at`: whose queue it waited in until its turn came."""
        route = self._routes.get(exchange.plugin)
        if route is None:
            self._refuse(exchange, refusals.unrouted(exchange.plugin, exchange.tenant))
            return
        if self._disabled and (exchange.tenant, exchange.plugin) in self._disabled:
            self._refuse(exchange, refusals.disabled(exchange.plugin, exchange.tenant))
            return
        version = choose_version(exchange.tenant, route.state, route.pins)
        if version is None:
            self._refuse(exchange, refusals.unrouted(exchange.plugin, exchange.tenant))
            return
        host = exchange.host = route.hosts[version]
        handle = host.pick()
        if handle is None or handle is exchange.handle:  # down, or the one that could not take it just now
            self._wait(exchange)
            return
        queues = self.queues
        if (
            (queues.known or handle.in_flight >= self._unwatched)
            and host is not turn_at
            and queues.is_behind(host, handle)
        ):
            queues.add(exchange, host)
            return
        exchange.handle = handle
        handle.submit(exchange.method, exchange.tenant, exchange.body, left, exchange.done, exchange.traceparent)

    def _again(self, exchange: Exchange, *, queued: bool = False, turn_at: ServedVersion | None = None) -> bool:
        """Decide anew for one that waited for its version: for a process, or `queued`. False when its time is over, which
        is then of the version that it waited for, whoever would be asked now. `turn_at`: as `_submit`.
        """
        host, meter, now = exchange.host, exchange.meter, self.now()
        assert host is not None
        assert meter is not None
        left = min(self._timeout, meter.execution_seconds) + exchange.started - now
        if queued:
            exchange.queue_of, exchange.turn_came = host, now
        if left > 0:
            self._submit(exchange, left, turn_at)
            return True
        if queued:
            self.queues.came_late(exchange, host, now)
        else:
            self._count_failure(host, exchange)
        self._refuse(exchange, refusals.expired(exchange.plugin, host.ref.version))
        return False

    def _turn(self, exchange: Exchange, host: ServedVersion) -> bool:
        return self._again(exchange, queued=True, turn_at=host)

    def finish(self, exchange: Exchange, reply: Reply) -> None:
        """The host's answer becomes the response, and a figure of the version that gave it."""
        host = exchange.host
        assert host is not None
        now = self.now()
        if reply.ok:
            self.queues.counts(host).record(now, now - exchange.started, Result.OK)
            self._end(exchange)
            answer = self._answers.result(host.ref.version, reply.body, self._connection_line(exchange))
            exchange.connection.complete(exchange, answer)
            if self._draining:
                self._note_quiet()
            if self.queues.size:
                self.queues.ended(host)
            return
        if reply.unknown_method or reply.invalid:
            host.counter.reject()
        elif reply.limit == "TIMEOUT" and (busy := exchange.waited_for(now, begun=reply.begun)) is not None:
            self.queues.came_late(exchange, busy, now)
        elif reply.started:
            self.queues.counts(host).record(now, now - exchange.started, Result.ERROR)
        elif reply.limit == "DIED":  # nothing has run: another process, or the next one of this version, may have it
            if exchange.abandoned:
                self._drop(exchange)
            else:
                self._again(exchange)
            return
        else:
            host.counter.record(now, now - exchange.started, Result.FAILURE)
        self._refuse(exchange, refusals.refusal_of(reply))
        if self.queues.size:
            self.queues.ended(host)

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._end(exchange, refusal)
        if refusal.close:
            exchange.keep_alive = False
        version = exchange.host.ref.version if exchange.host is not None else ""
        line = self._connection_line(exchange)
        answer = self._answers.error(refusal, version, exchange.traceparent, line)
        exchange.connection.complete(exchange, answer)
        self._note_quiet()

    def _end(self, exchange: Exchange, refusal: Refusal | None = None) -> None:
        self.in_flight -= 1
        if exchange.span is not None and self._spans is not None:
            self._spans.end(exchange, exchange.span, refusal)
        meter = exchange.meter
        if meter is not None:
            exchange.meter = None
            meter.leave(len(exchange.body) + self.limits.reply_bytes)

    def _connection_line(self, exchange: Exchange) -> bytes:
        """The Connection header line, if one is needed; ends the connection when its client is to go."""
        if self._sending_away and exchange.connection.is_last():
            exchange.keep_alive = False
        if not exchange.keep_alive:
            return _CLOSE
        return _KEEP if exchange.old_keep_alive else b""

    # -- waiting for a host that is not ready --------------------------------------------------------------------

    def wake(self, plugin: str) -> None:
        """A host of the plugin is ready, or its route has changed: decide anew for who waits. Safe from any callback."""
        if plugin in self._room or self.queues.size:
            self._loop.call_soon(self._wake, plugin)

    def _wake(self, plugin: str) -> None:
        for exchange in self._room.of(plugin):
            self._room.leave(exchange)
            self._again(exchange)
        for exchange in self.queues.of(plugin):
            self._again(exchange, queued=True)

    def _wait(self, exchange: Exchange) -> None:
        """Keep a request that no plugin code has seen until its host is back, for a bounded time."""
        if exchange.abandoned:
            self._drop(exchange)
            return
        now = self.now()
        if not exchange.wait_until:
            exchange.wait_until = min(now + self.limits.wait_seconds, exchange.started + self._timeout)
        host = exchange.host
        assert host is not None
        if (
            now >= exchange.wait_until
            or len(self._room) >= self.limits.waiting
            or not host.back_within(exchange.wait_until - now)
        ):
            self._give_up(exchange)
            return
        self._room.enter(exchange, self._give_up)

    def _give_up(self, exchange: Exchange) -> None:
        host = exchange.host
        assert host is not None
        self._count_failure(host, exchange)
        self._refuse(exchange, refusals.restarting(exchange.plugin, host.ref.version))

    def _drop(self, exchange: Exchange) -> None:
        """End a request that nobody waits for and nothing has seen."""
        exchange.host = None
        self._end(exchange)
        self._note_quiet()

    def _turn_away(self, exchange: Exchange) -> None:
        """More than its version can serve: said at once, so that it can go elsewhere. Its queue counts it."""
        host = exchange.host
        assert host is not None
        self.refused["overload"] += 1
        self._refuse(exchange, refusals.overloaded(exchange.plugin, host.ref.version))

    def _count_failure(self, host: ServedVersion, exchange: Exchange) -> None:
        now = self.now()
        host.counter.record(now, now - exchange.started, Result.FAILURE)

    def _note_quiet(self) -> None:
        if self._draining and self.in_flight == 0 and not self.clients:
            self._quiet.set()
