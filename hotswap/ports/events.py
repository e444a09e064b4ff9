"""Live wake-ups for watchers (Redis). Never truth: a lost message only means that the next look comes a second later."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class EventBus(Protocol):
    async def publish(self, topic: str, message: str) -> None:
        """Tell whoever listens. Raises nothing: a bus that is away is logged and counted, not an error of the caller."""
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Messages published while inside. Raises Unavailable on entering when the bus is away."""
        ...

    async def ready(self) -> None:
        """Raises Unavailable when the server cannot be reached."""
        ...
