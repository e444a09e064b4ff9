"""Who is connected to a router: counted, bounded, and seen off at the end. Belongs to one event loop.

Neighbours: hotswap.node.connection is one of them, hotswap.node.router tells them by their answers that they should go.
"""

import asyncio
from collections import Counter

from hotswap.node import refusals
from hotswap.node.connection import Connection
from hotswap.node.limits import RouterLimits
from hotswap.node.refusals import Refusal

_FLOOD = 256
"""Connections past the most that are still told so; further ones are cut without a word."""


class Clients:
    def __init__(self, limits: RouterLimits) -> None:
        self._limits = limits
        self._connections: set[Connection] = set()
        self._addresses: Counter[str] = Counter()
        self._none = asyncio.Event()

    def __len__(self) -> int:
        return len(self._connections)

    def opened(self, connection: Connection) -> Refusal | None:
        """Count the connection in (until it ends); why it cannot be served, if so. A flood is cut without an answer."""
        self._connections.add(connection)
        address = connection.address
        self._addresses[address] += 1
        if len(self._connections) > self._limits.connections + _FLOOD:
            connection.abort()
        if len(self._connections) > self._limits.connections:
            return refusals.TOO_MANY
        return refusals.TOO_MANY_HERE if self._addresses[address] > self._limits.connections_per_address else None

    def gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._addresses[connection.address] -= 1
        if not self._addresses[connection.address]:
            del self._addresses[connection.address]
        if not self._connections:
            self._none.set()

    def check(self, now: float) -> None:
        """Cut who is too slow or too quiet."""
        for connection in list(self._connections):
            connection.check(now)

    def close_idle(self) -> None:
        """End each connection on which nothing is under way, here or in the kernel's buffer."""
        for connection in list(self._connections):
            connection.close_if_idle()

    async def cut(self) -> None:
        """End every connection now."""
        if self._connections:
            self._none.clear()
            for connection in list(self._connections):
                connection.abort()
            await self._none.wait()  # each loss is reported on a later turn of the loop
