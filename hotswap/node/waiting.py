"""Requests that wait for a version whose process is down, by plugin. hotswap.node.router says for how long and what then."""

import asyncio
from collections import deque
from collections.abc import Callable

from hotswap.node.exchange import Exchange


class WaitingRoom:
    """Belongs to one event loop. Its length is how many wait, all plugins together."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._plugins: dict[str, deque[Exchange]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, plugin: str) -> bool:
        return plugin in self._plugins

    def enter(self, exchange: Exchange, give_up: Callable[[Exchange], None]) -> None:
        """Let it wait; at its `wait_until` it is told to `give_up`, unless it has left by then."""
        exchange.timer = self._loop.call_at(exchange.wait_until, self._over, exchange, give_up)
        self._plugins.setdefault(exchange.plugin, deque()).append(exchange)
        self._size += 1

    def leave(self, exchange: Exchange) -> None:
        """It must be here."""
        assert exchange.timer is not None
        exchange.timer.cancel()
        exchange.timer = None
        room = self._plugins[exchange.plugin]
        room.remove(exchange)
        if not room:
            del self._plugins[exchange.plugin]
        self._size -= 1

    def of(self, plugin: str) -> list[Exchange]:
        """Everybody who waits for the plugin, in the order they came. They stay until they `leave`."""
        return list(self._plugins.get(plugin, ()))

    def empty(self) -> list[Exchange]:
        """Everybody; nobody waits here afterwards."""
        everybody = [exchange for plugin in self._plugins for exchange in self.of(plugin)]
        for exchange in everybody:
            self.leave(exchange)
        return everybody

    def _over(self, exchange: Exchange, give_up: Callable[[Exchange], None]) -> None:
        self.leave(exchange)
        give_up(exchange)
