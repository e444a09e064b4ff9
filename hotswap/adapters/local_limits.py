"""Rate limits of one process: the twin of hotswap.adapters.redis_limits, and what holds while Redis is away."""

import time
from collections.abc import Callable
from datetime import timedelta

from hotswap.ports.limits import SLOTS, Taken

MOST_KEYS = 50_000
"""Keys remembered, about 20 MB. Beyond that the oldest go, which forgives their owners and no one else."""


class LocalRateLimiter:
    """`clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._uses: dict[str, dict[int, int]] = {}

    async def take(self, key: str, limit: int, window: timedelta, count: int = 1) -> Taken:
        slot_seconds = window.total_seconds() / SLOTS
        now = self._clock()
        slot = int(now / slot_seconds)
        uses = {at: used for at, used in self._uses.get(key, {}).items() if at >= slot - SLOTS}
        total = sum(uses.values())
        allowed = total + max(count, 1) <= limit
        retry = 0.0
        if not allowed:
            freed = 0
            for at in sorted(uses):
                freed += uses[at]
                retry = (at + SLOTS + 1) * slot_seconds - now
                if total - freed + max(count, 1) <= limit:
                    break
        elif count:
            uses[slot] = uses.get(slot, 0) + count
            total += count
            self._remember(key, uses)
        reset = (max(uses) + SLOTS + 1) * slot_seconds - now if uses else 0.0
        return Taken(
            allowed=allowed,
            limit=limit,
            remaining=max(limit - total, 0),
            retry=timedelta(seconds=retry),
            reset=timedelta(seconds=reset),
            shared=False,
        )

    async def close(self) -> None:
        """Nothing to close."""

    def _remember(self, key: str, uses: dict[int, int]) -> None:
        self._uses.pop(key, None)  # so that the newest use stands last
        while len(self._uses) >= MOST_KEYS:
            del self._uses[next(iter(self._uses))]
        self._uses[key] = uses
