"""The first schema: the seed guide's tables, and what the design adds to them.

Added: environments (seeded), nodes, routes (append-only, one row a generation), deployment_events, approvals,
idempotency_keys, and the least of users and sandbox_sessions. Plain SQL, frozen: hotswap.adapters.postgres.tables may
move on, this must not. Needs PostgreSQL 15 or newer and no extension.
"""

from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_TABLES = """
CREATE TABLE environments (
    name VARCHAR(100) COLLATE "C" NOT NULL,
    rank INTEGER NOT NULL,
    default_strategy VARCHAR(100) NOT NULL,
    required_approvals INTEGER NOT NULL,
    require_admin_approval BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT pk_environments PRIMARY KEY (name),
    CONSTRAINT ck_environments_default_strategy CHECK (default_strategy IN ('Direct', 'Rolling', 'Canary', 'BlueGreen', 'ABTesting')),
    CONSTRAINT ck_environments_required_approvals CHECK (required_approvals >= 0),
    CONSTRAINT uq_environments_rank UNIQUE (rank)
);

CREATE TABLE plugins (
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    name VARCHAR(255) COLLATE "C" NOT NULL,
    display_name VARCHAR(255) NOT NULL,
    description TEXT DEFAULT '' NOT NULL,
    type VARCHAR(100) NOT NULL,
    current_version VARCHAR(50) COLLATE "C",
    status VARCHAR(50) DEFAULT 'Draft' NOT NULL,
    author VARCHAR(255) DEFAULT '' NOT NULL,
    documentation_url TEXT DEFAULT '' NOT NULL,
    tags JSONB DEFAULT '[]'::jsonb NOT NULL,
    search_text TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    deprecated_at TIMESTAMP WITH TIME ZONE,
    deprecation_reason TEXT,
    CONSTRAINT pk_plugins PRIMARY KEY (plugin_id),
    CONSTRAINT ck_plugins_status CHECK (status IN ('Draft', 'Active', 'Deprecated', 'Archived')),
    CONSTRAINT ck_plugins_id_is_name CHECK (plugin_id = name),
    CONSTRAINT ck_plugins_tags CHECK (jsonb_typeof(tags) = 'array'),
    CONSTRAINT uq_plugins_name UNIQUE (name)
);
CREATE INDEX ix_plugins_status ON plugins (status, name);
CREATE INDEX ix_plugins_tags ON plugins USING gin (tags jsonb_path_ops);
CREATE INDEX ix_plugins_type ON plugins (type, name);
COMMENT ON COLUMN plugins.search_text IS 'name, display name and description, case-folded';

CREATE TABLE plugin_versions (
    version_id VARCHAR(255) NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    version VARCHAR(50) COLLATE "C" NOT NULL,
    precedence VARCHAR(255) COLLATE "C" NOT NULL,
    release_notes TEXT DEFAULT '' NOT NULL,
    manifest JSONB NOT NULL,
    binary_path TEXT NOT NULL,
    checksum VARCHAR(255) NOT NULL,
    binary_size BIGINT NOT NULL,
    status VARCHAR(50) DEFAULT 'Draft' NOT NULL,
    is_breaking_change BOOLEAN DEFAULT false NOT NULL,
    approved_by VARCHAR(255),
    approved_at TIMESTAMP WITH TIME ZONE,
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    deprecated_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_plugin_versions PRIMARY KEY (version_id),
    CONSTRAINT uq_plugin_versions_plugin_id_version UNIQUE (plugin_id, version),
    CONSTRAINT ck_plugin_versions_status CHECK (status IN ('Draft', 'PendingApproval', 'Approved', 'Deprecated', 'Archived')),
    CONSTRAINT ck_plugin_versions_checksum CHECK (checksum ~ '^[0-9a-f]{64}$'),
    CONSTRAINT ck_plugin_versions_binary_size CHECK (binary_size > 0),
    CONSTRAINT fk_plugin_versions_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id) ON DELETE CASCADE
);
CREATE INDEX ix_plugin_versions_order ON plugin_versions (plugin_id, precedence DESC, version DESC);
CREATE INDEX ix_plugin_versions_status ON plugin_versions (status);
COMMENT ON COLUMN plugin_versions.precedence IS 'sorts as SemVer does';
COMMENT ON COLUMN plugin_versions.binary_path IS 'key in the object store';
COMMENT ON COLUMN plugin_versions.checksum IS 'SHA-256, lower-case hex';
COMMENT ON COLUMN plugin_versions.binary_size IS 'bytes';

CREATE TABLE plugin_deployments (
    deployment_id VARCHAR(255) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    version VARCHAR(50) COLLATE "C" NOT NULL,
    environment VARCHAR(100) COLLATE "C" NOT NULL,
    strategy VARCHAR(100) NOT NULL,
    config JSONB DEFAULT '{}'::jsonb NOT NULL,
    status VARCHAR(50) DEFAULT 'Pending' NOT NULL,
    progress_percentage INTEGER DEFAULT 0 NOT NULL,
    initiated_by VARCHAR(255) NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    completed_at TIMESTAMP WITH TIME ZONE,
    previous_version VARCHAR(50) COLLATE "C",
    rolled_back_at TIMESTAMP WITH TIME ZONE,
    rollback_reason TEXT,
    error_message TEXT,
    affected_tenants INTEGER DEFAULT 0 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    workflow_id VARCHAR(255) NOT NULL,
    run_id VARCHAR(255) NOT NULL,
    progress JSONB NOT NULL,
    sequence BIGINT DEFAULT 0 NOT NULL,
    digest VARCHAR(64) DEFAULT '' NOT NULL,
    plan_hash VARCHAR(64) DEFAULT '' NOT NULL,
    CONSTRAINT pk_plugin_deployments PRIMARY KEY (deployment_id),
    CONSTRAINT ck_plugin_deployments_status CHECK (status IN ('Pending', 'AwaitingApproval', 'InProgress', 'Paused', 'RollingBack', 'Completed', 'RolledBack', 'Aborted', 'Rejected', 'Superseded', 'Failed')),
    CONSTRAINT ck_plugin_deployments_strategy CHECK (strategy IN ('Direct', 'Rolling', 'Canary', 'BlueGreen', 'ABTesting')),
    CONSTRAINT ck_plugin_deployments_progress_percentage CHECK (progress_percentage BETWEEN 0 AND 100),
    CONSTRAINT fk_plugin_deployments_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id),
    CONSTRAINT fk_plugin_deployments_environment FOREIGN KEY(environment) REFERENCES environments (name)
);
CREATE INDEX ix_plugin_deployments_environment ON plugin_deployments (environment, created_at DESC, deployment_id DESC);
CREATE INDEX ix_plugin_deployments_newest ON plugin_deployments (created_at DESC, deployment_id DESC);
CREATE INDEX ix_plugin_deployments_plugin_id ON plugin_deployments (plugin_id, created_at DESC, deployment_id DESC);
CREATE INDEX ix_plugin_deployments_status ON plugin_deployments (status, created_at DESC, deployment_id DESC);
COMMENT ON COLUMN plugin_deployments.created_at IS 'when it was requested';
COMMENT ON COLUMN plugin_deployments.progress IS 'hotswap.domain.deployment.DeploymentProgress';
COMMENT ON COLUMN plugin_deployments.sequence IS 'of progress; an older one loses';

CREATE TABLE deployment_events (
    deployment_id VARCHAR(255) COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    kind VARCHAR(100) NOT NULL,
    message TEXT NOT NULL,
    data JSONB DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT pk_deployment_events PRIMARY KEY (deployment_id, sequence),
    CONSTRAINT ck_deployment_events_sequence CHECK (sequence >= 1),
    CONSTRAINT fk_deployment_events_deployment_id FOREIGN KEY(deployment_id) REFERENCES plugin_deployments (deployment_id) ON DELETE CASCADE
);

CREATE TABLE routes (
    environment VARCHAR(100) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    state JSONB NOT NULL,
    stable_version VARCHAR(50) COLLATE "C",
    candidate_version VARCHAR(50) COLLATE "C",
    candidate_weight INTEGER NOT NULL,
    deployment_id VARCHAR(255) COLLATE "C" NOT NULL,
    written_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_routes PRIMARY KEY (environment, plugin_id, generation),
    CONSTRAINT fk_routes_plugin_id_stable_version FOREIGN KEY(plugin_id, stable_version) REFERENCES plugin_versions (plugin_id, version),
    CONSTRAINT fk_routes_plugin_id_candidate_version FOREIGN KEY(plugin_id, candidate_version) REFERENCES plugin_versions (plugin_id, version),
    CONSTRAINT ck_routes_generation CHECK (generation >= 1),
    CONSTRAINT ck_routes_candidate_weight CHECK (candidate_weight BETWEEN 0 AND 10000),
    CONSTRAINT ck_routes_weight_needs_candidate CHECK (candidate_version IS NOT NULL OR candidate_weight = 0),
    CONSTRAINT fk_routes_environment FOREIGN KEY(environment) REFERENCES environments (name),
    CONSTRAINT fk_routes_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id)
);
CREATE INDEX ix_routes_deployment_id ON routes (deployment_id);
CREATE INDEX ix_routes_plugin_id ON routes (plugin_id);
COMMENT ON COLUMN routes.state IS 'hotswap.domain.routes.RouteState';
COMMENT ON COLUMN routes.candidate_weight IS 'basis points of tenants';

CREATE TABLE nodes (
    node_id VARCHAR(255) COLLATE "C" NOT NULL,
    environment VARCHAR(100) COLLATE "C" NOT NULL,
    boot_id VARCHAR(255) NOT NULL,
    router_url TEXT NOT NULL,
    admin_url TEXT NOT NULL,
    sandbox_tier VARCHAR(50) NOT NULL,
    registered_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    last_seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_nodes PRIMARY KEY (node_id),
    CONSTRAINT fk_nodes_environment FOREIGN KEY(environment) REFERENCES environments (name)
) WITH (fillfactor = 50);
CREATE INDEX ix_nodes_environment ON nodes (environment, node_id);

CREATE TABLE approvals (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY,
    deployment_id VARCHAR(255) COLLATE "C" NOT NULL,
    approver VARCHAR(255) NOT NULL,
    roles JSONB NOT NULL,
    decision VARCHAR(50) NOT NULL,
    comment TEXT DEFAULT '' NOT NULL,
    digest VARCHAR(64) NOT NULL,
    plan_hash VARCHAR(64) NOT NULL,
    decided_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_approvals PRIMARY KEY (id),
    CONSTRAINT uq_approvals_deployment_id_approver_plan_hash UNIQUE (deployment_id, approver, plan_hash),
    CONSTRAINT ck_approvals_decision CHECK (decision IN ('Approved', 'Rejected')),
    CONSTRAINT fk_approvals_deployment_id FOREIGN KEY(deployment_id) REFERENCES plugin_deployments (deployment_id) ON DELETE CASCADE
);

CREATE TABLE tenant_plugin_configs (
    config_id VARCHAR(255) NOT NULL,
    tenant_id VARCHAR(255) COLLATE "C" NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    enabled BOOLEAN DEFAULT true NOT NULL,
    pinned_version VARCHAR(50) COLLATE "C",
    configuration JSONB,
    secrets JSONB,
    quotas JSONB,
    enabled_by VARCHAR(255) NOT NULL,
    enabled_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_tenant_plugin_configs PRIMARY KEY (config_id),
    CONSTRAINT uq_tenant_plugin_configs_tenant_id_plugin_id UNIQUE (tenant_id, plugin_id),
    CONSTRAINT fk_tenant_plugin_configs_plugin_id_pinned_version FOREIGN KEY(plugin_id, pinned_version) REFERENCES plugin_versions (plugin_id, version),
    CONSTRAINT fk_tenant_plugin_configs_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id) ON DELETE CASCADE
);
CREATE INDEX ix_tenant_plugin_configs_pins ON tenant_plugin_configs (plugin_id, tenant_id) WHERE pinned_version IS NOT NULL;
CREATE INDEX ix_tenant_plugin_configs_plugin_id ON tenant_plugin_configs (plugin_id);
COMMENT ON COLUMN tenant_plugin_configs.secrets IS 'ciphertexts with the id of their key; never plain text';

CREATE TABLE plugin_health_checks (
    health_check_id VARCHAR(255) NOT NULL,
    plugin_id VARCHAR(255) COLLATE "C" NOT NULL,
    version VARCHAR(50) COLLATE "C" NOT NULL,
    environment VARCHAR(100) COLLATE "C" NOT NULL,
    type VARCHAR(50) NOT NULL,
    status VARCHAR(50) NOT NULL,
    checked_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    duration_ms BIGINT NOT NULL,
    error_message TEXT,
    metrics JSONB,
    CONSTRAINT pk_plugin_health_checks PRIMARY KEY (health_check_id),
    CONSTRAINT ck_plugin_health_checks_type CHECK (type IN ('Startup', 'Liveness', 'Readiness', 'Performance')),
    CONSTRAINT ck_plugin_health_checks_status CHECK (status IN ('Healthy', 'Degraded', 'Unhealthy', 'Unknown')),
    CONSTRAINT fk_plugin_health_checks_plugin_id FOREIGN KEY(plugin_id) REFERENCES plugins (plugin_id) ON DELETE CASCADE,
    CONSTRAINT fk_plugin_health_checks_environment FOREIGN KEY(environment) REFERENCES environments (name)
);
CREATE INDEX ix_plugin_health_checks_checked_at ON plugin_health_checks (checked_at DESC);
CREATE INDEX ix_plugin_health_checks_plugin_id ON plugin_health_checks (plugin_id, environment, checked_at DESC);

CREATE TABLE audit_logs (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY,
    event_type VARCHAR(100) NOT NULL,
    entity_type VARCHAR(100) NOT NULL,
    entity_id VARCHAR(255) NOT NULL,
    user_id VARCHAR(255) NOT NULL,
    details JSONB DEFAULT '{}'::jsonb NOT NULL,
    trace_id VARCHAR(255) DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_audit_logs PRIMARY KEY (id)
);
CREATE INDEX ix_audit_logs_created_at ON audit_logs (created_at DESC, id DESC);
CREATE INDEX ix_audit_logs_entity ON audit_logs (entity_type, entity_id);
CREATE INDEX ix_audit_logs_entity_id ON audit_logs (entity_id, created_at DESC, id DESC);
CREATE INDEX ix_audit_logs_user_id ON audit_logs (user_id, created_at DESC, id DESC);

CREATE TABLE idempotency_keys (
    user_id VARCHAR(255) NOT NULL,
    operation VARCHAR(100) NOT NULL,
    key VARCHAR(255) NOT NULL,
    request_hash VARCHAR(64) NOT NULL,
    status_code INTEGER NOT NULL,
    body JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (user_id, operation, key),
    CONSTRAINT ck_idempotency_keys_status_code CHECK (status_code BETWEEN 100 AND 599)
);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);

CREATE TABLE users (
    user_id VARCHAR(255) COLLATE "C" NOT NULL,
    display_name VARCHAR(255) DEFAULT '' NOT NULL,
    roles JSONB DEFAULT '[]'::jsonb NOT NULL,
    password_hash BYTEA,
    disabled_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_users PRIMARY KEY (user_id),
    CONSTRAINT ck_users_roles CHECK (jsonb_typeof(roles) = 'array')
);

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

_ENVIRONMENTS = """
INSERT INTO environments (name, rank, default_strategy, required_approvals, require_admin_approval) VALUES
    ('Development', 0, 'Direct', 0, false),
    ('QA', 1, 'Rolling', 1, false),
    ('Staging', 2, 'Rolling', 1, false),
    ('Production', 3, 'Canary', 2, true);
"""

# A record that could be changed afterwards would prove nothing, so the server itself refuses.
_APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'restrict_violation',
        MESSAGE = TG_TABLE_NAME || ' is append-only: ' || TG_OP || ' is refused',
        HINT = 'Write a new row instead.';
END
$$;
CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE ON audit_logs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_logs_no_truncate BEFORE TRUNCATE ON audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER routes_never_rewritten BEFORE UPDATE ON routes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

_NEWEST_FIRST = (
    "sandbox_sessions",
    "users",
    "idempotency_keys",
    "audit_logs",
    "plugin_health_checks",
    "tenant_plugin_configs",
    "approvals",
    "nodes",
    "routes",
    "deployment_events",
    "plugin_deployments",
    "plugin_versions",
    "plugins",
    "environments",
)


def upgrade() -> None:
    op.execute(_TABLES)
    op.execute(_ENVIRONMENTS)
    op.execute(_APPEND_ONLY)


def downgrade() -> None:
    for table in _NEWEST_FIRST:
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION refuse_change()")
