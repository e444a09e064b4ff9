"""The tables of sandbox sessions, in the metadata of hotswap.adapters.postgres.tables. Migration 0004 makes them."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

_NAME = String(255, collation="C")
_INSTANT = DateTime(timezone=True)


def sandbox_sessions_in(metadata: MetaData) -> Table:
    return Table(
        "sandbox_sessions",
        metadata,
        Column("session_id", _NAME, primary_key=True),
        Column("plugin_id", _NAME, nullable=False),
        Column("version", String(50, collation="C"), nullable=False),
        Column("environment", String(100, collation="C"), ForeignKey("environments.name"), nullable=False),
        Column("status", String(50), nullable=False),
        Column("created_by", String(255), nullable=False),
        Column("created_at", _INSTANT, nullable=False),
        Column("expires_at", _INSTANT, nullable=False),
        Column("ended_at", _INSTANT),
        Column("session", JSONB, nullable=False, comment="hotswap.domain.sandbox.SandboxSession"),
        CheckConstraint("status IN ('Active', 'Expired', 'Deleted')", name="status"),
        CheckConstraint("(status = 'Active') = (ended_at IS NULL)", name="ended"),
        ForeignKeyConstraint(
            ["plugin_id", "version"], ["plugin_versions.plugin_id", "plugin_versions.version"], ondelete="CASCADE"
        ),
        Index("ix_sandbox_sessions_plugin_id", "plugin_id", "version"),
        Index("ix_sandbox_sessions_newest", text("created_at DESC"), text("session_id DESC")),
        Index("ix_sandbox_sessions_live", "environment", "created_at", postgresql_where=text("ended_at IS NULL")),
        Index("ix_sandbox_sessions_ended_at", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    )


def sandbox_executions_in(metadata: MetaData) -> Table:
    return Table(
        "sandbox_executions",
        metadata,
        Column("execution_id", _NAME, primary_key=True),
        Column("session_id", _NAME, ForeignKey("sandbox_sessions.session_id", ondelete="CASCADE"), nullable=False),
        Column("status", String(50), nullable=False),
        Column("queued_at", _INSTANT, nullable=False),
        Column(
            "execution", JSONB, nullable=False, comment="hotswap.domain.sandbox.SandboxExecution but output and logs"
        ),
        Column("request", Text, comment="JSON; only until it has finished"),
        # Text, not jsonb: a plugin's result may hold what jsonb refuses (U+0000), and comes back as it was.
        Column("output", Text, comment="JSON"),
        Column("logs", Text, nullable=False, server_default=""),
        CheckConstraint("status IN ('Queued', 'Running', 'Succeeded', 'Failed', 'Lost', 'Cancelled')", name="status"),
        CheckConstraint("request IS NULL OR status IN ('Queued', 'Running')", name="request"),
        Index("ix_sandbox_executions_newest", "session_id", text("queued_at DESC"), text("execution_id DESC")),
    )
