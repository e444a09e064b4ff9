"""How a node's process is replaced without losing a request: its listening sockets go to the next one, still listening.

The next process (HOTSWAP_NODE__REPLACE) finds the present one by a unix socket in the data directory. They say, a line each:
listeners (with the sockets, by SCM_RIGHTS) -> ready -> yours (takes no more orders) -> taken (the next one accepts) ->
what was counted -> released, and after the last answer once more what was counted -> gone; in between what is counted of
some, a moment late (hotswap.node.strain). Until "taken" the present one
serves, and serves on if the other falls silent. A next one that loses the present one goes on: the sockets live with it.
Neighbours: hotswap.node.agent is on both ends. ADR 34 says why sockets are handed over and not bound twice.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from hotswap.domain.base import Model
from hotswap.domain.errors import HandoverFailed
from hotswap.node.handover_link import (
    PROTOCOL,
    SOCKET,
    Counted,
    Link,
    Listeners,
    Refused,
    Silent,
    Word,
    connect,
    reached,
    receive_sockets,
    said_by,
    uid_of,
)

log = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=60)
"""From "ready" to "taken", while nobody takes orders: the next process polls Temporal and reads PostgreSQL once, which are
bounded by 2 s and 10 s each; the rest is for versions that it has to load."""

ANSWER_PATIENCE = timedelta(seconds=30)
"""For the first word of the process that serves: it has nothing to do for it, so one that takes longer hangs."""

MAX_TOLD = 64 * 1024 * 1024
"""Of counters in all, versions in a rollout first: a second or two of work in small steps. What is beyond is not judged by."""


class Predecessor:
    """The new process's end: the process whose place it takes."""

    def __init__(self, link: Link, router: list[socket.socket], admin: list[socket.socket]) -> None:
        self._link = link
        self.router = router
        self.admin = admin

    @classmethod
    async def find(cls, data_dir: Path, node_id: str, environment: str) -> "Predecessor | None":
        """Take its sockets; None when nobody serves from this directory.

        Raises HandoverFailed when what answers is not this node, or is being replaced already.
        """
        connection = await connect(data_dir)
        if connection is None:
            return None
        sockets: list[socket.socket] = []
        try:
            if uid_of(connection) != os.geteuid():
                raise HandoverFailed(f"{data_dir / SOCKET} is answered by another user (uid {uid_of(connection)})")
            try:
                async with asyncio.timeout(ANSWER_PATIENCE.total_seconds()):
                    line, sockets = await receive_sockets(connection)
            except TimeoutError:
                raise HandoverFailed(
                    f"the process that serves does not answer at {data_dir / SOCKET}; if it hangs, kill it first"
                ) from None
            if not line:
                connection.close()
                return None  # it was about to end
            router, admin = _sorted(line, sockets, node_id, environment)
            return cls(await Link.over(connection), router, admin)
        except BaseException:
            for one in (connection, *sockets):
                one.close()
            raise

    async def ready(self) -> None:
        """Everything is loaded. Returns when the predecessor takes no more orders, or is gone. Raises HandoverFailed."""
        try:
            await self._link.say(Word(kind="ready"))
            heard = await self._link.hear()
        except Silent as fault:
            log.warning("the process before this one ended by itself (%s); taking its place all the same", fault)
            return
        _must_be(heard, "yours")

    async def taken(self, inherit: Callable[[Counted], None]) -> None:
        """Connections are accepted here. Returns when it has let go, having told what it counted. Raises HandoverFailed."""
        try:
            await self._link.say(Word(kind="taken"))
            while isinstance(heard := await self._link.hear(), Counted):
                inherit(heard)
        except Silent as fault:
            log.warning("the process before this one ended by itself (%s); its figures are lost", fault)
            return
        _must_be(heard, "released")

    async def until_gone(self, inherit: Callable[[Counted], None]) -> None:
        """Hear what it counted while it answered its last requests."""
        try:
            while isinstance(heard := await self._link.hear(), Counted):
                inherit(heard)
        except Silent as fault:
            log.warning("the process before this one did not end in order: %s", fault)

    async def close(self) -> None:
        await self._link.close()


class Successor:
    """The old process's end, once its place is taken."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def released(self, counted: Iterable[Counted]) -> None:
        await self._tell(counted, "released")

    async def also(self, counted: Iterable[Counted]) -> None:
        """What is known of some versions meanwhile."""
        await self._tell(counted)

    async def gone(self, counted: Iterable[Counted]) -> None:
        await self._tell(counted, "gone")
        await self._link.close()

    async def _tell(self, counted: Iterable[Counted], end: Literal["released", "gone"] | None = None) -> None:
        room = MAX_TOLD
        try:
            for one in counted:
                room -= await self._link.say(one)
                if room < 0:
                    log.warning("too much was counted to tell all of it to the process that took over")
                    break
                await asyncio.sleep(0)
            if end is not None:
                await self._link.say(Word(kind=end))
        except Silent as fault:
            log.warning("the process that took over cannot be told what was counted: %s", fault)


class Door:
    """Where a node waits to be replaced. `open` it when the node is ready; `close` it at the end."""

    def __init__(self, data_dir: Path, node_id: str, environment: str) -> None:
        self._data_dir = data_dir
        self._node_id = node_id
        self._environment = environment
        self._socket: socket.socket | None = None
        self._calls: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.busy = False
        """Another process has the sockets and may take this one's place."""
        self._accepting: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Raises OSError. Replaces the door of the process before."""
        self._data_dir.mkdir(parents=True, exist_ok=True)
        fresh = f".{SOCKET}.{secrets.token_hex(4)}"
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with reached(self._data_dir) as folder:
                door.bind(f"{folder}/{fresh}")
            path = self._data_dir / fresh
            path.chmod(0o600)
            door.listen(8)
            door.setblocking(False)
            path.replace(self._data_dir / SOCKET)  # it has its mode before anybody can find it
        except BaseException:
            door.close()
            (self._data_dir / fresh).unlink(missing_ok=True)
            raise
        self._socket = door
        self._accepting = asyncio.create_task(self._accept(door), name="replacement")

    async def replaced(
        self,
        router: list[int],
        admin: list[int],
        stand_back: Callable[[], Awaitable[None]],
        go_on: Callable[[], None],
    ) -> Successor:
        """Wait for a process that takes this one's place, as long as it takes; it accepts when this returns.

        `stand_back`: take no more orders; `go_on`: take them again, as the other one did not make it.
        """
        told = Listeners(
            protocol=PROTOCOL,
            node_id=self._node_id,
            environment=self._environment,
            router=len(router),
            admin=len(admin),
        )
        while True:
            connection = await self._calls.get()
            try:
                socket.send_fds(connection, [told.model_dump_json().encode() + b"\n"], [*router, *admin])
                link = await Link.over(connection)
            except OSError as fault:
                connection.close()
                log.warning("a process that wanted this node's place is gone: %s", fault)
                self.busy = False
                continue
            try:
                log.info("another process is about to take this node's place")
                await link.expect("ready")
                await self._give(link, stand_back, go_on)
            except Silent as fault:
                log.warning("the process that was to take this node's place did not (%s); serving on", fault)
                await link.close()
            except BaseException:
                await link.close()
                raise
            else:
                return Successor(link)
            self.busy = False

    async def _give(self, link: Link, stand_back: Callable[[], Awaitable[None]], go_on: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await stand_back()
                await link.say(Word(kind="yours"))
                await link.expect("taken")
        except Silent:
            go_on()
            raise
        except TimeoutError:
            go_on()
            reason = f"it was not ready to serve within {PATIENCE.total_seconds():.0f} s"
            await link.say(Refused(reason=reason))
            raise Silent(reason) from None

    async def _accept(self, door: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(door)
            if uid_of(connection) != os.geteuid():
                log.warning("user %d asked for this node's sockets and got none", uid_of(connection))
                connection.close()
            elif self.busy:
                refusal = Refused(reason="another process is about to take its place already")
                with contextlib.suppress(OSError), connection:
                    connection.send(refusal.model_dump_json().encode() + b"\n")
            else:
                self.busy = True
                connection.setblocking(False)
                self._calls.put_nowait(connection)

    async def close(self, *, replaced: bool = False) -> None:
        """Repeats are fine. `replaced`: what is at its place is another process's, or will be."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
        while not self._calls.empty():
            self._calls.get_nowait().close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            if not replaced:
                (self._data_dir / SOCKET).unlink(missing_ok=True)


def _sorted(
    line: bytes, sockets: list[socket.socket], node_id: str, environment: str
) -> tuple[list[socket.socket], list[socket.socket]]:
    """The router's listeners and the admin port's. Raises HandoverFailed when they are not this node's."""
    try:
        said = said_by.validate_json(line)
    except ValidationError as fault:
        raise HandoverFailed(
            "the process that serves speaks another protocol; stop it before this one starts"
        ) from fault
    if isinstance(said, Refused):
        raise HandoverFailed(f"the process that serves does not give its place: {said.reason}")
    if not isinstance(said, Listeners) or said.protocol != PROTOCOL:
        raise HandoverFailed("the process that serves speaks another protocol; stop it before this one starts")
    if (said.node_id, said.environment) != (node_id, environment):
        raise HandoverFailed(
            f"HOTSWAP_NODE__DATA_DIR belongs to {said.node_id} in {said.environment}, not to {node_id} in {environment}; "
            "a replacement has the same HOTSWAP_NODE__ID, __ENVIRONMENT and __DATA_DIR"
        )
    if len(sockets) != said.router + said.admin or not said.router or said.admin != 1:
        raise HandoverFailed("the process that serves gave no listeners; stop it before this one starts")
    return sockets[: said.router], sockets[said.router :]


def _must_be(heard: Model, word: str) -> None:
    if isinstance(heard, Refused):
        raise HandoverFailed(f"the process before this one serves on: {heard.reason}")
    if not isinstance(heard, Word) or heard.kind != word:
        raise HandoverFailed(
            "the process before this one does not keep to the protocol; stop it before this one starts"
        )
