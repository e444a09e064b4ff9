"""How often somebody may do something: the port of Redis (hotswap.adapters.redis_limits) and of the local limiter."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

SLOTS = 60
"""A window slides in this many steps, so a limit is kept in every window, and a wait is told to a sixtieth of it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a caller has left. `retry` is zero when it was allowed, `reset` is when nothing counts any more."""

    allowed: bool
    limit: int
    remaining: int
    retry: timedelta
    reset: timedelta
    shared: bool
    """Whether every process counts together; otherwise each counts for itself."""


class RateLimiter(Protocol):
    async def take(self, key: str, limit: int, window: timedelta, count: int = 1) -> Taken:
        """Take `count` of `limit` uses of `key` if they are left; 0 only looks. What is refused does not count.

        In no window of that length is more than `limit` taken. Raises Unavailable when the server does not answer.
        """
        ...

    async def close(self) -> None: ...
