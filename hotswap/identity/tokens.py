"""Signed tokens: JWTs by Ed25519 (RFC 8037), verified against a ring of public keys and nothing else.

Neighbours: api.services.trust reads the ring from PostgreSQL and signs, hotswap.node.tenant_auth verifies offline.
A token never chooses how it is checked: one algorithm, keys by id from our own ring, `jwk`, `jku` and `x5c` unread.
"""

import base64
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from hotswap.domain.accounts import KeyPurpose, PublicKey, SigningKey
from hotswap.domain.base import PluginName, TenantId
from hotswap.domain.deployment import Environment, Role
from hotswap.identity.sealing import Sealer

ALGORITHM = "EdDSA"
MAX_TOKEN_CHARACTERS = 8192
"""Longer is no token of ours: the largest has a user of 100 tenants, about 5,000."""

DATA_PLANE_AUDIENCE = "hotswap-data-plane"

_FORM = re.compile(r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}\Z")

_TYPES = {KeyPurpose.API: "at+jwt", KeyPurpose.DATA_PLANE: "hotswap-tenant+jwt"}
"""The `typ` header: a token of one kind is never taken for another, even if audiences were set alike (RFC 8725, 3.11)."""


class TokenRejected(Exception):
    """The token is not one of ours, or not any more. The text is for the log and says nothing that is secret."""


class UnknownKey(TokenRejected):
    """No key of this id in the ring: forged, or signed by a key that we have not read yet."""


class TokenExpired(TokenRejected):
    """It was ours."""


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)


class AccessClaims(_Claims):
    """What an access token of the api says."""

    sub: str
    roles: tuple[Role, ...]
    tenants: tuple[TenantId, ...] = ()
    sid: str
    exp: float


class TenantClaims(_Claims):
    """What a tenant's token says. Empty `env` or `plugins`: all."""

    sub: TenantId
    jti: str
    env: tuple[Environment, ...] = ()
    plugins: tuple[PluginName, ...] = ()
    exp: float


C = TypeVar("C", bound=_Claims)


@dataclass(frozen=True)
class Signer:
    """A private key at hand."""

    kid: str
    purpose: KeyPurpose
    key: Ed25519PrivateKey

    def sign(self, issuer: str, audience: str, issued: datetime, expires: datetime, claims: dict[str, Any]) -> str:
        payload = {
            "iss": issuer,
            "aud": audience,
            "iat": int(issued.timestamp()),
            "exp": int(expires.timestamp()),
            **claims,
        }
        return jwt.encode(payload, self.key, ALGORITHM, headers={"kid": self.kid, "typ": _TYPES[self.purpose]})


class KeyRing:
    """Public keys of one purpose by id."""

    def __init__(self, purpose: KeyPurpose, keys: Iterable[PublicKey]) -> None:
        self._type = _TYPES[purpose]
        self._keys = {key.kid: Ed25519PublicKey.from_public_bytes(_decoded(key.public)) for key in keys}

    def verify(self, token: str, shape: type[C], issuer: str, audience: str, leeway: timedelta) -> C:
        """The claims of a token that holds in every respect. Raises TokenRejected."""
        # base64 decoders skip what is no base64, so a signature could be spelled in endless ways.
        if len(token) > MAX_TOKEN_CHARACTERS or not _FORM.match(token):
            raise TokenRejected("not the form of a token")
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if header.get("alg") != ALGORITHM or header.get("typ") != self._type or "crit" in header:
                raise TokenRejected("another kind of token")
            key = self._keys.get(kid) if isinstance(kid, str) else None
            if key is None:
                raise UnknownKey("signed by a key that is not known")
            claims = jwt.decode(
                token,
                key,
                [ALGORITHM],
                issuer=issuer,
                audience=audience,
                leeway=leeway,
                options={"require": ["exp", "iat", "iss", "aud", "sub"], "strict_aud": True},
            )
            return shape.model_validate(claims)
        except jwt.ExpiredSignatureError:
            raise TokenExpired("expired") from None
        except (jwt.PyJWTError, ValidationError, ValueError, RecursionError) as fault:
            raise TokenRejected(type(fault).__name__) from None


def new_signing_key(purpose: KeyPurpose, sealer: Sealer, created: datetime, active_from: datetime) -> SigningKey:
    key = Ed25519PrivateKey.generate()
    kid = secrets.token_hex(8)
    return SigningKey(
        kid=kid,
        purpose=purpose,
        public=base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).decode().rstrip("="),
        sealed_private=sealer.seal(key.private_bytes_raw(), _context(kid, purpose)),
        sealed_by=sealer.key_id,
        created_at=created,
        active_from=active_from,
    )


def unsealed(key: SigningKey, sealer: Sealer) -> Signer:
    """Raises Unavailable when it was sealed under another key, or changed since."""
    private = sealer.open(key.sealed_private, _context(key.kid, key.purpose))
    return Signer(key.kid, key.purpose, Ed25519PrivateKey.from_private_bytes(private))


def as_jwk(key: PublicKey) -> dict[str, str]:
    """RFC 8037, 2."""
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM, "kid": key.kid, "x": key.public}


def _context(kid: str, purpose: KeyPurpose) -> str:
    return f"signing key {kid} for {purpose.value}"


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
