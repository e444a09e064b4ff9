"""The tables of users, sessions, tokens and signing keys, in the metadata of hotswap.adapters.postgres.tables.

Migrations 0001 (users) and 0005 make them.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

_NAME = String(255, collation="C")
_INSTANT = DateTime(timezone=True)
_NOW = func.now()
_EMPTY_LIST = text("'[]'::jsonb")


def users_in(metadata: MetaData) -> Table:
    return Table(
        "users",
        metadata,
        Column("user_id", _NAME, primary_key=True),
        Column("display_name", String(255), nullable=False, server_default=""),
        Column("roles", JSONB, nullable=False, server_default=_EMPTY_LIST),
        Column("password_hash", LargeBinary),
        Column("disabled_at", _INSTANT),
        Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
        Column("updated_at", _INSTANT, nullable=False, server_default=_NOW),
        Column("tenants", JSONB, nullable=False, server_default=_EMPTY_LIST, comment="of a TenantOwner"),
        CheckConstraint("jsonb_typeof(roles) = 'array'", name="roles"),
        CheckConstraint("jsonb_typeof(tenants) = 'array'", name="tenants"),
    )


def login_sessions_in(metadata: MetaData) -> Table:
    return Table(
        "login_sessions",
        metadata,
        Column("session_id", _NAME, primary_key=True),
        Column("user_id", _NAME, ForeignKey("users.user_id", ondelete="CASCADE"), nullable=False),
        Column("refresh_digest", String(64), nullable=False, comment="SHA-256 of the refresh token"),
        Column("previous_digest", String(64)),
        Column("created_at", _INSTANT, nullable=False),
        Column("refreshed_at", _INSTANT, nullable=False),
        Column("expires_at", _INSTANT, nullable=False),
        Column("ended_at", _INSTANT),
        Index("ix_login_sessions_user_id", "user_id"),
        Index("ix_login_sessions_expires_at", "expires_at"),
        Index("ix_login_sessions_ended_at", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    )


def service_tokens_in(metadata: MetaData) -> Table:
    return Table(
        "service_tokens",
        metadata,
        Column("token_id", _NAME, primary_key=True),
        Column("name", _NAME, nullable=False),
        Column("prefix", String(20), nullable=False),
        Column("digest", String(64), nullable=False, unique=True, comment="SHA-256 of the token"),
        Column("roles", JSONB, nullable=False),
        Column("tenants", JSONB, nullable=False, server_default=_EMPTY_LIST),
        Column("environments", JSONB, nullable=False, server_default=_EMPTY_LIST, comment="empty: all"),
        Column("created_by", String(255), nullable=False),
        Column("created_at", _INSTANT, nullable=False),
        Column("expires_at", _INSTANT, nullable=False),
        Column("last_used_at", _INSTANT),
        Column("revoked_at", _INSTANT),
        Column("revoked_by", String(255)),
        CheckConstraint("jsonb_typeof(roles) = 'array'", name="roles"),
        CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revoked"),
        Index("ix_service_tokens_newest", text("created_at DESC"), text("token_id DESC")),
        Index("ix_service_tokens_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )


def tenant_tokens_in(metadata: MetaData) -> Table:
    return Table(
        "tenant_tokens",
        metadata,
        Column("token_id", _NAME, primary_key=True),
        Column("tenant_id", _NAME, nullable=False),
        Column("environments", JSONB, nullable=False, server_default=_EMPTY_LIST, comment="empty: all"),
        Column("plugins", JSONB, nullable=False, server_default=_EMPTY_LIST, comment="empty: all"),
        Column("description", Text, nullable=False, server_default=""),
        Column("created_by", String(255), nullable=False),
        Column("created_at", _INSTANT, nullable=False),
        Column("expires_at", _INSTANT, nullable=False),
        Column("revoked_at", _INSTANT),
        Column("revoked_by", String(255)),
        CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revoked"),
        Index("ix_tenant_tokens_tenant_id", "tenant_id", text("created_at DESC"), text("token_id DESC")),
        Index("ix_tenant_tokens_revoked", "expires_at", postgresql_where=text("revoked_at IS NOT NULL")),
        comment="what is known of tokens of the data plane; the tokens themselves are kept nowhere",
    )


def signing_keys_in(metadata: MetaData) -> Table:
    return Table(
        "signing_keys",
        metadata,
        Column("kid", String(64, collation="C"), primary_key=True),
        Column("purpose", String(50), nullable=False),
        Column("public", String(64), nullable=False),
        Column("sealed_private", Text, nullable=False, comment="AES-256-GCM under the key-encryption key"),
        Column("sealed_by", String(64), nullable=False, comment="which key-encryption key"),
        Column("created_at", _INSTANT, nullable=False),
        Column("active_from", _INSTANT, nullable=False),
        Column("verify_until", _INSTANT, comment="null: not rotated out"),
        CheckConstraint("purpose IN ('api', 'data-plane')", name="purpose"),
    )
