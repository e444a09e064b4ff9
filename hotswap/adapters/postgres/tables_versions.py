"""The tables of publishers' keys and pending uploads, for hotswap.adapters.postgres.tables; migration 0006 makes them."""

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Index, MetaData, String, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

_NAME = String(255, collation="C")
_INSTANT = DateTime(timezone=True)


def publisher_keys_in(metadata: MetaData) -> Table:
    return Table(
        "publisher_keys",
        metadata,
        Column("key_id", String(64, collation="C"), primary_key=True, comment="SHA-256 of the public key"),
        Column("publisher", String(255), nullable=False),
        Column("public_key", String(44), nullable=False, comment="Ed25519, 32 bytes in base64"),
        Column("plugins", JSONB, nullable=False, server_default=text("'[]'::jsonb"), comment="empty: all"),
        Column("registered_by", String(255), nullable=False),
        Column("registered_at", _INSTANT, nullable=False),
        Column("revoked_by", String(255)),
        Column("revoked_at", _INSTANT),
        Column("revoke_reason", Text, nullable=False, server_default=""),
        CheckConstraint("key_id ~ '^[0-9a-f]{64}$'", name="key_id"),
        CheckConstraint("jsonb_typeof(plugins) = 'array'", name="plugins"),
        CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revoked"),
        Index("ix_publisher_keys_newest", text("registered_at DESC"), text("key_id DESC")),
    )


def pending_uploads_in(metadata: MetaData) -> Table:
    return Table(
        "pending_uploads",
        metadata,
        Column("upload_id", _NAME, primary_key=True),
        # No foreign key: the object has to be swept also when its plugin is gone.
        Column("plugin_id", _NAME, nullable=False),
        Column("version", String(50, collation="C"), nullable=False),
        Column("digest", String(64), nullable=False),
        Column("size_bytes", BigInteger, nullable=False),
        Column("created_by", String(255), nullable=False),
        Column("created_at", _INSTANT, nullable=False),
        Column("expires_at", _INSTANT, nullable=False),
        Column("completed_at", _INSTANT),
        CheckConstraint("size_bytes > 0", name="size_bytes"),
        Index("ix_pending_uploads_expires_at", "expires_at", "upload_id"),
    )
