"""The tables of the audit's chain and of notifications, in the metadata of hotswap.adapters.postgres.tables (migration 0009)."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

_NAME = String(255, collation="C")
_SLUG = String(63, collation="C")
_INSTANT = DateTime(timezone=True)


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def audit_chain_in(metadata: MetaData) -> Table:
    return Table(
        "audit_chain",
        metadata,
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        # No foreign key: a seal without its entry is the evidence that the entry was deleted.
        Column("audit_id", BigInteger, nullable=False),
        Column("layout", SmallInteger, nullable=False, comment="of the content that was hashed: audit_content()"),
        Column("previous_hash", String(64), nullable=False),
        Column("hash", String(64), nullable=False),
        UniqueConstraint("audit_id"),
        CheckConstraint("position >= 1", name="position"),
    )


def audit_checkpoints_in(metadata: MetaData) -> Table:
    return Table(
        "audit_checkpoints",
        metadata,
        Column("checkpoint_id", BigInteger, Identity(), primary_key=True),
        Column("position", BigInteger, nullable=False),
        Column("hash", String(64), nullable=False),
        Column("truncates", Boolean, nullable=False, comment="entries up to the position were taken away"),
        Column("entries_before", _INSTANT),
        Column("reason", Text, nullable=False),
        Column("created_by", String(255), nullable=False),
        Column("created_at", _INSTANT, nullable=False),
        Column("previous_signature", String(64), nullable=False),
        Column("key_id", String(16), nullable=False),
        Column("signature", String(64), nullable=False),
        UniqueConstraint("previous_signature"),  # one chain of checkpoints, whoever makes two at once
        Index("ix_audit_checkpoints_truncates", "position", postgresql_where=text("truncates")),
    )


def notices_in(metadata: MetaData) -> Table:
    return Table(
        "notices",
        metadata,
        Column("event_id", _NAME, primary_key=True),
        Column("kind", String(100), nullable=False),
        Column("environment", String(100, collation="C")),
        Column("plugin_id", _NAME),
        Column("fields", JSONB, nullable=False),
        Column("only_rule", _SLUG, comment="a test of one rule; null: every rule that matches"),
        Column("happened_at", _INSTANT, nullable=False),
        Column("announced_at", _INSTANT, nullable=False, server_default=func.clock_timestamp()),
        Column("routed_at", _INSTANT),
        Index("ix_notices_announced_at", "announced_at"),
        Index("ix_notices_unrouted", "announced_at", postgresql_where=text("routed_at IS NULL")),
    )


def notification_rules_in(metadata: MetaData) -> Table:
    return Table(
        "notification_rules",
        metadata,
        Column("rule_id", _SLUG, primary_key=True),
        Column(
            "rule",
            JSONB,
            nullable=False,
            comment="hotswap.domain.notification_rules.NotificationRule; no secrets, only their names",
        ),
        Column("updated_by", String(255), nullable=False),
        Column("updated_at", _INSTANT, nullable=False),
    )


def notification_deliveries_in(metadata: MetaData) -> Table:
    return Table(
        "notification_deliveries",
        metadata,
        Column("delivery_id", _NAME, primary_key=True),
        Column("event_id", _NAME, ForeignKey("notices.event_id", ondelete="CASCADE"), nullable=False),
        Column("rule_id", _SLUG, nullable=False, comment="no foreign key: the log outlives the rule"),
        Column("kind", String(100), nullable=False),
        Column("channel", String(20), nullable=False),
        Column("target", Text, nullable=False),
        Column("status", String(50), nullable=False, server_default="Pending"),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("last_error", Text, nullable=False, server_default=""),
        Column("created_at", _INSTANT, nullable=False, server_default=func.clock_timestamp()),
        Column("last_attempt_at", _INSTANT),
        Column("finished_at", _INSTANT),
        _one_of("status", "Pending", "Delivered", "Failed"),
        _one_of("channel", "webhook", "email", "slack"),
        Index("ix_notification_deliveries_event_id", "event_id"),
        Index("ix_notification_deliveries_newest", text("created_at DESC"), text("delivery_id DESC")),
        Index("ix_notification_deliveries_rule_id", "rule_id", text("created_at DESC"), text("delivery_id DESC")),
        Index("ix_notification_deliveries_status", "status", text("created_at DESC"), text("delivery_id DESC")),
    )
