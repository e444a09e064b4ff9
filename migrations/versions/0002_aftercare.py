"""Versions held after they were taken back, and the last drift report of each environment.

Works with the release before it: new tables only.
"""

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_TABLES = """
CREATE TABLE held_versions (
    environment VARCHAR(100) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    version VARCHAR(50) COLLATE "C" NOT NULL,
    deployment_id VARCHAR(255) COLLATE "C" NOT NULL,
    reason TEXT NOT NULL,
    held_by VARCHAR(255) NOT NULL,
    held_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_held_versions PRIMARY KEY (environment, plugin_id, version),
    CONSTRAINT fk_held_versions_environment FOREIGN KEY(environment) REFERENCES environments (name),
    CONSTRAINT fk_held_versions_plugin_id_version FOREIGN KEY(plugin_id, version)
        REFERENCES plugin_versions (plugin_id, version) ON DELETE CASCADE
);
COMMENT ON COLUMN held_versions.deployment_id IS 'the deployment that was taken back';
CREATE INDEX ix_held_versions_plugin_id ON held_versions (plugin_id, version);

CREATE TABLE drift_reports (
    environment VARCHAR(100) COLLATE "C" NOT NULL,
    taken_at TIMESTAMP WITH TIME ZONE NOT NULL,
    total INTEGER NOT NULL,
    report JSONB NOT NULL,
    CONSTRAINT pk_drift_reports PRIMARY KEY (environment),
    CONSTRAINT ck_drift_reports_total CHECK (total >= 0),
    CONSTRAINT fk_drift_reports_environment FOREIGN KEY(environment) REFERENCES environments (name)
);
COMMENT ON COLUMN drift_reports.report IS 'hotswap.domain.drift.DriftReport';
"""


def upgrade() -> None:
    op.execute(_TABLES)


def downgrade() -> None:
    op.execute("DROP TABLE drift_reports")
    op.execute("DROP TABLE held_versions")
