"""One contract for rate limits: Redis (Valkey) and the limiter of one process; and what holds while Redis is away."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr

from hotswap.adapters import redis_limits
from hotswap.adapters.local_limits import MOST_KEYS, LocalRateLimiter
from hotswap.adapters.redis_limits import REST_SECONDS, RedisRateLimiter, ResilientRateLimiter
from hotswap.config import RedisSettings, Settings
from hotswap.domain.errors import Unavailable
from hotswap.ports.limits import RateLimiter

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["local", pytest.param("redis", marks=pytest.mark.stack)])
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[RateLimiter]:
    if request.param == "local":
        yield LocalRateLimiter()
        return
    settings: Settings = request.getfixturevalue("settings")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(
        redis_limits, "_LONGEST_WAIT", 10.0
    )  # forty connections at once may take a busy machine a while
    made = RedisRateLimiter(settings.redis)
    yield made
    await made.close()


@pytest.fixture
def key(unique: Callable[[str], str]) -> str:
    return unique("somebody")


async def test_a_limit_is_counted_down_and_then_refuses(limiter: RateLimiter, key: str) -> None:
    for left in (2, 1, 0):
        taken = await limiter.take(key, 3, MINUTE)
        assert (taken.allowed, taken.limit, taken.remaining, taken.retry) == (True, 3, left, timedelta(0))
        assert MINUTE - timedelta(seconds=2) < taken.reset <= MINUTE + timedelta(seconds=1)
    for _ in range(2):  # and what is refused does not count
        refused = await limiter.take(key, 3, MINUTE)
        assert (refused.allowed, refused.remaining) == (False, 0)
        assert timedelta(seconds=30) < refused.retry <= MINUTE + timedelta(seconds=1)
    assert (await limiter.take(f"{key}-else", 3, MINUTE)).remaining == 2


async def test_looking_takes_nothing(limiter: RateLimiter, key: str) -> None:
    for _ in range(3):
        assert (await limiter.take(key, 1, MINUTE, count=0)).remaining == 1
    assert (await limiter.take(key, 1, MINUTE)).allowed
    assert not (await limiter.take(key, 1, MINUTE, count=0)).allowed


async def test_the_wait_that_is_told_is_enough(limiter: RateLimiter, key: str) -> None:
    window = timedelta(seconds=0.6)
    for _ in range(2):
        assert (await limiter.take(key, 2, window)).allowed
    while not (refused := await limiter.take(key, 2, window)).allowed:
        await asyncio.sleep(refused.retry.total_seconds() + 0.001)


async def test_of_many_at_once_exactly_the_limit_passes(limiter: RateLimiter, key: str) -> None:
    taken = await asyncio.gather(*(limiter.take(key, 10, MINUTE) for _ in range(40)))
    assert sum(one.allowed for one in taken) == 10


def test_in_no_window_is_more_taken_than_the_limit() -> None:
    """Against a fixed window, which lets twice the limit pass around its boundary."""

    async def play() -> list[float]:
        now, passed = 1_000_000.0, []
        limiter = LocalRateLimiter(lambda: now)
        for step in range(4000):
            now = 1_000_000.0 + step * 0.173
            if (await limiter.take("k", 10, MINUTE)).allowed:
                passed.append(now)
        return passed

    passed = asyncio.run(play())
    assert max(sum(at <= other < at + 60 for other in passed) for at in passed) == 10
    assert len(passed) >= 4000 * 0.173 / 61 * 10 - 10


async def test_two_processes_share_one_limit(settings: Settings, key: str) -> None:
    one, other = RedisRateLimiter(settings.redis), RedisRateLimiter(settings.redis)
    assert (await one.take(key, 2, MINUTE)).shared
    assert (await other.take(key, 2, MINUTE)).remaining == 0
    assert not (await one.take(key, 2, MINUTE)).allowed
    for limiter in (one, other):
        await limiter.close()


async def test_the_local_limiter_keeps_a_bounded_number_of_keys() -> None:
    limiter = LocalRateLimiter()
    for number in range(MOST_KEYS + 10):
        await limiter.take(str(number), 1, MINUTE)
    assert len(limiter._uses) == MOST_KEYS
    assert not (await limiter.take(str(MOST_KEYS), 1, MINUTE)).allowed


async def test_while_redis_is_away_a_local_limit_holds_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # never listens: every connection is refused
        away = RedisRateLimiter(RedisSettings(url=SecretStr(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")))
        with pytest.raises(Unavailable):
            await away.take("k", 1, MINUTE)
        limiter = ResilientRateLimiter(away)
        with caplog.at_level(logging.INFO, "hotswap.adapters.redis_limits"):
            assert [(await limiter.take("k", 2, MINUTE)).allowed for _ in range(3)] == [True, True, False]
            assert not (await limiter.take("k", 2, MINUTE)).shared
        assert len(caplog.records) == 1, "an outage is logged once"
        await limiter.close()


async def test_a_redis_that_is_back_is_used_again() -> None:
    class Flaky(LocalRateLimiter):
        away, asked = True, 0

        async def take(self, *args: object, **more: object) -> object:  # type: ignore[override]
            self.asked += 1
            if self.away:
                raise Unavailable("away")
            return await super().take(*args, **more)  # type: ignore[arg-type]

    now, shared, local = 0.0, Flaky(), LocalRateLimiter()
    limiter = ResilientRateLimiter(shared, local, lambda: now)  # type: ignore[arg-type]
    for _ in range(5):
        await limiter.take("k", 100, MINUTE)
    assert shared.asked == 1, "it is left alone for a while"
    shared.away, now = False, REST_SECONDS
    assert (await limiter.take("k", 100, MINUTE)).remaining == 99
    await limiter.take("k", 100, MINUTE)
    assert shared.asked == 3
