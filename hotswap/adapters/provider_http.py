"""How own metrics' providers are reached: only allowed hosts, bounded answers, no redirects, left alone after faults.

Whoever may deploy chooses url and query, so both are hostile: without the allow-list a rollout could read the cloud's
metadata service or any neighbour of the worker. Neighbours: prometheus_metrics and webhook_metrics speak through this.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import httpx
from pydantic import SecretStr
from pydantic_core import from_json

from hotswap.config import MetricSecret
from hotswap.domain.base import bounded
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.metrics import allowed_origins, origin_of

RAW_KEPT = 200
"""Characters of an answer kept as evidence in the history."""

FIRST_REST, LONGEST_REST = 1.0, 30.0
"""Seconds an origin is left alone after a transient fault, doubling: a look is 1 s to 30 s after the one before."""

_BUSY = (429, 502, 503, 504)


@dataclass
class _Rest:
    until: float = 0.0
    faults: int = 0


@dataclass
class Backoff:
    """Per origin: who is down or overloaded is not asked by every rollout at every look. `clock` in seconds."""

    clock: Callable[[], float] = time.monotonic
    _rests: dict[str, _Rest] = field(default_factory=dict)

    def check(self, origin: str) -> None:
        """Raises MetricProviderFault while the origin is left alone; nothing is sent then."""
        rest = self._rests.get(origin)
        if rest is not None and (left := rest.until - self.clock()) > 0:
            raise MetricProviderFault(
                f"{origin} is left alone for {left:.1f} s more after {rest.faults} fault{'s' if rest.faults > 1 else ''}",
                transient=True,
            )

    def failed(self, origin: str, at_least: float = 0.0) -> None:
        rest = self._rests.setdefault(origin, _Rest())
        rest.faults += 1
        wait = max(FIRST_REST * 2 ** min(rest.faults - 1, 10), at_least)
        rest.until = self.clock() + min(wait, LONGEST_REST)

    def answered(self, origin: str) -> None:
        self._rests.pop(origin, None)


class Keyring:
    """Credentials by name, each for one origin: a rollout cannot send a secret to another host by naming it."""

    def __init__(self, secrets: Sequence[MetricSecret]) -> None:
        self._secrets = {secret.name: secret for secret in secrets}

    def find(self, name: str, origin: str) -> MetricSecret | None:
        """None without a name. Raises MetricProviderFault: unknown, or for another host."""
        if not name:
            return None
        secret = self._secrets.get(name)
        if secret is None or origin not in allowed_origins([secret.host]):
            # One message for both: which secrets there are is nobody's business.
            raise MetricProviderFault(f"the platform has no secret '{name}' for {origin}", transient=False)
        return secret


class ProviderHttp:
    """One client for one kind of provider. `close` when done."""

    def __init__(
        self, allowed: Collection[str], timeout: timedelta, max_answer_bytes: int, backoff: Backoff | None = None
    ) -> None:
        """`allowed`: origins as host:port. `timeout` bounds a whole exchange."""
        self._allowed = frozenset(allowed)
        self._timeout = timeout.total_seconds()
        self._max_bytes = max_answer_bytes
        self._backoff = backoff or Backoff()
        self._client = httpx.AsyncClient(
            timeout=self._timeout,
            trust_env=False,  # no proxy from the environment: it could lead anywhere
            follow_redirects=False,
            limits=httpx.Limits(max_connections=50, max_keepalive_connections=20),
        )

    async def close(self) -> None:
        await self._client.aclose()

    def origin(self, url: str) -> str:
        """host:port of a URL that may be asked. Raises MetricProviderFault for any other."""
        origin = origin_of(url)
        if origin is None or origin not in self._allowed:
            raise MetricProviderFault(
                f"{bounded(url, 100)} is not in the platform's allow-list (HOTSWAP_METRICS__ALLOWED_HOSTS)",
                transient=False,
            )
        return origin

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body. Raises MetricProviderFault: not allowed, left alone, away, busy, or too much of an answer."""
        origin = self.origin(url)
        self._backoff.check(origin)
        try:
            async with asyncio.timeout(self._timeout):
                status, body, retry_after = await self._exchange(url, content, headers)
        except (httpx.TimeoutException, TimeoutError):
            self._backoff.failed(origin)
            raise MetricProviderFault(f"{origin} did not answer within {self._timeout:g} s", transient=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            self._backoff.failed(origin)
            why = bounded(str(fault), 200) or type(fault).__name__
            raise MetricProviderFault(f"{origin} cannot be asked: {why}", transient=True) from fault
        if status in _BUSY or status == 500:
            self._backoff.failed(origin, retry_after)
            raise MetricProviderFault(f"{origin} answered {status}: {excerpt(body)}", transient=True)
        self._backoff.answered(origin)
        if 300 <= status < 400:
            raise MetricProviderFault(
                f"{origin} answered with a redirect ({status}), which is not followed", transient=False
            )
        if status in (401, 403):
            raise MetricProviderFault(f"{origin} refused our credentials ({status})", transient=False)
        return status, body

    async def _exchange(self, url: str, content: bytes, headers: Mapping[str, str]) -> tuple[int, bytes, float]:
        async with self._client.stream("POST", url, content=content, headers=dict(headers)) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > self._max_bytes:
                    raise MetricProviderFault(
                        f"the answer is over {self._max_bytes:,} bytes; one number is asked for", transient=False
                    )
            return answer.status_code, bytes(body), _retry_after(answer.headers.get("retry-after", ""))


def bearer(token: SecretStr | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer. Raises MetricProviderFault."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise MetricProviderFault(f"the answer is not JSON: {excerpt(body)}", transient=False) from None
    if not isinstance(document, dict):
        raise MetricProviderFault(f"the answer is not a JSON object: {excerpt(body)}", transient=False)
    return document


def excerpt(body: bytes) -> str:
    """The beginning of an answer as one bounded, printable line."""
    text = body[: 4 * RAW_KEPT].decode("utf-8", "replace")
    return bounded("".join(char if char.isprintable() else " " for char in text).strip(), RAW_KEPT)


def _retry_after(header: str) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 without one."""
    try:
        seconds = float(header)
        return seconds if isfinite(seconds) else 0.0
    except ValueError:
        pass  # a date, then, or nonsense
    try:
        return parsedate_to_datetime(header).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
