"""The receiving end of one event subscription. Neighbours: redis_events and memory.events fill it, watchers iterate it."""

import asyncio
from collections import deque
from typing import Self

INBOX_MESSAGES = 1000
"""Messages kept for a watcher that does not look; then the oldest go. Each is a mere wake-up, so none is missed."""


class Inbox:
    """An iterator of messages that ends when the subscription does.

    `asyncio.wait_for(anext(inbox), 1)` is safe: unlike an async generator, a cancelled wait ends nothing and loses nothing.
    """

    def __init__(self) -> None:
        self._messages: deque[str] = deque(maxlen=INBOX_MESSAGES)
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, message: str) -> None:
        self._messages.append(message)
        self._changed.set()

    def end(self) -> None:
        """Nothing more will come; what is here already is still given out."""
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not self._messages:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()
