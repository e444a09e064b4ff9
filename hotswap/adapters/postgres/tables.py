"""The schema as SQLAlchemy sees it; migrations/versions makes it, and a test holds the two together.

Names and columns follow the seed guide's 001_initial_schema.sql; what the design adds says so. Instants are timestamptz.
Identifiers that lists are ordered by collate "C", so that every server, whatever its locale, gives the same order.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from hotswap.adapters.postgres.account_tables import (
    login_sessions_in,
    service_tokens_in,
    signing_keys_in,
    tenant_tokens_in,
    users_in,
)
from hotswap.adapters.postgres.promotion_tables import freezes_in, pipelines_in
from hotswap.adapters.postgres.sandbox_tables import sandbox_executions_in, sandbox_sessions_in
from hotswap.adapters.postgres.tables_aftercare import drift_reports_in, held_versions_in
from hotswap.adapters.postgres.tables_versions import pending_uploads_in, publisher_keys_in
from hotswap.adapters.postgres.tenant_tables import tenant_changes_in, tenant_data_keys_in
from hotswap.adapters.postgres.trail_tables import (
    audit_chain_in,
    audit_checkpoints_in,
    notices_in,
    notification_deliveries_in,
    notification_rules_in,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_NAME = String(255, collation="C")
_VERSION = String(50, collation="C")
_ENVIRONMENT = String(100, collation="C")
_INSTANT = DateTime(timezone=True)
_NOW = func.now()


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


environments = Table(
    "environments",
    metadata,
    Column("name", _ENVIRONMENT, primary_key=True),
    Column("rank", Integer, nullable=False, unique=True),
    Column("default_strategy", String(100), nullable=False),
    Column("required_approvals", Integer, nullable=False),
    Column("require_admin_approval", Boolean, nullable=False, server_default=text("false")),
    _one_of("default_strategy", "Direct", "Rolling", "Canary", "BlueGreen", "ABTesting"),
    CheckConstraint("required_approvals >= 0", name="required_approvals"),
)

plugins = Table(
    "plugins",
    metadata,
    Column("plugin_id", _NAME, primary_key=True),
    Column("name", _NAME, nullable=False, unique=True),
    Column("display_name", String(255), nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("type", String(100), nullable=False),
    Column("current_version", _VERSION),
    Column("status", String(50), nullable=False, server_default="Draft"),
    Column("author", String(255), nullable=False, server_default=""),
    Column("documentation_url", Text, nullable=False, server_default=""),
    Column("tags", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("search_text", Text, nullable=False, comment="name, display name and description, case-folded"),
    Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("updated_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("deprecated_at", _INSTANT),
    Column("deprecation_reason", Text),
    _one_of("status", "Draft", "Active", "Deprecated", "Archived"),
    CheckConstraint("plugin_id = name", name="id_is_name"),
    CheckConstraint("jsonb_typeof(tags) = 'array'", name="tags"),
    Index("ix_plugins_status", "status", "name"),
    Index("ix_plugins_type", "type", "name"),
    Index("ix_plugins_tags", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
)

plugin_versions = Table(
    "plugin_versions",
    metadata,
    Column("version_id", String(255), primary_key=True),
    Column("plugin_id", _NAME, ForeignKey("plugins.plugin_id", ondelete="CASCADE"), nullable=False),
    Column("version", _VERSION, nullable=False),
    Column("precedence", String(255, collation="C"), nullable=False, comment="sorts as SemVer does"),
    Column("release_notes", Text, nullable=False, server_default=""),
    Column("manifest", JSONB, nullable=False),
    Column("binary_path", Text, nullable=False, comment="key in the object store"),
    Column("checksum", String(255), nullable=False, comment="SHA-256, lower-case hex"),
    Column("binary_size", BigInteger, nullable=False, comment="bytes"),
    Column("status", String(50), nullable=False, server_default="Draft"),
    Column("is_breaking_change", Boolean, nullable=False, server_default=text("false")),
    Column("approved_by", String(255)),
    Column("approved_at", _INSTANT),
    Column("created_by", String(255), nullable=False),
    Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("deprecated_at", _INSTANT),
    Column(
        "breaking_changes",
        JSONB,
        nullable=False,
        server_default=text("'[]'::jsonb"),
        comment="what breaks callers of the release before, in words",
    ),
    Column("signature", String(88), comment="Ed25519 over the digest, base64"),
    Column("signing_key_id", String(64)),
    Column("deprecation_reason", Text, nullable=False, server_default=""),
    Column("archived_at", _INSTANT),
    Column("artifact_removed_at", _INSTANT, comment="by retention; the row stays"),
    UniqueConstraint("plugin_id", "version"),
    _one_of("status", "Draft", "PendingApproval", "Approved", "Deprecated", "Archived"),
    CheckConstraint("checksum ~ '^[0-9a-f]{64}$'", name="checksum"),
    CheckConstraint("binary_size > 0", name="binary_size"),
    Index("ix_plugin_versions_order", "plugin_id", text("precedence DESC"), text("version DESC")),
    CheckConstraint("(signature IS NULL) = (signing_key_id IS NULL)", name="signed"),
    Index("ix_plugin_versions_status", "status"),
    Index(
        "ix_plugin_versions_signing_key_id",
        "signing_key_id",
        postgresql_where=text("signing_key_id IS NOT NULL"),
    ),
    Index(
        "ix_plugin_versions_archived",
        "archived_at",
        "plugin_id",
        "version",
        postgresql_where=text("status = 'Archived' AND artifact_removed_at IS NULL"),
    ),
)

plugin_deployments = Table(
    "plugin_deployments",
    metadata,
    Column("deployment_id", _NAME, primary_key=True),
    Column("plugin_id", _NAME, ForeignKey("plugins.plugin_id"), nullable=False),
    # No foreign key on the version: this is the record of what was asked for, also when it was refused.
    Column("version", _VERSION, nullable=False),
    Column("environment", _ENVIRONMENT, ForeignKey("environments.name"), nullable=False),
    Column("strategy", String(100), nullable=False),
    Column("config", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("status", String(50), nullable=False, server_default="Pending"),
    Column("progress_percentage", Integer, nullable=False, server_default=text("0")),
    Column("initiated_by", String(255), nullable=False),
    Column("started_at", _INSTANT),
    Column("completed_at", _INSTANT),
    Column("previous_version", _VERSION),
    Column("rolled_back_at", _INSTANT),
    Column("rollback_reason", Text),
    Column("error_message", Text),
    Column("affected_tenants", Integer, nullable=False, server_default=text("0")),
    Column("created_at", _INSTANT, nullable=False, server_default=_NOW, comment="when it was requested"),
    # Added by the design: the workflow's handle and its projection.
    Column("workflow_id", String(255), nullable=False),
    Column("run_id", String(255), nullable=False),
    Column("progress", JSONB, nullable=False, comment="hotswap.domain.deployment.DeploymentProgress"),
    Column("sequence", BigInteger, nullable=False, server_default=text("0"), comment="of progress; an older one loses"),
    Column("digest", String(64), nullable=False, server_default=""),
    Column("plan_hash", String(64), nullable=False, server_default=""),
    _one_of(
        "status",
        "Pending",
        "AwaitingApproval",
        "InProgress",
        "Paused",
        "RollingBack",
        "Completed",
        "RolledBack",
        "Aborted",
        "Rejected",
        "Superseded",
        "Failed",
    ),
    _one_of("strategy", "Direct", "Rolling", "Canary", "BlueGreen", "ABTesting"),
    CheckConstraint("progress_percentage BETWEEN 0 AND 100", name="progress_percentage"),
    Index("ix_plugin_deployments_newest", text("created_at DESC"), text("deployment_id DESC")),
    Index("ix_plugin_deployments_plugin_id", "plugin_id", text("created_at DESC"), text("deployment_id DESC")),
    Index("ix_plugin_deployments_environment", "environment", text("created_at DESC"), text("deployment_id DESC")),
    Index("ix_plugin_deployments_status", "status", text("created_at DESC"), text("deployment_id DESC")),
)

deployment_events = Table(
    "deployment_events",
    metadata,
    Column(
        "deployment_id",
        _NAME,
        ForeignKey("plugin_deployments.deployment_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", _INSTANT, nullable=False),
    Column("kind", String(100), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    CheckConstraint("sequence >= 1", name="sequence"),
)

routes = Table(
    "routes",
    metadata,
    Column("environment", _ENVIRONMENT, ForeignKey("environments.name"), primary_key=True),
    Column("plugin_id", _NAME, ForeignKey("plugins.plugin_id"), primary_key=True),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("state", JSONB, nullable=False, comment="hotswap.domain.routes.RouteState"),
    Column("stable_version", _VERSION),
    Column("candidate_version", _VERSION),
    Column("candidate_weight", Integer, nullable=False, comment="basis points of tenants"),
    # No foreign key: an operator's repair writes a route without a deployment.
    Column("deployment_id", _NAME, nullable=False),
    Column("written_at", _INSTANT, nullable=False, server_default=func.clock_timestamp()),
    ForeignKeyConstraint(["plugin_id", "stable_version"], ["plugin_versions.plugin_id", "plugin_versions.version"]),
    ForeignKeyConstraint(["plugin_id", "candidate_version"], ["plugin_versions.plugin_id", "plugin_versions.version"]),
    CheckConstraint("generation >= 1", name="generation"),
    CheckConstraint("candidate_weight BETWEEN 0 AND 10000", name="candidate_weight"),
    CheckConstraint("candidate_version IS NOT NULL OR candidate_weight = 0", name="weight_needs_candidate"),
    Index("ix_routes_plugin_id", "plugin_id"),
    Index("ix_routes_deployment_id", "deployment_id"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", _NAME, primary_key=True),
    Column("environment", _ENVIRONMENT, ForeignKey("environments.name"), nullable=False),
    Column("boot_id", String(255), nullable=False),
    Column("router_url", Text, nullable=False),
    Column("admin_url", Text, nullable=False),
    Column("sandbox_tier", String(50), nullable=False),
    Column("registered_at", _INSTANT, nullable=False, server_default=_NOW),
    # Not indexed: every node writes it every second, and an index would make each of those writes touch it.
    Column("last_seen_at", _INSTANT, nullable=False),
    Index("ix_nodes_environment", "environment", "node_id"),
    # Room on each page for the next beat, so that beats stay heap-only.
    postgresql_with={"fillfactor": 50},
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column(
        "deployment_id",
        _NAME,
        ForeignKey("plugin_deployments.deployment_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("approver", String(255), nullable=False),
    Column("roles", JSONB, nullable=False),
    Column("decision", String(50), nullable=False),
    Column("comment", Text, nullable=False, server_default=""),
    Column("digest", String(64), nullable=False),
    Column("plan_hash", String(64), nullable=False),
    Column("decided_at", _INSTANT, nullable=False),
    UniqueConstraint("deployment_id", "approver", "plan_hash"),
    _one_of("decision", "Approved", "Rejected"),
)

tenant_plugin_configs = Table(
    "tenant_plugin_configs",
    metadata,
    Column("config_id", String(255), primary_key=True),
    Column("tenant_id", _NAME, nullable=False),
    Column("plugin_id", _NAME, ForeignKey("plugins.plugin_id", ondelete="CASCADE"), nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("pinned_version", _VERSION),
    Column("configuration", JSONB),
    Column("secrets", JSONB, comment="ciphertexts with the id of their key; never plain text"),
    Column("quotas", JSONB),
    Column("enabled_by", String(255), nullable=False),
    Column("enabled_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("updated_at", _INSTANT, nullable=False, server_default=_NOW),
    UniqueConstraint("tenant_id", "plugin_id"),
    ForeignKeyConstraint(["plugin_id", "pinned_version"], ["plugin_versions.plugin_id", "plugin_versions.version"]),
    Index("ix_tenant_plugin_configs_plugin_id", "plugin_id"),
    Index("ix_tenant_plugin_configs_updated_at", "updated_at"),
    Index(
        "ix_tenant_plugin_configs_pins",
        "plugin_id",
        "tenant_id",
        postgresql_where=text("pinned_version IS NOT NULL"),
    ),
)

plugin_health_checks = Table(
    "plugin_health_checks",
    metadata,
    Column("health_check_id", String(255), primary_key=True),
    Column("plugin_id", _NAME, ForeignKey("plugins.plugin_id", ondelete="CASCADE"), nullable=False),
    Column("version", _VERSION, nullable=False),
    Column("environment", _ENVIRONMENT, ForeignKey("environments.name"), nullable=False),
    Column("type", String(50), nullable=False),
    Column("status", String(50), nullable=False),
    Column("checked_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("duration_ms", BigInteger, nullable=False),
    Column("error_message", Text),
    Column("metrics", JSONB),
    _one_of("type", "Startup", "Liveness", "Readiness", "Performance"),
    _one_of("status", "Healthy", "Degraded", "Unhealthy", "Unknown"),
    Index("ix_plugin_health_checks_plugin_id", "plugin_id", "environment", text("checked_at DESC")),
    Index("ix_plugin_health_checks_checked_at", text("checked_at DESC")),
)

audit_logs = Table(
    "audit_logs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("event_type", String(100), nullable=False),
    Column("entity_type", String(100), nullable=False),
    Column("entity_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("trace_id", String(255), nullable=False, server_default=""),
    Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
    Column("address", String(255), nullable=False, server_default=""),
    Index("ix_audit_logs_created_at", text("created_at DESC"), text("id DESC")),
    Index("ix_audit_logs_entity", "entity_type", "entity_id"),
    Index("ix_audit_logs_entity_id", "entity_id", text("created_at DESC"), text("id DESC")),
    Index("ix_audit_logs_user_id", "user_id", text("created_at DESC"), text("id DESC")),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", String(255), primary_key=True),
    Column("operation", String(100), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("status_code", Integer, nullable=False),
    Column("body", JSONB, nullable=False),
    Column("created_at", _INSTANT, nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("status_code BETWEEN 100 AND 599", name="status_code"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

held_versions = held_versions_in(metadata)
drift_reports = drift_reports_in(metadata)
freezes = freezes_in(metadata)
pipelines = pipelines_in(metadata)
sandbox_sessions = sandbox_sessions_in(metadata)
sandbox_executions = sandbox_executions_in(metadata)
users = users_in(metadata)
login_sessions = login_sessions_in(metadata)
service_tokens = service_tokens_in(metadata)
tenant_tokens = tenant_tokens_in(metadata)
signing_keys = signing_keys_in(metadata)
publisher_keys = publisher_keys_in(metadata)
pending_uploads = pending_uploads_in(metadata)
tenant_changes = tenant_changes_in(metadata)
tenant_data_keys = tenant_data_keys_in(metadata)
audit_chain = audit_chain_in(metadata)
audit_checkpoints = audit_checkpoints_in(metadata)
notices = notices_in(metadata)
notification_rules = notification_rules_in(metadata)
notification_deliveries = notification_deliveries_in(metadata)
