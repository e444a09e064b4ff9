"""Sandbox sessions and what their executions came to.

Revision ID: 0004
Revises: 0003
Create Date: 2026-12-01

Works with the release before it: that one has a table of the same name which nothing reads or writes; it is made anew.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TABLES = """
CREATE TABLE sandbox_sessions (
    session_id VARCHAR(255) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    version VARCHAR(50) COLLATE "C" NOT NULL,
    environment VARCHAR(100) COLLATE "C" NOT NULL,
    status VARCHAR(50) NOT NULL,
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    session JSONB NOT NULL,
    CONSTRAINT pk_sandbox_sessions PRIMARY KEY (session_id),
    CONSTRAINT ck_sandbox_sessions_status CHECK (status IN ('Active', 'Expired', 'Deleted')),
    CONSTRAINT ck_sandbox_sessions_ended CHECK ((status = 'Active') = (ended_at IS NULL)),
    CONSTRAINT fk_sandbox_sessions_environment FOREIGN KEY(environment) REFERENCES environments (name),
    CONSTRAINT fk_sandbox_sessions_plugin_id_version FOREIGN KEY(plugin_id, version)
        REFERENCES plugin_versions (plugin_id, version) ON DELETE CASCADE
);
COMMENT ON COLUMN sandbox_sessions.session IS 'hotswap.domain.sandbox.SandboxSession';
CREATE INDEX ix_sandbox_sessions_plugin_id ON sandbox_sessions (plugin_id, version);
CREATE INDEX ix_sandbox_sessions_newest ON sandbox_sessions (created_at DESC, session_id DESC);
CREATE INDEX ix_sandbox_sessions_live ON sandbox_sessions (environment, created_at) WHERE ended_at IS NULL;
CREATE INDEX ix_sandbox_sessions_ended_at ON sandbox_sessions (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE sandbox_executions (
    execution_id VARCHAR(255) COLLATE "C" NOT NULL,
    session_id VARCHAR(255) COLLATE "C" NOT NULL,
    status VARCHAR(50) NOT NULL,
    queued_at TIMESTAMP WITH TIME ZONE NOT NULL,
    execution JSONB NOT NULL,
    request TEXT,
    output TEXT,
    logs TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_sandbox_executions PRIMARY KEY (execution_id),
    CONSTRAINT ck_sandbox_executions_status CHECK (status IN ('Queued', 'Running', 'Succeeded', 'Failed', 'Lost',
        'Cancelled')),
    CONSTRAINT ck_sandbox_executions_request CHECK (request IS NULL OR status IN ('Queued', 'Running')),
    CONSTRAINT fk_sandbox_executions_session_id FOREIGN KEY(session_id) REFERENCES sandbox_sessions (session_id)
        ON DELETE CASCADE
);
COMMENT ON COLUMN sandbox_executions.execution IS 'hotswap.domain.sandbox.SandboxExecution but output and logs';
COMMENT ON COLUMN sandbox_executions.request IS 'JSON; only until it has finished';
COMMENT ON COLUMN sandbox_executions.output IS 'JSON';
CREATE INDEX ix_sandbox_executions_newest ON sandbox_executions (session_id, queued_at DESC, execution_id DESC);
"""

_BEFORE = """
CREATE TABLE sandbox_sessions (
    session_id VARCHAR(255) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    version VARCHAR(50) COLLATE "C" NOT NULL,
    environment VARCHAR(100) COLLATE "C" NOT NULL,
    status VARCHAR(50) NOT NULL,
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    results JSONB DEFAULT '[]'::jsonb NOT NULL,
    CONSTRAINT pk_sandbox_sessions PRIMARY KEY (session_id),
    CONSTRAINT ck_sandbox_sessions_status CHECK (status IN ('Active', 'Ended', 'Expired')),
    CONSTRAINT fk_sandbox_sessions_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id) ON DELETE CASCADE,
    CONSTRAINT fk_sandbox_sessions_environment FOREIGN KEY(environment) REFERENCES environments (name)
);
CREATE INDEX ix_sandbox_sessions_expires_at ON sandbox_sessions (environment, expires_at) WHERE ended_at IS NULL;
CREATE INDEX ix_sandbox_sessions_plugin_id ON sandbox_sessions (plugin_id);
"""


def upgrade() -> None:
    op.execute("DROP TABLE sandbox_sessions")
    op.execute(_TABLES)


def downgrade() -> None:
    op.execute("DROP TABLE sandbox_executions")
    op.execute("DROP TABLE sandbox_sessions")
    op.execute(_BEFORE)
