"""The tables of the time after a rollout, for hotswap.adapters.postgres.tables; migration 0002 makes them."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

_NAME = String(255, collation="C")
_VERSION = String(50, collation="C")
_ENVIRONMENT = String(100, collation="C")
_INSTANT = DateTime(timezone=True)


def held_versions_in(metadata: MetaData) -> Table:
    return Table(
        "held_versions",
        metadata,
        Column("environment", _ENVIRONMENT, ForeignKey("environments.name"), primary_key=True),
        Column("plugin_id", _NAME, primary_key=True),
        Column("version", _VERSION, primary_key=True),
        # No foreign key: the hold outlives what is kept of the deployment.
        Column("deployment_id", _NAME, nullable=False, comment="the deployment that was taken back"),
        Column("reason", Text, nullable=False),
        Column("held_by", String(255), nullable=False),
        Column("held_at", _INSTANT, nullable=False),
        ForeignKeyConstraint(
            ["plugin_id", "version"], ["plugin_versions.plugin_id", "plugin_versions.version"], ondelete="CASCADE"
        ),
        Index("ix_held_versions_plugin_id", "plugin_id", "version"),
    )


def drift_reports_in(metadata: MetaData) -> Table:
    return Table(
        "drift_reports",
        metadata,
        Column("environment", _ENVIRONMENT, ForeignKey("environments.name"), primary_key=True),
        Column("taken_at", _INSTANT, nullable=False),
        Column("total", Integer, nullable=False),
        Column("report", JSONB, nullable=False, comment="hotswap.domain.drift.DriftReport"),
        CheckConstraint("total >= 0", name="total"),
    )
