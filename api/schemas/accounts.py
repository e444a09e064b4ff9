"""Logins, users, service tokens and tenants' tokens as clients write and read them. Secrets go out once, never again."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, SecretStr

from api.schemas.common import Flag, IsoDuration, Line
from api.services.actor import Actor, Credential
from hotswap.domain.accounts import ServiceName, ServiceToken, SigningKey, TenantToken, User, UserName
from hotswap.domain.base import Instant, Model, PluginName, TenantId
from hotswap.domain.deployment import Environment, Role

Secret = Annotated[SecretStr, Field(max_length=2000)]
Roles = Annotated[tuple[Role, ...], Field(max_length=len(Role))]
Tenants = Annotated[tuple[TenantId, ...], Field(max_length=100)]
Environments = Annotated[tuple[Environment, ...], Field(max_length=len(Environment))]
Lifetime = Annotated[IsoDuration, Field(gt=timedelta(seconds=59))]


class LoginIn(Model):
    user: Line = Field(min_length=1, max_length=200)
    password: Secret


class RefreshIn(Model):
    refresh_token: Secret


class PasswordIn(Model):
    """Body of a change of one's own password."""

    current_password: Secret
    new_password: Secret


class UserOut(Model):
    name: str
    display_name: str
    roles: tuple[Role, ...]
    tenants: tuple[str, ...]
    disabled: bool
    created_at: Instant
    updated_at: Instant

    @classmethod
    def of(cls, user: User) -> Self:
        return cls(
            name=user.name,
            display_name=user.display_name,
            roles=user.roles,
            tenants=user.tenants,
            disabled=not user.enabled,
            created_at=user.created_at,
            updated_at=user.updated_at,
        )


class LoginOut(Model):
    """`token` is the bearer token until `expiresAt`; `refreshToken` gets the next one, once."""

    token: str
    expires_at: Instant
    user: UserOut
    refresh_token: str
    session_expires_at: Instant


class WhoOut(Model):
    """Who the presented token is."""

    user: str
    roles: tuple[Role, ...]
    tenants: tuple[str, ...]
    environments: tuple[Environment, ...] = Field(description="where the token reaches; empty: everywhere")
    credential: Credential

    @classmethod
    def of(cls, actor: Actor) -> Self:
        return cls(
            user=actor.user,
            roles=actor.ordered_roles(),
            tenants=tuple(sorted(actor.tenants)),
            environments=tuple(one for one in Environment if one in actor.environments),
            credential=actor.credential,
        )


class UserIn(Model):
    """Body of POST /users. Without a password one is made, and told once."""

    name: UserName
    display_name: Line = Field(default="", max_length=255)
    roles: Roles = ()
    tenants: Tenants = ()
    password: Secret | None = None


class UserChange(Model):
    """Body of PUT /users/{user}: what is left out stays."""

    display_name: Line | None = Field(default=None, max_length=255)
    roles: Roles | None = None
    tenants: Tenants | None = None
    disabled: Flag | None = None


class NewPasswordIn(Model):
    """Without a password one is made, and told once."""

    password: Secret | None = None


class UserMade(Model):
    """`password` is null when the caller chose it, and when a repeat under the same Idempotency-Key asks again."""

    user: UserOut
    password: str | None = None


class ServiceTokenIn(Model):
    name: ServiceName
    roles: Annotated[tuple[Role, ...], Field(min_length=1, max_length=len(Role))]
    tenants: Tenants = ()
    environments: Environments = ()
    lifetime: Lifetime = Field(default=timedelta(days=90), le=timedelta(days=366))


class ServiceTokenOut(Model):
    token_id: str
    name: str
    prefix: str
    roles: tuple[Role, ...]
    tenants: tuple[str, ...]
    environments: tuple[Environment, ...]
    created_by: str
    created_at: Instant
    expires_at: Instant
    last_used_at: Instant | None
    revoked_at: Instant | None
    revoked_by: str | None

    @classmethod
    def of(cls, token: ServiceToken) -> Self:
        return cls.model_validate(token.model_dump(exclude={"digest"}, by_alias=False))


class ServiceTokenMade(Model):
    """`token` is told once: null when a repeat under the same Idempotency-Key asks again."""

    token: str | None
    service_token: ServiceTokenOut


class TenantTokenIn(Model):
    """Body of POST /tenants/{tenant}/tokens. Empty lists: all."""

    environments: Environments = ()
    plugins: Annotated[tuple[PluginName, ...], Field(max_length=50)] = ()
    description: Line = Field(default="", max_length=200)
    lifetime: Lifetime | None = Field(
        default=None, description="default: HOTSWAP_AUTH__TENANT_TOKEN_LIFETIME, the longest"
    )


class TenantTokenMade(Model):
    token: str
    tenant_token: TenantToken


class SigningKeyOut(Model):
    kid: str
    purpose: str
    created_at: Instant
    signs_from: Instant
    verify_until: Instant | None

    @classmethod
    def of(cls, key: SigningKey) -> Self:
        return cls(
            kid=key.kid,
            purpose=key.purpose.value,
            created_at=key.created_at,
            signs_from=key.active_from,
            verify_until=key.verify_until,
        )


class SigningKeysOut(Model):
    """All that still verify."""

    items: tuple[SigningKeyOut, ...]


class RotateIn(Model):
    """`revoke`: the old keys are gone at once, and with them every login and every tenant's token they signed."""

    revoke: Flag = False
    reason: Line = Field(default="", max_length=500)


class KeySetOut(Model):
    """A JSON Web Key Set (RFC 7517)."""

    keys: tuple[dict[str, str], ...]
