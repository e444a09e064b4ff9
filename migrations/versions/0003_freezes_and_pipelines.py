"""Freezes (when an environment must not move forward) and pipelines (a version on its way through environments).

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-23

Works with the release before it: new tables only.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TABLES = """
CREATE TABLE freezes (
    freeze_id VARCHAR(255) COLLATE "C" NOT NULL,
    kind VARCHAR(50) NOT NULL,
    environment VARCHAR(100) COLLATE "C",
    plugin_id VARCHAR(255) COLLATE "C",
    time_window JSONB NOT NULL,
    ends_for_good TIMESTAMP WITH TIME ZONE,
    reason TEXT NOT NULL,
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    lifted_at TIMESTAMP WITH TIME ZONE,
    lifted_by VARCHAR(255),
    lift_reason TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_freezes PRIMARY KEY (freeze_id),
    CONSTRAINT ck_freezes_kind CHECK (kind IN ('deny', 'allow', 'stop')),
    CONSTRAINT ck_freezes_stop_is_for_everything CHECK (kind <> 'stop' OR (environment IS NULL AND plugin_id IS NULL)),
    CONSTRAINT ck_freezes_lifted CHECK ((lifted_at IS NULL) = (lifted_by IS NULL)),
    CONSTRAINT fk_freezes_environment FOREIGN KEY(environment) REFERENCES environments (name),
    CONSTRAINT fk_freezes_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id) ON DELETE CASCADE
);
COMMENT ON COLUMN freezes.environment IS 'null: all';
COMMENT ON COLUMN freezes.plugin_id IS 'null: all';
COMMENT ON COLUMN freezes.time_window IS 'hotswap.domain.freeze.Window';
COMMENT ON COLUMN freezes.ends_for_good IS 'of a deny with an end: it can never stand again afterwards';
CREATE INDEX ix_freezes_plugin_id ON freezes (plugin_id);
CREATE INDEX ix_freezes_newest ON freezes (created_at DESC, freeze_id DESC);
CREATE INDEX ix_freezes_in_force ON freezes (created_at) WHERE lifted_at IS NULL;
CREATE UNIQUE INDEX ix_freezes_one_stop ON freezes (kind) WHERE kind = 'stop' AND lifted_at IS NULL;

CREATE TABLE pipelines (
    pipeline_id VARCHAR(255) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    version VARCHAR(50) COLLATE "C" NOT NULL,
    status VARCHAR(50) NOT NULL,
    initiated_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    workflow_id VARCHAR(400) NOT NULL,
    run_id VARCHAR(255) NOT NULL,
    progress JSONB NOT NULL,
    sequence BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_pipelines PRIMARY KEY (pipeline_id),
    CONSTRAINT ck_pipelines_status CHECK (status IN ('Pending', 'InProgress', 'AwaitingApproval', 'Paused',
        'Completed', 'RolledBack', 'Rejected', 'Aborted', 'Failed')),
    CONSTRAINT fk_pipelines_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id) ON DELETE CASCADE
);
COMMENT ON COLUMN pipelines.created_at IS 'when it was requested';
COMMENT ON COLUMN pipelines.progress IS 'hotswap.domain.pipeline.PipelineProgress';
COMMENT ON COLUMN pipelines.sequence IS 'of progress; an older one loses';
CREATE INDEX ix_pipelines_newest ON pipelines (created_at DESC, pipeline_id DESC);
CREATE INDEX ix_pipelines_plugin_id ON pipelines (plugin_id, created_at DESC, pipeline_id DESC);
CREATE INDEX ix_pipelines_status ON pipelines (status, created_at DESC, pipeline_id DESC);
"""


def upgrade() -> None:
    op.execute(_TABLES)


def downgrade() -> None:
    op.execute("DROP TABLE pipelines")
    op.execute("DROP TABLE freezes")
