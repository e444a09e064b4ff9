"""Who may call a route and how often, by declaration: `Depends(require(Role.ADMIN))` is the whole of it.

A route's gate is asked before its body is read (api.strict), so a stranger cannot make us take in a megabyte; tests/http
lists every route with its roles and its limit. Neighbours: api.services.identity knows the caller, api.services.limits
counts, api.middleware tells what is left.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from fastapi import Request
from fastapi.security import HTTPBearer

from api.services.actor import Actor, names
from api.services.identity import Authenticator
from api.services.limits import READS, WRITES, RouteLimits, refusal
from hotswap.domain.deployment import Role
from hotswap.domain.errors import Forbidden, Unauthorized
from hotswap.ports.limits import Taken

bearer = HTTPBearer(
    auto_error=False,
    description="the token of POST /api/v1/authentication/login, of your identity provider, or a service token",
)
"""Declares the scheme in the OpenAPI document; the header itself is read in `RoleGate`."""


class Gate(ABC):
    """What stands before a route. `limit`: calls a minute; None: the specification's usual figure for the method."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit

    def limit_of(self, method: str) -> int:
        if self._limit is not None:
            return self._limit
        return READS if method in ("GET", "HEAD") else WRITES

    @abstractmethod
    async def admit(self, request: Request) -> None:
        """Raises Unauthorized, Forbidden, RateLimited."""

    async def _charge(self, request: Request, caller: str) -> None:
        limits: RouteLimits = request.app.state.limits
        route = f"{request.method} {request.scope['route'].path}"
        taken = await limits.charge(caller, route, self.limit_of(request.method))
        request.scope["state"]["limit"] = taken
        if not taken.allowed:
            raise refusal(taken, f"{taken.limit} calls a minute to {route} are used up")


class RoleGate(Gate):
    """Lets in who holds one of `roles` (anybody who is known when empty), and gives the route who it is."""

    def __init__(self, roles: Iterable[Role], limit: int | None = None) -> None:
        super().__init__(limit)
        self.roles = frozenset(roles)

    async def admit(self, request: Request) -> None:
        state: dict[str, Any] = request.scope["state"]
        authenticator: Authenticator = request.app.state.authenticator
        try:
            actor = await authenticator.identify(request.headers.get("authorization"), state["trace_id"])
        except Unauthorized:
            await charge_stranger(request)
            raise
        await self._charge(request, f"user {actor.user}")
        if self.roles and not actor.roles & self.roles:
            raise Forbidden(f"this takes one of: {names(self.roles)}; {actor.user} has {names(actor.roles)}")
        state["actor"] = actor

    async def __call__(self, request: Request) -> Actor:
        actor: Actor = request.scope["state"]["actor"]
        return actor


class OpenGate(Gate):
    """Lets in everybody, so often from one address."""

    async def admit(self, request: Request) -> None:
        limits: RouteLimits = request.app.state.limits
        await self._charge(request, f"address {limits.address_of(request.scope)}")

    async def __call__(self, request: Request) -> None:
        """Nothing to give: `admit` has decided."""


async def charge_stranger(request: Request) -> None:
    """Count a request that leads to nobody against its address. Raises RateLimited."""
    limits: RouteLimits = request.app.state.limits
    taken: Taken = await limits.charge_stranger(request.scope)
    request.scope["state"]["limit"] = taken
    if not taken.allowed:
        raise refusal(taken, "too many requests from this address without a token that is known")


def require(*roles: Role, limit: int | None = None) -> RoleGate:
    """The declaration of who may call a route, and how often; without roles, anybody who is known."""
    return RoleGate(roles, limit)


def anyone(limit: int | None = None) -> OpenGate:
    """The declaration of a route of /api/v1 that needs no token."""
    return OpenGate(limit)
