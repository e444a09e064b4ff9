"""What this process believes about tokens of ours: the keys that verify them, the sessions that have ended, who signs.

Read from PostgreSQL every two seconds while somebody calls, so that a rotation or a logout elsewhere is known here within
about that time. While PostgreSQL is away what was read last still holds. Neighbours: hotswap.identity.tokens does the
cryptography, api.services.identity and api.services.authentication ask here.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hotswap.config_access import AuthSettings
from hotswap.domain.accounts import (
    MAX_TENANT_TOKEN_LIFETIME,
    REVOCATION_MARGIN,
    KeyPurpose,
    PublicKey,
    SigningKey,
)
from hotswap.domain.errors import Unauthorized, Unavailable
from hotswap.identity.key_material import GENERATE, decode_key
from hotswap.identity.sealing import Sealer
from hotswap.identity.tokens import (
    AccessClaims,
    KeyRing,
    Signer,
    TokenExpired,
    TokenRejected,
    UnknownKey,
    as_jwk,
    new_signing_key,
    unsealed,
)
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How old what is believed may be: how soon a logout, a disabled user or a new key is known in every process."""

MOST_VERIFIED = 1000
"""Tokens remembered as right for LOOK_SECONDS: to verify one takes as long as to read a row."""

EXTRA_LOOK_SECONDS = 1.0
"""Between looks that an unknown key id asks for: whoever invents ids must not make us read for each."""


@dataclass(frozen=True)
class _Picture:
    ring: KeyRing
    keys: tuple[PublicKey, ...]
    ended: frozenset[str]
    looked_at: float
    verified: dict[str, AccessClaims] = field(default_factory=dict)
    """Tokens that `ring` has found right in every respect; only time can change that."""


class TrustStore:
    """`clock` in seconds, for how old the picture is; instants come from the database's own clock."""

    def __init__(
        self, unit_of_work: UnitOfWorkFactory, settings: AuthSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._unit_of_work = unit_of_work
        self._settings = settings
        self._clock = clock
        key = settings.key_encryption_key
        self._sealer = None if key is None else Sealer(decode_key(key.get_secret_value()))
        self._picture: _Picture | None = None
        self._looking = asyncio.Lock()
        self._extra_look_at = float("-inf")
        self._away = False

    # -- verifying -----------------------------------------------------------------------------------------------

    async def verify(self, token: str) -> AccessClaims:
        """The claims of an access token that holds now. Raises Unauthorized, and Unavailable before the first look."""
        picture = await self._current()
        try:
            claims = self._verified(picture, token)
        except UnknownKey as fault:
            picture = await self._look_again(picture)
            try:
                claims = self._verified(picture, token)
            except TokenRejected:
                raise _refused(fault) from None
        except TokenRejected as fault:
            raise _refused(fault) from None
        if claims.sid in picture.ended:
            raise Unauthorized("this login has ended; log in again")
        return claims

    async def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Every key that verifies, of both purposes (RFC 7517)."""
        return {"keys": [as_jwk(key) for key in (await self._current()).keys]}

    def forget(self) -> None:
        """Look again at the next call: this process has just changed something."""
        if self._picture is not None:
            self._picture = replace(self._picture, looked_at=float("-inf"))

    def _verified(self, picture: _Picture, token: str) -> AccessClaims:
        settings = self._settings
        known = picture.verified.get(token)
        if known is not None and time.time() < known.exp + settings.clock_skew.total_seconds():
            return known
        claims = picture.ring.verify(token, AccessClaims, settings.issuer, settings.audience, settings.clock_skew)
        if len(picture.verified) >= MOST_VERIFIED:
            picture.verified.clear()
        picture.verified[token] = claims
        return claims

    async def _current(self) -> _Picture:
        picture = self._picture
        if picture is not None and self._clock() - picture.looked_at < LOOK_SECONDS:
            return picture
        if picture is not None and self._looking.locked() and picture.looked_at > float("-inf"):
            return picture  # somebody looks already; what was believed until now serves the rest
        async with self._looking:
            if self._picture is not None and self._clock() - self._picture.looked_at < LOOK_SECONDS:
                return self._picture
            return await self._look()

    async def _look_again(self, picture: _Picture) -> _Picture:
        async with self._looking:
            if self._picture is not picture and self._picture is not None:
                return self._picture  # somebody has just looked
            if self._clock() - self._extra_look_at < EXTRA_LOOK_SECONDS:
                return picture
            self._extra_look_at = self._clock()
            return await self._look()

    async def _look(self) -> _Picture:
        try:
            async with self._unit_of_work() as uow:
                keys = await uow.signing_keys.list()
                since = await uow.now() - self._settings.token_lifetime - REVOCATION_MARGIN
                ended = await uow.sessions.ended_since(since)
        except Unavailable as fault:
            if self._picture is None:
                raise
            if not self._away:
                log.warning("keys and ended logins cannot be read; those of before hold on: %s", fault.message)
            self._away = True
            self._picture = replace(self._picture, looked_at=self._clock())
            return self._picture
        self._away = False
        public = {key: PublicKey(kid=key.kid, public=key.public) for key in keys}
        ring = KeyRing(KeyPurpose.API, [public[key] for key in keys if key.purpose is KeyPurpose.API])
        self._picture = _Picture(ring, tuple(public.values()), frozenset(ended), self._clock())
        return self._picture

    # -- signing -------------------------------------------------------------------------------------------------

    async def sign_access(self, uow: UnitOfWork, claims: dict[str, Any], issued: datetime, expires: datetime) -> str:
        """An access token of the api. Raises Unavailable without a key-encryption key. The caller commits."""
        signer = await self.signer(uow, KeyPurpose.API, issued)
        return signer.sign(self._settings.issuer, self._settings.audience, issued, expires, claims)

    async def sign_tenant(
        self, uow: UnitOfWork, audience: str, claims: dict[str, Any], issued: datetime, expires: datetime
    ) -> str:
        """A token for the data plane. As `sign_access`."""
        signer = await self.signer(uow, KeyPurpose.DATA_PLANE, await uow.now())
        return signer.sign(self._settings.issuer, audience, issued, expires, claims)

    async def signer(self, uow: UnitOfWork, purpose: KeyPurpose, now: datetime) -> Signer:
        """The newest key that may sign now; the first one is made when it is needed. The caller commits."""
        sealer = self._sealed_by()
        keys = await uow.signing_keys.list(purpose)
        if not keys:
            await uow.signing_keys.lock()
            keys = await uow.signing_keys.list(purpose) or [await self._add(uow, purpose, now, now)]
        ours = [key for key in keys if key.sealed_by == sealer.key_id]
        if not ours:
            raise Unavailable(
                "the signing keys were sealed under another key-encryption key than HOTSWAP_AUTH__KEY_ENCRYPTION_KEY: "
                "set that one again, or make new keys under this one with `hotswap auth rotate-keys`"
            )
        active = [key for key in ours if key.active_from <= now] or ours[:1]
        return unsealed(max(active, key=lambda key: key.active_from), sealer)

    async def rotate(self, uow: UnitOfWork, now: datetime, *, revoke: bool) -> list[SigningKey]:
        """A new key of each purpose. The old ones sign until verifiers know the new, and verify as long as what they
        signed may live; with `revoke` they are gone at once, and with them every token they signed. The caller commits.
        """
        self._sealed_by()
        await uow.signing_keys.lock()
        made = []
        for purpose, lifetime in (
            (KeyPurpose.API, self._settings.token_lifetime),
            (KeyPurpose.DATA_PLANE, MAX_TENANT_TOKEN_LIFETIME),
        ):
            old = await uow.signing_keys.list(purpose)
            signs_from = now if revoke or not old else now + self._settings.key_activation
            made.append(await self._add(uow, purpose, now, signs_from))
            until = now if revoke else signs_from + lifetime + REVOCATION_MARGIN
            await uow.signing_keys.retire([key.kid for key in old], until)
        return made

    async def ensure_keys(self, uow: UnitOfWork) -> None:
        """Make the first keys now rather than at the first login: nodes then know them before a token comes."""
        now = await uow.now()
        for purpose in KeyPurpose:
            await self.signer(uow, purpose, now)

    async def _add(self, uow: UnitOfWork, purpose: KeyPurpose, now: datetime, signs_from: datetime) -> SigningKey:
        key = new_signing_key(purpose, self._sealed_by(), now, signs_from)
        await uow.signing_keys.add(key)
        return key

    def _sealed_by(self) -> Sealer:
        if self._sealer is None:
            raise Unavailable(
                "tokens cannot be signed here: HOTSWAP_AUTH__KEY_ENCRYPTION_KEY is not set on this api; "
                f"make one with: {GENERATE}"
            )
        return self._sealer


def _refused(fault: TokenRejected) -> Unauthorized:
    log.info("a token was refused: %s", fault)
    if isinstance(fault, TokenExpired):
        return Unauthorized("the token has expired; refresh it or log in again")
    return Unauthorized("the token is not known; log in, or ask an administrator for a new one")
