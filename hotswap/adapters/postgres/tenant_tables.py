"""The tables of tenants' history and data keys, in the metadata of hotswap.adapters.postgres.tables.

Migration 0008 makes them. What a tenant has for a plugin is tenant_plugin_configs, of the first migration.
"""

from sqlalchemy import Column, DateTime, ForeignKey, Index, MetaData, String, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

_NAME = String(255, collation="C")
_INSTANT = DateTime(timezone=True)
_EMPTY = text("'{}'::jsonb")


def tenant_changes_in(metadata: MetaData) -> Table:
    return Table(
        "tenant_changes",
        metadata,
        Column("change_id", _NAME, primary_key=True),
        Column("tenant_id", _NAME, nullable=False),
        Column("plugin_id", _NAME, ForeignKey("plugins.plugin_id", ondelete="CASCADE"), nullable=False),
        Column("kind", String(50), nullable=False),
        Column("changed_by", String(255), nullable=False),
        Column("reason", Text, nullable=False, server_default=""),
        Column("before", JSONB, nullable=False, server_default=_EMPTY, comment="of a secret: when, never what"),
        Column("after", JSONB, nullable=False, server_default=_EMPTY),
        Column("trace_id", String(255), nullable=False, server_default=""),
        Column("changed_at", _INSTANT, nullable=False),
        Index("ix_tenant_changes_newest", "tenant_id", "plugin_id", text("changed_at DESC"), text("change_id DESC")),
        Index("ix_tenant_changes_plugin_id", "plugin_id"),
    )


def tenant_data_keys_in(metadata: MetaData) -> Table:
    return Table(
        "tenant_data_keys",
        metadata,
        Column("key_id", _NAME, primary_key=True),
        Column("tenant_id", _NAME, nullable=False),
        Column("wrapped", Text, nullable=False, comment="by the key provider; never plain"),
        Column("wrapped_by", String(255), nullable=False, comment="id of the provider's key"),
        Column("created_at", _INSTANT, nullable=False),
        Column("retired_at", _INSTANT),
        Index("ix_tenant_data_keys_tenant_id", "tenant_id", text("created_at DESC"), text("key_id DESC")),
    )
