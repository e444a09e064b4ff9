"""Who calls: development tokens, access tokens of a login, service tokens, tokens of the identity provider.

Neighbours: api.security asks for every request, api.services.trust verifies our own JWTs, api.services.oidc the rest.
"""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import jwt

from api.services.actor import Actor, Credential
from api.services.oidc import OidcVerifier
from api.services.trust import LOOK_SECONDS, TrustStore
from hotswap.config_access import DevelopmentUser
from hotswap.domain.accounts import ServiceToken
from hotswap.domain.errors import Unauthorized, Unavailable
from hotswap.identity.tokens import MAX_TOKEN_CHARACTERS
from hotswap.ports.records import UnitOfWorkFactory

log = logging.getLogger(__name__)

SERVICE_PREFIX = "hst_"

MOST_REMEMBERED = 1000
"""Service tokens remembered for LOOK_SECONDS, so that a busy machine costs PostgreSQL one read in that time."""

USE_NOTED_SECONDS = 60.0
"""How exact `lastUsedAt` is: one write a minute and token."""


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class DevelopmentTokens:
    """Knows users by the SHA-256 of their tokens; compares all of them in constant time."""

    def __init__(self, users: Iterable[DevelopmentUser]) -> None:
        self._known = [(digest_of(user.token.get_secret_value()), user) for user in users]

    def identify(self, token: str, trace_id: str = "") -> Actor | None:
        presented = digest_of(token)
        found: Actor | None = None
        for known, user in self._known:  # to the end, so that time does not tell who matched
            if hmac.compare_digest(known, presented):
                found = Actor(
                    user=user.user, roles=frozenset(user.roles), trace_id=trace_id, tenants=frozenset(user.tenants)
                )
        return found


@dataclass
class _Remembered:
    token: ServiceToken
    until: float
    noted_at: float


class ServiceTokens:
    """Service tokens by digest, read from PostgreSQL and remembered for a moment: revoking takes effect within it."""

    def __init__(self, unit_of_work: UnitOfWorkFactory, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._remembered: dict[str, _Remembered] = {}

    async def identify(self, token: str, trace_id: str) -> Actor:
        """Raises Unauthorized, Unavailable."""
        digest = digest_of(token)
        found = self._remembered.get(digest)
        if found is None or self._clock() >= found.until:
            found = await self._read(digest, found)
        known = found.token
        if not known.lives(datetime.now(UTC)):
            raise Unauthorized(
                f"service token '{known.name}' is revoked or has expired; ask an administrator for another"
            )
        return Actor(
            user=f"service:{known.name}",
            roles=frozenset(known.roles),
            trace_id=trace_id,
            tenants=frozenset(known.tenants),
            environments=frozenset(known.environments),
            credential=Credential.SERVICE,
        )

    def forget(self) -> None:
        """This process has just revoked one."""
        self._remembered.clear()

    async def _read(self, digest: str, before: _Remembered | None) -> _Remembered:
        now = self._clock()
        noted_at = before.noted_at if before else float("-inf")
        async with self._unit_of_work() as uow:
            token = await uow.service_tokens.find(digest)
            if token is None:
                self._remembered.pop(digest, None)
                raise Unauthorized("the token is not known; ask an administrator for a new one")
            if now - noted_at >= USE_NOTED_SECONDS:
                await self._note(token, digest)
                noted_at = now
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        found = self._remembered[digest] = _Remembered(token, now + LOOK_SECONDS, noted_at)
        return found

    async def _note(self, token: ServiceToken, digest: str) -> None:
        try:
            async with self._unit_of_work() as uow:
                await uow.service_tokens.used(token.token_id, await uow.now())
                await uow.commit()
        except Unavailable as fault:  # a read-only server still lets machines in
            log.warning("the use of service token %s could not be noted: %s", token.name, fault.message)


class Authenticator:
    """Everything that can prove who calls."""

    def __init__(
        self,
        development: DevelopmentTokens,
        services: ServiceTokens,
        trust: TrustStore,
        oidc: OidcVerifier | None = None,
    ) -> None:
        self._development = development
        self._services = services
        self._trust = trust
        self._oidc = oidc

    async def identify(self, authorization: str | None, trace_id: str = "") -> Actor:
        """Raises Unauthorized saying what is missing, never which part of a token was near; Unavailable."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized(
                "send 'Authorization: Bearer <token>'; `hotswap login` or POST /authentication/login gives one"
            )
        if (actor := self._development.identify(token, trace_id)) is not None:
            return actor
        if not token.isascii() or len(token) > 2 * MAX_TOKEN_CHARACTERS:
            raise Unauthorized("the token is not known; log in, or ask an administrator for a new one")
        if token.startswith(SERVICE_PREFIX):
            return await self._services.identify(token, trace_id)
        if token.count(".") != 2:
            raise Unauthorized("the token is not known; log in, or ask an administrator for a new one")
        if self._oidc is not None and _issuer_of(token) == self._oidc.issuer:
            return await self._oidc.identify(token, trace_id)
        claims = await self._trust.verify(token)
        return Actor(
            user=claims.sub,
            roles=frozenset(claims.roles),
            trace_id=trace_id,
            tenants=frozenset(claims.tenants),
            credential=Credential.SESSION,
            session_id=claims.sid,
        )


def _issuer_of(token: str) -> str | None:
    """Who a token says made it, unverified: it only decides who verifies."""
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    return issuer if isinstance(issuer, str) else None
