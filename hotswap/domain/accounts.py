"""Who may speak to the platform: users, their sessions, service tokens, tenants' tokens and the keys that sign them.

Pure. hotswap.ports.accounts keeps these, hotswap.identity does the cryptography, api.services decides.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from hotswap.domain.base import Digest, Instant, Model, PluginName, TenantId
from hotswap.domain.deployment import Environment, Role

USER_NAME = r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$"

UserName = Annotated[str, StringConstraints(pattern=USER_NAME)]
"""1 to 63 characters without a colon: `service:ci` and `oidc:ada` can never be a local user."""

ServiceName = PluginName

MAX_TENANT_TOKEN_LIFETIME = timedelta(days=90)
"""How long a tenant's token may live, and so how long its key is kept for verifying after a rotation."""

REVOCATION_MARGIN = timedelta(minutes=2)
"""How much longer than a token's own lifetime its revocation and its key are kept: clocks differ, and leeway is given."""


class User(Model):
    """A person with a password of ours. The password's hash is kept beside it, never in it."""

    name: UserName
    display_name: str = Field(default="", max_length=255)
    roles: tuple[Role, ...] = ()
    tenants: tuple[TenantId, ...] = Field(
        default=(), description="of a TenantOwner: whose plugins are theirs to configure"
    )
    disabled_at: Instant | None = None
    created_at: Instant
    updated_at: Instant

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None


class LoginSession(Model):
    """One login: access tokens name it, refresh tokens continue it, ending it ends both."""

    session_id: str
    user: UserName
    refresh_digest: Digest
    previous_digest: Digest | None = Field(
        default=None, description="the refresh token before: seen again, it was copied"
    )
    created_at: Instant
    refreshed_at: Instant
    expires_at: Instant
    ended_at: Instant | None = None

    def lives(self, now: datetime) -> bool:
        return self.ended_at is None and now < self.expires_at


class ServiceToken(Model):
    """A machine's credential: 256 random bits, of which only the SHA-256 is kept."""

    token_id: str
    name: ServiceName
    prefix: str = Field(description="how the token begins, to find it again in a configuration")
    digest: Digest
    roles: tuple[Role, ...]
    tenants: tuple[TenantId, ...] = ()
    environments: tuple[Environment, ...] = Field(default=(), description="empty: all")
    created_by: str
    created_at: Instant
    expires_at: Instant
    last_used_at: Instant | None = None
    revoked_at: Instant | None = None
    revoked_by: str | None = None

    def lives(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


class TenantToken(Model):
    """What is known of a tenant's data-plane token. The token itself is a signed JWT and is kept nowhere."""

    token_id: str
    tenant: TenantId
    environments: tuple[Environment, ...] = Field(default=(), description="empty: all")
    plugins: tuple[PluginName, ...] = Field(default=(), description="empty: all")
    description: str = Field(default="", max_length=200)
    created_by: str
    created_at: Instant
    expires_at: Instant
    revoked_at: Instant | None = None
    revoked_by: str | None = None


class KeyPurpose(StrEnum):
    """A key signs for one audience only: a node's key ring can never verify an administrator's token."""

    API = "api"
    DATA_PLANE = "data-plane"


class SigningKey(Model):
    """An Ed25519 key pair. The private half is sealed under the key-encryption key that `sealed_by` names."""

    kid: str
    purpose: KeyPurpose
    public: str = Field(description="32 bytes, base64url without padding (the `x` of a JWK)")
    sealed_private: str = Field(repr=False)
    sealed_by: str
    created_at: Instant
    active_from: Instant = Field(description="it signs from then on; until then verifiers get to know it")
    verify_until: Instant | None = Field(default=None, description="of a key that was rotated out")

    def verifies(self, now: datetime) -> bool:
        return self.verify_until is None or now < self.verify_until


class PublicKey(Model):
    """What a verifier needs of a signing key."""

    kid: str
    public: str
