"""Live wake-ups over Redis pub/sub: hotswap.ports.events. Commands of Redis 7.0 only (PUBLISH, SUBSCRIBE, PING).

Never truth: what is lost while the server is away is found by the watcher's next look, so nothing here is retried.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import Counter
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hotswap.adapters.inbox import Inbox
from hotswap.config import RedisSettings
from hotswap.domain.errors import FieldFault, InvalidInput, Unavailable

logger = logging.getLogger(__name__)

EVENTS_LOST = Counter("hotswap_events_lost_total", "Wake-ups that could not be published because Redis was away")

_CHANNEL = "hotswap.events."
_MAX_WATCHERS = 2000
"""Connections for subscriptions: each watcher holds one. Redis itself takes 10,000 by default."""

_IDLE_SECONDS = 10
"""A subscription that heard nothing for so long asks whether the server is still there."""


class RedisEventBus:
    """`lost` counts messages that could not be published. Nothing connects before it is used; `close` when done."""

    def __init__(self, settings: RedisSettings, idle_seconds: float = _IDLE_SECONDS) -> None:
        self.lost = 0
        self._timeout = settings.timeout.total_seconds()
        self._idle_seconds = idle_seconds
        self._away = False
        # Two pools, so that a crowd of watchers never keeps a message from being published.
        self._publisher = _client(settings, max_connections=50)
        self._watchers = _client(settings, max_connections=_MAX_WATCHERS)

    async def publish(self, topic: str, message: str) -> None:
        try:
            await self._publisher.publish(_CHANNEL + _sendable(topic), _sendable(message))
        except (RedisError, OSError) as fault:
            self.lost += 1
            EVENTS_LOST.inc()
            # Once an outage, not once a message: the counter says how many.
            if not self._away:
                logger.warning("Redis is away; watchers fall back to polling until it is back: %s", fault)
            self._away = True
            return
        if self._away:
            logger.info("Redis is back")
        self._away = False

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[str]]:
        pubsub = self._watchers.pubsub()
        try:
            await self._enter(pubsub, _CHANNEL + _sendable(topic))
            inbox = Inbox()
            reader = asyncio.create_task(self._read(pubsub, inbox), name=f"events {topic}"[:100])
            try:
                yield inbox
            finally:
                reader.cancel()
                await asyncio.wait([reader])
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def ready(self) -> None:
        try:
            await self._publisher.ping()
        except (RedisError, OSError) as fault:
            raise Unavailable(f"Redis does not answer: {fault}") from fault

    async def close(self) -> None:
        """Close every connection. Repeats are fine."""
        await self._publisher.aclose()
        await self._watchers.aclose()

    async def _enter(self, pubsub: PubSub, channel: str) -> None:
        """Subscribe and wait for the server's word that it is done: what is published after that is heard."""
        try:
            await pubsub.subscribe(channel)
            answer = await pubsub.get_message(timeout=self._timeout)
        except (RedisError, OSError) as fault:
            raise Unavailable(f"Redis does not answer: {fault}") from fault
        if answer is None:
            raise Unavailable(f"Redis did not confirm a subscription within {self._timeout} s")

    async def _read(self, pubsub: PubSub, inbox: Inbox) -> None:
        """Fill the inbox until the connection is lost. A reconnection would hide what was missed, so it ends instead."""
        try:
            while (message := await self._next(pubsub)) is not None:
                if message["type"] == "message":
                    inbox.put(message["data"].decode("utf-8", "replace"))
        except (RedisError, OSError) as fault:
            logger.info("a subscription ended, its watcher polls from here on: %s", fault)
        finally:
            inbox.end()

    async def _next(self, pubsub: PubSub) -> dict[str, Any] | None:
        """The next message of any type; None when the server has fallen silent."""
        message: dict[str, Any] | None = await pubsub.get_message(timeout=self._idle_seconds)
        if message is None:
            await pubsub.ping()
            message = await pubsub.get_message(timeout=self._timeout)
        return message


def _client(settings: RedisSettings, max_connections: int) -> Redis:
    timeout = settings.timeout.total_seconds()
    try:
        return Redis.from_url(
            settings.url.get_secret_value(),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            max_connections=max_connections,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,  # CLIENT SETINFO came with Redis 7.2
        )
    except ValueError:
        form = "redis://:password@host:port/0"
        raise InvalidInput(
            f"HOTSWAP_REDIS__URL is not a Redis URL; write {form}",
            [FieldFault("HOTSWAP_REDIS__URL", f"must read {form}")],
        ) from None


def _sendable(text: str) -> str:
    """Half a surrogate pair is no UTF-8; a wake-up with a `?` in it still wakes."""
    return text.encode("utf-8", "replace").decode("utf-8")
