"""The sockets that a router listens on: bound here, or by the process that this one replaces (hotswap.node.handover)."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that wait to be accepted."""


class Listening:
    """`made` makes what serves one connection. Belongs to the running event loop."""

    def __init__(self, made: Callable[[], asyncio.Protocol]) -> None:
        self._loop = asyncio.get_running_loop()
        self._made = made
        self._servers: list[asyncio.Server] = []
        self._started = False

    async def bind(self, host: str, port: int, *, shared: bool = False) -> int:
        """Take the address, and the port that `port` 0 chooses. Raises OSError when it is taken.

        `shared`: with others of this user that do so too (SO_REUSEPORT).
        """
        server = await self._loop.create_server(
            self._made, host, port, backlog=BACKLOG, start_serving=False, reuse_port=shared or None
        )
        self._servers = [server]
        return int(server.sockets[0].getsockname()[1])

    async def adopt(self, bound: Iterable[socket.socket]) -> None:
        """In place of `bind`: sockets that another process has bound."""
        self._servers = [
            await self._loop.create_server(self._made, sock=one, backlog=BACKLOG, start_serving=False) for one in bound
        ]

    def descriptors(self) -> list[int]:
        return [one.fileno() for server in self._servers for one in server.sockets]

    async def start(self) -> None:
        if not self._servers:
            raise RuntimeError("bind comes before serve")
        for server in self._servers:
            await server.start_serving()
        self._started = True

    async def stop(self) -> None:
        """Listen no more, but serve who is connected: a listener that is closed resets whoever waits to be accepted.

        Repeats are fine. Returns when those have been taken.
        """
        waiting = [socket.socket(fileno=os.dup(one)) for one in self.descriptors()] if self._started else []
        self.close()
        connected: list[socket.socket] = []
        for one in waiting:  # no turn of the loop between looking and closing: who comes in between is reset
            with one:
                one.setblocking(False)
                connected += _accepted(one)
        await asyncio.gather(*(self._take(one) for one in connected))
        await asyncio.sleep(0)  # those that the loop itself accepted last are told of in its next turn

    async def _take(self, connected: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._made, connected)
        except OSError as fault:
            connected.close()
            log.warning("a client that had just connected could not be served: %s", fault)

    def close(self) -> None:
        """Repeats are fine. What another process holds of the sockets goes on listening."""
        for server in self._servers:
            server.close()


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Everybody who waits to be accepted."""
    try:
        while True:
            connected, _ = listener.accept()
            connected.setblocking(False)
            yield connected
    except BlockingIOError:
        return
    except OSError as fault:  # no descriptors left, say
        log.warning("clients that had just connected are reset: %s", fault)
