"""How often a caller may call: limits by user and route, failures by address. Spec section 5's limit column.

Neighbours: api.security declares a route's limit and charges it, api.middleware tells what is left, the counting is
hotswap.ports.limits.
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import timedelta
from math import ceil

from starlette.datastructures import Headers
from starlette.types import Scope

from hotswap.domain.errors import RateLimited
from hotswap.ports.limits import RateLimiter, Taken

MINUTE = timedelta(minutes=1)

READS, WRITES = 60, 10
"""Requests a minute of a route that declares no limit of its own: the two figures that the specification repeats."""

STRANGERS = 60
"""Requests a minute from an address that lead to nobody: no token, a wrong one, or a path that is none."""

GUESSES, GUESSES_OF_ALL = 5, 30
GUESSING = timedelta(minutes=5)
"""Wrong passwords for one user within GUESSING: from one address, and from all. The second is higher, because whoever
makes it full locks the user out of logging in (not out of sessions that live)."""


class RouteLimits:
    """`factor` multiplies every limit but those on guessing passwords (HOTSWAP_API__RATE_LIMIT_FACTOR)."""

    def __init__(self, limiter: RateLimiter, factor: float, trusted_proxies: Sequence[str] = ()) -> None:
        self._limiter = limiter
        self._factor = factor
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in trusted_proxies]

    async def charge(self, caller: str, what: str, limit: int) -> Taken:
        """Count one call of `caller`; whether it may go on is in the answer."""
        return await self._limiter.take(_key(what, caller), int(limit * self._factor), MINUTE)

    async def charge_stranger(self, scope: Scope) -> Taken:
        return await self.charge(self.address_of(scope), "strangers", STRANGERS)

    async def check_guesses(self, user: str, address: str) -> None:
        """Raises RateLimited when too many passwords were wrong, the same for users that exist and users that do not."""
        for key, limit in _guessed(user, address):
            taken = await self._limiter.take(key, limit, GUESSING, count=0)
            if not taken.allowed:
                raise refusal(taken, "too many wrong passwords for this user")

    async def count_guess(self, user: str, address: str) -> None:
        for key, limit in _guessed(user, address):
            await self._limiter.take(key, limit, GUESSING)

    def address_of(self, scope: Scope) -> str:
        """Where the request comes from: behind trusted proxies, the nearest address that none of them is."""
        client = scope.get("client")
        address = str(client[0]) if client else "unknown"
        if not self._trusted:
            return address
        hops = [hop.strip() for hop in ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")]
        while self._is_trusted(address) and hops:
            hop = hops.pop()
            if _parsed(hop) is None:
                break  # not an address: whoever wrote it is no proxy of ours
            address = hop
        return address

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def refusal(taken: Taken, message: str) -> RateLimited:
    seconds = max(1, ceil(taken.retry.total_seconds()))
    return RateLimited(f"{message}; again in {seconds} s", seconds)


def _guessed(user: str, address: str) -> tuple[tuple[str, int], ...]:
    return (_key("guesses", f"{user}\0{address}"), GUESSES), (_key("guesses", user), GUESSES_OF_ALL)


def _key(what: str, who: str) -> str:
    """Bounded, whatever strangers send as their name."""
    return f"{what}.{hashlib.sha256(who.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None
