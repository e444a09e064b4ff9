"""Rate limits that hold over several processes: one script, one round trip, commands of Redis 7.0 only.

A key is a hash of SLOTS + 1 fields at most, whatever the limit: uses by slot of the sliding window. The server's own
clock counts, so the processes' clocks need not agree. `ResilientRateLimiter` is what the api uses.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hotswap.adapters.local_limits import LocalRateLimiter
from hotswap.config import RedisSettings
from hotswap.domain.errors import FieldFault, InvalidInput, Unavailable
from hotswap.ports.limits import SLOTS, RateLimiter, Taken

logger = logging.getLogger(__name__)

_PREFIX = "hotswap.limits."

_LONGEST_WAIT = 0.25
"""Seconds one question may take. It stands before every request, so a Redis that hangs must not be waited for."""

REST_SECONDS = 2.0
"""How long Redis is left alone after a fault: with _LONGEST_WAIT, a hanging one costs each process one request in that time."""

_SCRIPT = """
local slots, limit, width, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local slot = math.floor(now / width)
local flat, uses, order, total, newest = redis.call('HGETALL', KEYS[1]), {}, {}, 0, nil
for i = 1, #flat, 2 do
  local at = tonumber(flat[i])
  if at < slot - slots then
    redis.call('HDEL', KEYS[1], flat[i])
  else
    uses[at] = tonumber(flat[i + 1])
    order[#order + 1] = at
    total = total + uses[at]
    if not newest or at > newest then newest = at end
  end
end
local wanted = math.max(count, 1)
local allowed, retry = total + wanted <= limit, 0
if not allowed then
  table.sort(order)
  local freed = 0
  for _, at in ipairs(order) do
    freed = freed + uses[at]
    retry = (at + slots + 1) * width - now
    if total - freed + wanted <= limit then break end
  end
elseif count > 0 then
  redis.call('HINCRBY', KEYS[1], string.format('%.0f', slot), count)
  redis.call('PEXPIRE', KEYS[1], math.ceil((slots + 1) * width))
  total = total + count
  newest = slot
end
local reset = newest and (newest + slots + 1) * width - now or 0
return {allowed and 1 or 0, total, math.ceil(retry), math.ceil(reset)}
"""


class RedisRateLimiter:
    """Nothing connects before it is used; `close` when done."""

    def __init__(self, settings: RedisSettings) -> None:
        timeout = min(settings.timeout.total_seconds(), _LONGEST_WAIT)
        try:
            self._redis = Redis.from_url(
                settings.url.get_secret_value(),
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                max_connections=50,
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
        self._script = self._redis.register_script(_SCRIPT)

    async def take(self, key: str, limit: int, window: timedelta, count: int = 1) -> Taken:
        width_ms = window.total_seconds() * 1000 / SLOTS
        try:
            allowed, total, retry_ms, reset_ms = await self._script(
                keys=[_PREFIX + key], args=[SLOTS, limit, width_ms, count]
            )
        except (RedisError, OSError) as fault:
            raise Unavailable(f"Redis does not answer: {fault}") from fault
        return Taken(
            allowed=bool(allowed),
            limit=limit,
            remaining=max(limit - int(total), 0),
            retry=timedelta(milliseconds=int(retry_ms)),
            reset=timedelta(milliseconds=int(reset_ms)),
            shared=True,
        )

    async def close(self) -> None:
        """Close every connection. Repeats are fine."""
        await self._redis.aclose()


class ResilientRateLimiter:
    """The shared limiter; while that is away a local one, whose answers say so. Never raises Unavailable."""

    def __init__(
        self, shared: RateLimiter, local: RateLimiter | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = shared
        self._local = local or LocalRateLimiter()
        self._clock = clock
        self._away = False
        self._rests_until = 0.0

    async def take(self, key: str, limit: int, window: timedelta, count: int = 1) -> Taken:
        if self._clock() >= self._rests_until:
            if self._away:
                self._rests_until = self._clock() + REST_SECONDS  # one asks whether it is back, the rest do not wait
            try:
                taken = await self._shared.take(key, limit, window, count)
            except Unavailable as fault:
                if not self._away:
                    logger.warning("rate limits hold for this process alone until Redis is back: %s", fault.message)
                self._away, self._rests_until = True, self._clock() + REST_SECONDS
            else:
                if self._away:
                    logger.info("rate limits are shared again")
                self._away, self._rests_until = False, 0.0
                return taken
        return await self._local.take(key, limit, window, count)

    async def close(self) -> None:
        await self._shared.close()
        await self._local.close()
