"""The tables of freezes and pipelines, in the metadata of hotswap.adapters.postgres.tables. Migration 0003 makes them."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

_NAME = String(255, collation="C")
_ENVIRONMENT = String(100, collation="C")
_INSTANT = DateTime(timezone=True)


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def freezes_in(metadata: MetaData) -> Table:
    return Table(
        "freezes",
        metadata,
        Column("freeze_id", _NAME, primary_key=True),
        Column("kind", String(50), nullable=False),
        Column("environment", _ENVIRONMENT, ForeignKey("environments.name"), comment="null: all"),
        Column("plugin_id", _NAME, ForeignKey("plugins.plugin_id", ondelete="CASCADE"), comment="null: all"),
        Column("time_window", JSONB, nullable=False, comment="hotswap.domain.freeze.Window"),
        Column("ends_for_good", _INSTANT, comment="of a deny with an end: it can never stand again afterwards"),
        Column("reason", Text, nullable=False),
        Column("created_by", String(255), nullable=False),
        Column("created_at", _INSTANT, nullable=False),
        Column("lifted_at", _INSTANT),
        Column("lifted_by", String(255)),
        Column("lift_reason", Text, nullable=False, server_default=""),
        _one_of("kind", "deny", "allow", "stop"),
        CheckConstraint("kind <> 'stop' OR (environment IS NULL AND plugin_id IS NULL)", name="stop_is_for_everything"),
        CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted"),
        Index("ix_freezes_plugin_id", "plugin_id"),
        Index("ix_freezes_newest", text("created_at DESC"), text("freeze_id DESC")),
        Index("ix_freezes_in_force", "created_at", postgresql_where=text("lifted_at IS NULL")),
        # One switch: two people who press it at once have pressed it once.
        Index(
            "ix_freezes_one_stop",
            "kind",
            unique=True,
            postgresql_where=text("(kind)::text = 'stop'::text AND lifted_at IS NULL"),
        ),
    )


def pipelines_in(metadata: MetaData) -> Table:
    return Table(
        "pipelines",
        metadata,
        Column("pipeline_id", _NAME, primary_key=True),
        Column("plugin_id", _NAME, ForeignKey("plugins.plugin_id", ondelete="CASCADE"), nullable=False),
        Column("version", String(50, collation="C"), nullable=False),
        Column("status", String(50), nullable=False),
        Column("initiated_by", String(255), nullable=False),
        Column("created_at", _INSTANT, nullable=False, comment="when it was requested"),
        Column("finished_at", _INSTANT),
        Column("workflow_id", String(400), nullable=False),
        Column("run_id", String(255), nullable=False),
        Column("progress", JSONB, nullable=False, comment="hotswap.domain.pipeline.PipelineProgress"),
        Column(
            "sequence", BigInteger, nullable=False, server_default=text("0"), comment="of progress; an older one loses"
        ),
        _one_of(
            "status",
            "Pending",
            "InProgress",
            "AwaitingApproval",
            "Paused",
            "Completed",
            "RolledBack",
            "Rejected",
            "Aborted",
            "Failed",
        ),
        Index("ix_pipelines_newest", text("created_at DESC"), text("pipeline_id DESC")),
        Index("ix_pipelines_plugin_id", "plugin_id", text("created_at DESC"), text("pipeline_id DESC")),
        Index("ix_pipelines_status", "status", text("created_at DESC"), text("pipeline_id DESC")),
    )
