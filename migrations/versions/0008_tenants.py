"""Tenants' history of changes and wrapped data keys; nodes are told of changes to tenants' rows.

Revision ID: 0008
Revises: 0006
Create Date: 2026-11-29

Works with the release before it: new tables, an index, and a notification that nobody has to listen to.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0008"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TABLES = """
CREATE TABLE tenant_changes (
    change_id VARCHAR(255) COLLATE "C" NOT NULL,
    tenant_id VARCHAR(255) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    kind VARCHAR(50) NOT NULL,
    changed_by VARCHAR(255) NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    before JSONB DEFAULT '{}'::jsonb NOT NULL,
    after JSONB DEFAULT '{}'::jsonb NOT NULL,
    trace_id VARCHAR(255) DEFAULT '' NOT NULL,
    changed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_tenant_changes PRIMARY KEY (change_id),
    CONSTRAINT fk_tenant_changes_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id) ON DELETE CASCADE
);
COMMENT ON COLUMN tenant_changes.before IS 'of a secret: when, never what';
CREATE INDEX ix_tenant_changes_newest ON tenant_changes (tenant_id, plugin_id, changed_at DESC, change_id DESC);
CREATE INDEX ix_tenant_changes_plugin_id ON tenant_changes (plugin_id);

CREATE TABLE tenant_data_keys (
    key_id VARCHAR(255) COLLATE "C" NOT NULL,
    tenant_id VARCHAR(255) COLLATE "C" NOT NULL,
    wrapped TEXT NOT NULL,
    wrapped_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    retired_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_tenant_data_keys PRIMARY KEY (key_id)
);
COMMENT ON COLUMN tenant_data_keys.wrapped IS 'by the key provider; never plain';
COMMENT ON COLUMN tenant_data_keys.wrapped_by IS 'id of the provider''s key';
CREATE INDEX ix_tenant_data_keys_tenant_id ON tenant_data_keys (tenant_id, created_at DESC, key_id DESC);

CREATE INDEX ix_tenant_plugin_configs_updated_at ON tenant_plugin_configs (updated_at);

-- Whoever writes the row: a transaction that changes many rows of a plugin is told of once.
CREATE FUNCTION tell_of_tenant_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hotswap_tenants', coalesce(NEW.plugin_id, OLD.plugin_id));
    RETURN NULL;
END
$$;
CREATE TRIGGER tenant_plugin_configs_told AFTER INSERT OR UPDATE OR DELETE ON tenant_plugin_configs
    FOR EACH ROW EXECUTE FUNCTION tell_of_tenant_change();
"""


def upgrade() -> None:
    op.execute(_TABLES)


def downgrade() -> None:
    op.execute("DROP TRIGGER tenant_plugin_configs_told ON tenant_plugin_configs")
    op.execute("DROP FUNCTION tell_of_tenant_change()")
    op.execute("DROP INDEX ix_tenant_plugin_configs_updated_at")
    op.execute("DROP TABLE tenant_data_keys")
    op.execute("DROP TABLE tenant_changes")
