"""The in-memory twin of hotswap.adapters.redis_events, for tests: topics are sets of inboxes."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hotswap.adapters.inbox import Inbox
from hotswap.domain.errors import Unavailable


class MemoryEventBus:
    """`lost` counts messages that could not be published; `go_away` and `come_back` play a server that is gone."""

    def __init__(self) -> None:
        self.lost = 0
        self._away = False
        self._inboxes: defaultdict[str, set[Inbox]] = defaultdict(set)

    async def publish(self, topic: str, message: str) -> None:
        if self._away:
            self.lost += 1
            return
        for inbox in self._inboxes.get(topic, ()):
            inbox.put(message)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[str]]:
        await self.ready()
        inbox = Inbox()
        self._inboxes[topic].add(inbox)
        try:
            yield inbox
        finally:
            self._inboxes[topic].discard(inbox)
            if not self._inboxes[topic]:
                del self._inboxes[topic]

    async def ready(self) -> None:
        if self._away:
            raise Unavailable("the in-memory event bus is away")

    async def close(self) -> None:
        self.drop_subscribers()

    def go_away(self) -> None:
        self._away = True
        self.drop_subscribers()

    def come_back(self) -> None:
        self._away = False

    def drop_subscribers(self) -> None:
        """End every subscription, as a lost connection does."""
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.end()
