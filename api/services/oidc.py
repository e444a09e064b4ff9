"""Tokens of the platform's own identity provider: verified by its published keys, its claims mapped to our roles.

A token never chooses how it is checked (RFC 8725): the algorithm must be asymmetric and fit the key that its id names,
so neither `none` nor an HMAC under a public key gets through. Neighbour: hotswap.adapters.oidc_keys fetches the keys.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import TypeAdapter, ValidationError

from api.services.actor import Actor, Credential
from hotswap.config_access import OidcSettings
from hotswap.domain.base import TenantId
from hotswap.domain.deployment import Role
from hotswap.domain.errors import Unauthorized, Unavailable
from hotswap.identity.tokens import MAX_TOKEN_CHARACTERS
from hotswap.ports.oidc import KeySetSource

log = logging.getLogger(__name__)

REFRESH_SECONDS = 600.0
"""How old the key set may be before it is fetched again: how long a key that the provider took back verifies here."""

UNKNOWN_KEY_SECONDS = 10.0
"""Between fetches that an unknown key id asks for, and between attempts while the provider is away."""

MAX_TENANTS = 1000
MAX_USER_CHARACTERS = 200

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
_TENANT = TypeAdapter(TenantId)


class OidcVerifier:
    """`clock` in seconds."""

    def __init__(
        self, settings: OidcSettings, source: KeySetSource, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._keys: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    @property
    def issuer(self) -> str:
        return self._settings.issuer

    async def identify(self, token: str, trace_id: str) -> Actor:
        """Raises Unauthorized, and Unavailable when the keys were never had and cannot be fetched."""
        try:
            claims = await self._verified(token)
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired; get a new one from your identity provider") from None
        except (jwt.PyJWTError, ValueError, RecursionError) as fault:
            log.info("a token of %s was refused: %s", self._settings.issuer, type(fault).__name__)
            raise Unauthorized("the token is not one that your identity provider made for this api") from None
        user = claims.get(self._settings.user_claim)
        if not isinstance(user, str) or not user.isprintable() or not 0 < len(user) <= MAX_USER_CHARACTERS:
            raise Unauthorized(f"the token names nobody: its claim '{self._settings.user_claim}' is no printable text")
        return Actor(
            user=f"{self._settings.user_prefix}{user}",
            roles=self._roles(claims),
            trace_id=trace_id,
            tenants=_tenants(_claim(claims, self._settings.tenants_claim)),
            credential=Credential.OIDC,
        )

    async def close(self) -> None:
        await self._source.close()

    async def _verified(self, token: str) -> dict[str, Any]:
        if len(token) > 2 * MAX_TOKEN_CHARACTERS:
            raise jwt.DecodeError("too long")
        header = jwt.get_unverified_header(token)
        if "crit" in header:
            raise jwt.DecodeError("critical extensions are not understood")
        key, algorithms = await self._key(header.get("kid"))
        if header.get("alg") not in algorithms:
            raise jwt.InvalidAlgorithmError("not an algorithm of this key")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            list(algorithms),
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=self._settings.clock_skew,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
        return claims

    async def _key(self, kid: Any) -> tuple[Any, tuple[str, ...]]:
        known = self._keys.get(kid) if isinstance(kid, str) else None
        old = self._clock() - self._fetched_at > REFRESH_SECONDS
        if (known is None or old) and self._clock() - self._tried_at > UNKNOWN_KEY_SECONDS:
            async with self._fetching:
                if self._clock() - self._tried_at > UNKNOWN_KEY_SECONDS:
                    await self._fetch()
            known = self._keys.get(kid) if isinstance(kid, str) else None
        if known is None:
            raise jwt.InvalidKeyError("signed by a key that is not published")
        return known

    async def _fetch(self) -> None:
        self._tried_at = self._clock()
        try:
            published = await self._source.fetch()
        except Unavailable as fault:
            if not self._keys:
                raise
            log.warning("the keys of before hold on: %s", fault.message)
            return
        self._fetched_at = self._clock()
        self._keys = _usable(published)

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        given = _claim(claims, self._settings.roles_claim)
        names = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        held = {name for name in names if isinstance(name, str)}
        if self._settings.role_mapping:
            return frozenset(one.role for one in self._settings.role_mapping if one.claim in held)
        return frozenset(role for role in Role if role.value in held)


def _usable(published: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Keys for signatures by id, each with the algorithms that fit it. Symmetric and weak ones are left out."""
    found: dict[str, tuple[Any, tuple[str, ...]]] = {}
    for item in published:
        kid = item.get("kid")
        algorithms: tuple[str, ...] = _RSA if item.get("kty") == "RSA" else _CURVES.get(str(item.get("crv")), ())
        if item.get("kty") not in ("RSA", "EC", "OKP") or item.get("use", "sig") != "sig" or not isinstance(kid, str):
            continue
        if (declared := item.get("alg")) is not None:
            algorithms = tuple(name for name in algorithms if name == declared)
        try:
            key = jwt.PyJWK(item, algorithm=algorithms[0]).key if algorithms else None
        except (jwt.PyJWTError, ValueError, TypeError) as fault:
            log.warning("key %s of the identity provider cannot be read: %s", kid[:64], type(fault).__name__)
            continue
        if key is None or (isinstance(key, RSAPublicKey) and key.key_size < 2048):
            continue
        found[kid] = (key, algorithms)
    return found


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, else by its dotted path: namespaced claims have dots in their names."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _tenants(given: Any) -> frozenset[str]:
    found = set()
    for name in given[:MAX_TENANTS] if isinstance(given, list) else ():
        try:
            found.add(_TENANT.validate_python(name))
        except ValidationError:
            continue  # not a tenant of ours
    return frozenset(found)
