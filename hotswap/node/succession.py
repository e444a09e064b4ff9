"""One process of a node in place of another, in the order that loses nothing. hotswap.node.handover knows the words.

The new one: restore, "ready", wait; then learn what changed, register, accept, "taken"; then take orders. The old one: no more
orders, wait for "taken"; then stop listening, tell what was counted, end each connection with its next answer, tell again.
Neighbours: hotswap.node.agent starts the parts that are passed in here, and stops them.
"""

import asyncio
import logging
import socket
from collections.abc import Iterator, Set
from datetime import timedelta

from hotswap.config import NodeSettings
from hotswap.domain.errors import HandoverFailed, Unavailable
from hotswap.node.admin import AdminServer
from hotswap.node.figures import FigureBook
from hotswap.node.handover import Door, Predecessor, Successor
from hotswap.node.handover_link import Counted
from hotswap.node.orders import Orders
from hotswap.node.reconcile import Reconciler
from hotswap.node.router import Router
from hotswap.node.strain import STRETCH_SECONDS
from hotswap.node.supervisor import NodeSupervisor

log = logging.getLogger(__name__)

DRAIN_GRACE = timedelta(seconds=35)
"""For requests in flight at the end: the default request timeout and a little. More where requests may take longer."""


def drain_grace(node: NodeSettings) -> timedelta:
    """How long what is under way at the end may take: never less than a request may."""
    return max(DRAIN_GRACE, node.invoke_timeout + timedelta(seconds=5))


async def predecessor(node: NodeSettings) -> Predecessor | None:
    """The process that serves now, if this one is to replace it and there is one.

    Raises HandoverFailed when it is not to be replaced, or not by this one.
    """
    if not node.replace:
        return None
    before = await Predecessor.find(node.data_dir, node.id, node.environment)
    if before is None:
        log.info("there is nobody to replace; starting as usual", extra={"node": node.id})
        return None
    try:
        _check_port("HOTSWAP_NODE__ROUTER_PORT", node.router_port, before.router[0])
        _check_port("HOTSWAP_NODE__ADMIN_PORT", node.admin_port, before.admin[0])
    except HandoverFailed:
        await before.close()
        raise
    return before


class Succession:
    def __init__(
        self,
        node: NodeSettings,
        supervisor: NodeSupervisor,
        book: FigureBook,
        router: Router | None,
        admin: AdminServer,
        orders: Orders,
        reconciler: Reconciler,
    ) -> None:
        """`router`: None when routers are processes of their own, whose listeners cannot be handed over: nobody can then
        take this process's place.
        """
        self._fields = {"node": node.id}
        self._supervisor = supervisor
        self._book = book
        self._router = router
        self._admin = admin
        self._orders = orders
        self._reconciler = reconciler
        self._node = node
        self._door = Door(node.data_dir, node.id, node.environment)
        self._listening: asyncio.Task[None] | None = None

    # -- the new process -----------------------------------------------------------------------------------------

    async def take_over(self, before: Predecessor) -> None:
        """Nobody takes orders now: learn what changed since the routes were restored, then serve.

        Raises HandoverFailed: the process before this one serves on.
        """
        assert self._router is not None  # check_settings refuses the other
        try:
            await self._reconciler.catch_up()
            await self._reconciler.beat()
        except (Unavailable, TimeoutError) as fault:
            raise HandoverFailed(
                f"PostgreSQL is away ({fault}); the process before this one serves on, start this one again later"
            ) from fault
        await self._router.serve()
        await before.taken(self._inherit)
        self._admin.start()
        self._listening = asyncio.create_task(before.until_gone(self._inherit), name="the process before")
        log.info("took the place of the process before this one", extra=self._fields)

    def _inherit(self, counted: Counted) -> None:
        self._book.inherit(counted.plugin, counted.version, counted.told)
        self._supervisor.inherit_crashes(counted.plugin, counted.version, counted.crashes)

    # -- the old process -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """From now on this process can be replaced. A directory that holds no sockets does not keep it from serving."""
        if self._router is None:
            return
        try:
            self._door.open()
        except OSError as fault:
            log.warning("this process cannot be replaced while it serves: %s", fault, extra=self._fields)

    async def until_over(self, stop: asyncio.Event) -> Successor | None:
        """Return when told to stop (None), or when another process has taken this one's place."""

        router = self._router
        if router is None:
            await stop.wait()
            return None

        async def stand_back() -> None:
            self._reconciler.stand_back(True)
            await self._orders.stop()

        def go_on() -> None:
            self._reconciler.stand_back(False)
            self._orders.start()

        giving = asyncio.create_task(
            self._door.replaced(router.listening.descriptors(), [self._admin.listener], stand_back, go_on),
            name="replacement",
        )
        await _first_of(giving, stop)
        return None if giving.cancelled() else giving.result()

    async def let_go(self, after: Successor, stop: asyncio.Event) -> bool:
        """Stop listening, tell what was counted, answer what is here; whether all of it was answered.

        An idle connection ends with its next answer or as it always ends, for its client may be sending just now. So this
        may take as long as a connection may be idle, and routes are followed meanwhile. `stop` shortens it.
        """
        assert self._router is not None  # or nobody could have taken its place
        log.info("another process serves in this one's place; answering what is here", extra=self._fields)
        await self._router.stop_listening()
        await after.released(self._counted())
        await self._admin.close()
        following = asyncio.create_task(self._reconciler.follow_to_the_end(), name="follow routes")
        grace, idle = drain_grace(self._node), timedelta(seconds=self._router.limits.idle_seconds)
        draining = asyncio.create_task(self._router.drain(grace, idle), name="drain")
        telling = asyncio.create_task(
            self._tell_held_back(after, self._router.queues.busy()), name="tell what is held back"
        )
        await _first_of(draining, stop)
        if draining.cancelled():
            answered = await self._router.drain(grace, self._node.drain_idle)
        else:
            answered = draining.result()
        for task in (following, telling):
            task.cancel()
        await asyncio.wait({following, telling})
        await self._hear_no_more()
        self._router.queues.settle()  # nobody asks here any more: all is known
        await after.gone(self._counted())
        return answered

    async def _tell_held_back(self, after: Successor, busy: Set[tuple[str, str]]) -> None:
        """The last requests before others are served elsewhere: of versions too busy then they are counted when it is known
        who is to blame, which is not later than with a node that goes on.
        """
        if busy:
            await asyncio.sleep(STRETCH_SECONDS)
            await after.also(self._counted(busy))

    def _counted(self, only: Set[tuple[str, str]] | None = None) -> Iterator[Counted]:
        """Of every version, those of plugins with a candidate first: a verdict may rest on them. `only`: of these."""
        crashes = self._supervisor.crashes()
        moving = self._supervisor.in_rollout()
        keys = self._book.known() | crashes.keys() if only is None else only
        for plugin, version in sorted(keys, key=lambda key: (key[0] not in moving, key)):
            yield Counted(
                plugin=plugin,
                version=version,
                crashes=crashes.get((plugin, version), 0),
                told=self._book.told(plugin, version),
            )

    async def close(self, *, replaced: bool) -> None:
        """The end of being replaceable. `replaced`: by a process that has put its own socket there, or will; then what the
        process before this one has yet to tell is heard until the end of `let_go`, to be told on.
        """
        await self._door.close(replaced=replaced)
        if not replaced:
            await self._hear_no_more()

    async def _hear_no_more(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})


async def _first_of(work: asyncio.Task[object], stop: asyncio.Event) -> None:
    """Wait for the work, which is cancelled when told to stop first."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in (work, stopping):
        task.cancel()
    await asyncio.wait({work, stopping})


def _check_port(setting: str, port: int, listener: socket.socket) -> None:
    has = int(listener.getsockname()[1])
    if port not in (0, has):
        raise HandoverFailed(
            f"{setting} is {port}, but the process to replace listens on {has}; a replacement keeps the address: "
            f"set {setting}={has} (or 0), or stop the node and start it anew"
        )
