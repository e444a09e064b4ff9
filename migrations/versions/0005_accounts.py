"""Users' tenants, login sessions, service tokens, tenants' tokens and the keys that sign tokens.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-29

Works with the release before it: new tables, and a column with a default.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TABLES = """
ALTER TABLE users ADD COLUMN tenants JSONB DEFAULT '[]'::jsonb NOT NULL;
ALTER TABLE users ADD CONSTRAINT ck_users_tenants CHECK (jsonb_typeof(tenants) = 'array');
COMMENT ON COLUMN users.tenants IS 'of a TenantOwner';

CREATE TABLE login_sessions (
    session_id VARCHAR(255) COLLATE "C" NOT NULL,
    user_id VARCHAR(255) COLLATE "C" NOT NULL,
    refresh_digest VARCHAR(64) NOT NULL,
    previous_digest VARCHAR(64),
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    refreshed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_login_sessions PRIMARY KEY (session_id),
    CONSTRAINT fk_login_sessions_user_id FOREIGN KEY(user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
COMMENT ON COLUMN login_sessions.refresh_digest IS 'SHA-256 of the refresh token';
CREATE INDEX ix_login_sessions_user_id ON login_sessions (user_id);
CREATE INDEX ix_login_sessions_expires_at ON login_sessions (expires_at);
CREATE INDEX ix_login_sessions_ended_at ON login_sessions (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE service_tokens (
    token_id VARCHAR(255) COLLATE "C" NOT NULL,
    name VARCHAR(255) COLLATE "C" NOT NULL,
    prefix VARCHAR(20) NOT NULL,
    digest VARCHAR(64) NOT NULL,
    roles JSONB NOT NULL,
    tenants JSONB DEFAULT '[]'::jsonb NOT NULL,
    environments JSONB DEFAULT '[]'::jsonb NOT NULL,
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_used_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    revoked_by VARCHAR(255),
    CONSTRAINT pk_service_tokens PRIMARY KEY (token_id),
    CONSTRAINT uq_service_tokens_digest UNIQUE (digest),
    CONSTRAINT ck_service_tokens_roles CHECK (jsonb_typeof(roles) = 'array'),
    CONSTRAINT ck_service_tokens_revoked CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
COMMENT ON COLUMN service_tokens.digest IS 'SHA-256 of the token';
COMMENT ON COLUMN service_tokens.environments IS 'empty: all';
CREATE INDEX ix_service_tokens_newest ON service_tokens (created_at DESC, token_id DESC);
CREATE UNIQUE INDEX ix_service_tokens_name ON service_tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE tenant_tokens (
    token_id VARCHAR(255) COLLATE "C" NOT NULL,
    tenant_id VARCHAR(255) COLLATE "C" NOT NULL,
    environments JSONB DEFAULT '[]'::jsonb NOT NULL,
    plugins JSONB DEFAULT '[]'::jsonb NOT NULL,
    description TEXT DEFAULT '' NOT NULL,
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    revoked_by VARCHAR(255),
    CONSTRAINT pk_tenant_tokens PRIMARY KEY (token_id),
    CONSTRAINT ck_tenant_tokens_revoked CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
COMMENT ON TABLE tenant_tokens IS 'what is known of tokens of the data plane; the tokens themselves are kept nowhere';
COMMENT ON COLUMN tenant_tokens.environments IS 'empty: all';
COMMENT ON COLUMN tenant_tokens.plugins IS 'empty: all';
CREATE INDEX ix_tenant_tokens_tenant_id ON tenant_tokens (tenant_id, created_at DESC, token_id DESC);
CREATE INDEX ix_tenant_tokens_revoked ON tenant_tokens (expires_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE signing_keys (
    kid VARCHAR(64) COLLATE "C" NOT NULL,
    purpose VARCHAR(50) NOT NULL,
    public VARCHAR(64) NOT NULL,
    sealed_private TEXT NOT NULL,
    sealed_by VARCHAR(64) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    active_from TIMESTAMP WITH TIME ZONE NOT NULL,
    verify_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_signing_keys PRIMARY KEY (kid),
    CONSTRAINT ck_signing_keys_purpose CHECK (purpose IN ('api', 'data-plane'))
);
COMMENT ON COLUMN signing_keys.sealed_private IS 'AES-256-GCM under the key-encryption key';
COMMENT ON COLUMN signing_keys.sealed_by IS 'which key-encryption key';
COMMENT ON COLUMN signing_keys.verify_until IS 'null: not rotated out';
"""


def upgrade() -> None:
    op.execute(_TABLES)


def downgrade() -> None:
    for table in ("signing_keys", "tenant_tokens", "service_tokens", "login_sessions"):
        op.execute(f"DROP TABLE {table}")
    op.execute("ALTER TABLE users DROP COLUMN tenants")
