"""Limits as the specification has them: who is counted, what is told, and what holds while Redis is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.services.limits import STRANGERS, RouteLimits
from hotswap.adapters.local_limits import LocalRateLimiter
from hotswap.adapters.redis_limits import ResilientRateLimiter
from hotswap.domain.errors import Unavailable
from tests.http.people import bearer
from tests.http.site import API, Site, error_of, make_site


@asynccontextmanager
async def limited(tmp_path: Path, limiter: Any = None, **api: Any) -> AsyncIterator[tuple[Site, httpx.AsyncClient]]:
    """A site with the specification's limits and a client without a token, at 198.51.100.7."""
    site = make_site(tmp_path, api={"rate_limit_factor": 1, **api})
    if limiter is not None:
        site.container.limits._limiter = limiter
    async with AsyncExitStack() as stack:
        transport = httpx.ASGITransport(site.app, client=("198.51.100.7", 1))
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://api.test"))
        yield site, client


async def statuses(client: httpx.AsyncClient, count: int, method: str, path: str, **more: Any) -> list[int]:
    return [(await client.request(method, path, **more)).status_code for _ in range(count)]


async def test_a_user_may_write_ten_times_a_minute_and_read_sixty(tmp_path: Path) -> None:
    async with limited(tmp_path) as (_, client):
        admin, viewer = bearer("token-of-admin"), bearer("token-of-viewer")
        body = {"name": "UPPER is wrong"}
        wrong = await statuses(client, 11, "POST", f"{API}/plugins", json=body, headers=admin)
        assert wrong == [400] * 10 + [429], "a refused body counts like any other"
        assert await statuses(client, 61, "GET", f"{API}/plugins", headers=admin) == [200] * 60 + [429]
        assert await statuses(client, 1, "GET", f"{API}/plugins/ghost", headers=admin) == [404], "another route"
        assert await statuses(client, 1, "GET", f"{API}/plugins", headers=viewer) == [200], "another user"


async def test_uploads_are_limited_to_five(tmp_path: Path) -> None:
    async with limited(tmp_path) as (_, client):
        path = f"{API}/plugins/ghost/versions"
        assert await statuses(client, 6, "POST", path, headers=bearer("token-of-admin")) == [404] * 5 + [429]


async def test_every_answer_of_the_api_tells_what_is_left(tmp_path: Path) -> None:
    async with limited(tmp_path) as (_, client):
        admin = bearer("token-of-admin")
        for answer, limit, left in (
            (await client.get(f"{API}/plugins", headers=admin), 60, 59),
            (await client.get(f"{API}/plugins/ghost", headers=admin), 60, 59),
            (await client.post(f"{API}/plugins", headers=admin, content=b"{"), 10, 9),
            (await client.post(f"{API}/users", headers=bearer("token-of-viewer"), json={}), 10, 9),
            (await client.get(f"{API}/plugins"), STRANGERS, 59),
            (await client.get(f"{API}/nowhere", headers=admin), STRANGERS, 58),
            (await client.patch(f"{API}/plugins", headers=admin), STRANGERS, 57),
            (await client.post(f"{API}/authentication/login", json={}), 10, 9),
        ):
            told = answer.headers
            assert (int(told["X-RateLimit-Limit"]), int(told["X-RateLimit-Remaining"])) == (limit, left), answer.text
            assert -2 < int(told["X-RateLimit-Reset"]) - time.time() - 60 < 3
            assert told["X-RateLimit-Policy"] == "local"
        for path in ("/health", "/metrics"):
            assert "X-RateLimit-Limit" not in (await client.get(path)).headers, (
                "machines ask these as often as they like"
            )


async def test_a_429_is_an_envelope_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with limited(tmp_path) as (_, client):
        await statuses(client, 10, "POST", f"{API}/plugins", json={}, headers=bearer("token-of-admin"))
        answer = await client.post(f"{API}/plugins", json={}, headers=bearer("token-of-admin"))
        error_of(answer, 429, "RATE_LIMIT_EXCEEDED")
        assert 0 < int(answer.headers["Retry-After"]) <= 61
        assert answer.headers["X-RateLimit-Remaining"] == "0"


async def test_of_a_hundred_calls_at_once_exactly_the_limit_passes(tmp_path: Path) -> None:
    async with limited(tmp_path) as (_, client):
        headers = bearer("token-of-viewer")
        answers = await asyncio.gather(*(client.get(f"{API}/plugins", headers=headers) for _ in range(100)))
        assert sorted(answer.status_code for answer in answers) == [200] * 60 + [429] * 40


async def test_whoever_tries_tokens_is_stopped_and_known_users_behind_the_same_address_are_not(tmp_path: Path) -> None:
    async with limited(tmp_path) as (_, client):
        tried = [
            (await client.get(f"{API}/plugins", headers=bearer(f"guess-{number}"))).status_code for number in range(61)
        ]
        assert tried == [401] * STRANGERS + [429]
        assert await statuses(client, 1, "GET", f"{API}/plugins", headers=bearer("token-of-viewer")) == [200]


async def test_a_forbidden_call_counts(tmp_path: Path) -> None:
    async with limited(tmp_path) as (_, client):
        assert await statuses(client, 11, "POST", f"{API}/users", headers=bearer("token-of-viewer")) == [403] * 10 + [
            429
        ]


async def test_the_factor_raises_every_limit(tmp_path: Path) -> None:
    async with limited(tmp_path, rate_limit_factor=2.5) as (_, client):
        answer = await client.get(f"{API}/plugins", headers=bearer("token-of-viewer"))
        assert answer.headers["X-RateLimit-Limit"] == "150"


class _Shared(LocalRateLimiter):
    """Stands for Redis: says so, and can be away."""

    away = False

    async def take(self, *args: Any, **more: Any) -> Any:
        if self.away:
            raise Unavailable("away")
        taken = await super().take(*args, **more)
        return type(taken)(taken.allowed, taken.limit, taken.remaining, taken.retry, taken.reset, shared=True)


async def test_two_api_processes_count_together_and_alone_while_redis_is_away(tmp_path: Path) -> None:
    shared = _Shared()
    async with (
        limited(tmp_path, ResilientRateLimiter(shared)) as (_, one),
        limited(tmp_path, ResilientRateLimiter(shared)) as (_, other),
    ):
        headers = bearer("token-of-viewer")
        await one.get(f"{API}/plugins", headers=headers)
        answer = await other.get(f"{API}/plugins", headers=headers)
        assert (answer.headers["X-RateLimit-Remaining"], answer.headers["X-RateLimit-Policy"]) == ("58", "shared")
        shared.away = True
        answer = await other.get(f"{API}/plugins", headers=headers)
        assert (answer.status_code, answer.headers["X-RateLimit-Policy"]) == (200, "local")
        assert answer.headers["X-RateLimit-Remaining"] == "59"


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # not a proxy of ours: whatever it says is its own invention
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),  # what stands before it, the client wrote
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_only_proxies_of_ours_are_believed(client: str, forwarded: str, address: str) -> None:
    limits = RouteLimits(LocalRateLimiter(), 1, ["10.0.0.0/8"])
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert limits.address_of({"type": "http", "client": (client, 1), "headers": headers}) == address
    alone = RouteLimits(LocalRateLimiter(), 1)
    assert alone.address_of({"type": "http", "client": (client, 1), "headers": headers}) == client
