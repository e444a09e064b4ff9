"""Versions' own lifecycle, publishers' keys and signatures, presigned uploads.

Works with the release before it: new tables, and columns that are null or have a default.
"""

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None

_CHANGES = """
ALTER TABLE plugin_versions
    ADD COLUMN breaking_changes JSONB DEFAULT '[]'::jsonb NOT NULL,
    ADD COLUMN signature VARCHAR(88),
    ADD COLUMN signing_key_id VARCHAR(64),
    ADD COLUMN deprecation_reason TEXT DEFAULT '' NOT NULL,
    ADD COLUMN archived_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN artifact_removed_at TIMESTAMP WITH TIME ZONE,
    ADD CONSTRAINT ck_plugin_versions_signed CHECK ((signature IS NULL) = (signing_key_id IS NULL));
COMMENT ON COLUMN plugin_versions.breaking_changes IS 'what breaks callers of the release before, in words';
COMMENT ON COLUMN plugin_versions.signature IS 'Ed25519 over the digest, base64';
COMMENT ON COLUMN plugin_versions.artifact_removed_at IS 'by retention; the row stays';
CREATE INDEX ix_plugin_versions_archived ON plugin_versions (archived_at, plugin_id, version)
    WHERE status = 'Archived' AND artifact_removed_at IS NULL;
CREATE INDEX ix_plugin_versions_signing_key_id ON plugin_versions (signing_key_id) WHERE signing_key_id IS NOT NULL;

CREATE TABLE publisher_keys (
    key_id VARCHAR(64) COLLATE "C" NOT NULL,
    publisher VARCHAR(255) NOT NULL,
    public_key VARCHAR(44) NOT NULL,
    plugins JSONB DEFAULT '[]'::jsonb NOT NULL,
    registered_by VARCHAR(255) NOT NULL,
    registered_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_by VARCHAR(255),
    revoked_at TIMESTAMP WITH TIME ZONE,
    revoke_reason TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_publisher_keys PRIMARY KEY (key_id),
    CONSTRAINT ck_publisher_keys_key_id CHECK (key_id ~ '^[0-9a-f]{64}$'),
    CONSTRAINT ck_publisher_keys_plugins CHECK (jsonb_typeof(plugins) = 'array'),
    CONSTRAINT ck_publisher_keys_revoked CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
COMMENT ON COLUMN publisher_keys.key_id IS 'SHA-256 of the public key';
COMMENT ON COLUMN publisher_keys.public_key IS 'Ed25519, 32 bytes in base64';
COMMENT ON COLUMN publisher_keys.plugins IS 'empty: all';
CREATE INDEX ix_publisher_keys_newest ON publisher_keys (registered_at DESC, key_id DESC);

CREATE TABLE pending_uploads (
    upload_id VARCHAR(255) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    version VARCHAR(50) COLLATE "C" NOT NULL,
    digest VARCHAR(64) NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_pending_uploads PRIMARY KEY (upload_id),
    CONSTRAINT ck_pending_uploads_size_bytes CHECK (size_bytes > 0)
);
CREATE INDEX ix_pending_uploads_expires_at ON pending_uploads (expires_at, upload_id);
"""


def upgrade() -> None:
    op.execute(_CHANGES)


def downgrade() -> None:
    op.execute("DROP TABLE pending_uploads")
    op.execute("DROP TABLE publisher_keys")
    op.execute("DROP INDEX ix_plugin_versions_archived")
    op.execute("DROP INDEX ix_plugin_versions_signing_key_id")
    op.execute(
        "ALTER TABLE plugin_versions DROP CONSTRAINT ck_plugin_versions_signed, DROP COLUMN breaking_changes, "
        "DROP COLUMN signature, DROP COLUMN signing_key_id, DROP COLUMN deprecation_reason, DROP COLUMN archived_at, "
        "DROP COLUMN artifact_removed_at"
    )
