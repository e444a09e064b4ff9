"""Settings of who may do what: the facade's doors, tokens of ours, the identity provider. Part of hotswap.config.

docs/authentication.md says what they mean to an operator.
"""

import ipaddress
from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from hotswap.domain.accounts import MAX_TENANT_TOKEN_LIFETIME
from hotswap.domain.base import TenantId
from hotswap.domain.deployment import Role
from hotswap.identity.key_material import decode_key


class SettingsGroup(BaseModel):
    """Settings under one prefix. An unknown name is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DevelopmentUser(SettingsGroup):
    """A user known by a fixed token: the embedded stack's. Refused where people log in (docs/authentication.md)."""

    user: str
    roles: tuple[Role, ...]
    token: SecretStr
    tenants: tuple[TenantId, ...] = ()


class ApiSettings(SettingsGroup):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    production: bool = Field(default=False, description="refuse what is for development only")
    development_users: tuple[DevelopmentUser, ...] = ()
    rate_limit_factor: float = Field(
        default=1.0, ge=1, le=1_000_000, description="every limit times this; 1 = the specification's"
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="addresses or networks whose X-Forwarded-For is believed; nobody's by default"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for network in given:
            ipaddress.ip_network(network, strict=False)
        return given


class AuthSettings(SettingsGroup):
    """Tokens of ours: what people log in for, and what tenants call the data plane with (docs/authentication.md)."""

    issuer: str = Field(default="hotswap", min_length=1, description="the same for api and nodes")
    audience: str = Field(default="hotswap-api", min_length=1)
    key_encryption_key: SecretStr | None = Field(
        default=None, description="32 bytes in base64 or hex; seals the signing keys in PostgreSQL. Logins need it"
    )
    token_lifetime: timedelta = Field(default=timedelta(minutes=15), ge=timedelta(minutes=1), le=timedelta(hours=1))
    session_lifetime: timedelta = Field(
        default=timedelta(hours=12), ge=timedelta(minutes=1), le=timedelta(days=30), description="then log in again"
    )
    tenant_token_lifetime: timedelta = Field(
        default=timedelta(days=30), ge=timedelta(minutes=1), le=MAX_TENANT_TOKEN_LIFETIME, description="the longest"
    )
    key_activation: timedelta = Field(
        default=timedelta(seconds=15),
        ge=timedelta(0),
        le=timedelta(minutes=10),
        description="how long a new key is known before it signs: three times HOTSWAP_NODE__RECONCILE",
    )
    clock_skew: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(0), le=timedelta(minutes=1))
    jwt_secret: SecretStr | None = Field(default=None, description="of the predecessor; refused, with the reason")

    @field_validator("key_encryption_key")
    @classmethod
    def _is_a_key(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None:
            decode_key(given.get_secret_value())
        return given

    @field_validator("jwt_secret")
    @classmethod
    def _no_shared_secret(cls, given: SecretStr | None) -> None:
        if given is not None:
            raise ValueError(
                "is not supported: who can check a token with a shared secret can also forge one, and every node "
                "would hold it. Unset it; set HOTSWAP_AUTH__KEY_ENCRYPTION_KEY, or HOTSWAP_OIDC__ISSUER for your own"
            )


class RoleMapping(SettingsGroup):
    """Whoever has `claim` in the roles claim has `role` here."""

    claim: str = Field(min_length=1)
    role: Role


class OidcSettings(SettingsGroup):
    """The identity provider of production. Off while `issuer` is empty."""

    issuer: str = Field(default="", description="exactly as in its tokens' iss")
    audience: str = Field(default="", description="of tokens meant for this api; required")
    jwks_url: str = Field(default="", description="https address of its key set; required")
    user_claim: str = Field(default="sub", min_length=1)
    user_prefix: str = Field(default="oidc:", description="keeps its users apart from local ones")
    roles_claim: str = Field(default="roles", min_length=1, description="a dot goes into an object: realm_access.roles")
    role_mapping: tuple[RoleMapping, ...] = Field(default=(), description="empty: the claim holds our role names")
    tenants_claim: str = Field(default="tenants", min_length=1, description="of a TenantOwner: a list of tenant ids")
    clock_skew: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(0), le=timedelta(minutes=2))
    timeout: timedelta = Field(default=timedelta(seconds=3), gt=timedelta(0), le=timedelta(seconds=30))

    @field_validator("jwks_url")
    @classmethod
    def _protected(cls, url: str) -> str:
        if url and not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
            raise ValueError(
                "must begin with https:// (http:// for this machine only), or who can change the keys on their way can be anybody"
            )
        return url


def contradictions(api: ApiSettings, auth: AuthSettings, oidc: OidcSettings) -> list[str]:
    """What is right by itself and wrong together, each with the remedy."""
    faults = []
    if api.development_users and (api.production or oidc.issuer):
        why = "HOTSWAP_API__PRODUCTION is true" if api.production else "HOTSWAP_OIDC__ISSUER is set"
        faults.append(f"HOTSWAP_API__DEVELOPMENT_USERS: fixed tokens are refused where {why}; unset it, or that")
    if api.production and auth.key_encryption_key is None and not oidc.issuer:
        faults.append(
            "HOTSWAP_AUTH__KEY_ENCRYPTION_KEY is not set, nor is HOTSWAP_OIDC__ISSUER: in production nobody could log in"
        )
    for name in ("audience", "jwks_url"):
        if bool(getattr(oidc, name)) != bool(oidc.issuer):
            missing, given = (name, "issuer") if oidc.issuer else ("issuer", name)
            faults.append(f"HOTSWAP_OIDC__{missing.upper()} is not set, but HOTSWAP_OIDC__{given.upper()} is")
    if oidc.issuer and oidc.issuer == auth.issuer:
        faults.append("HOTSWAP_OIDC__ISSUER and HOTSWAP_AUTH__ISSUER are the same; they name different keys")
    return faults
