"""What the record tests do to a database behind the adapter's back."""

import psycopg

# Its owner may switch the audit's guard off; the adapter never does.
_CLEAN = b"""
ALTER TABLE audit_logs DISABLE TRIGGER audit_logs_no_truncate;
ALTER TABLE audit_chain DISABLE TRIGGER audit_chain_no_truncate;
ALTER TABLE audit_checkpoints DISABLE TRIGGER audit_checkpoints_no_truncate;
TRUNCATE plugins, plugin_deployments, routes, nodes, idempotency_keys, users, audit_logs, audit_chain, audit_checkpoints,
    freezes, drift_reports, service_tokens, tenant_tokens, signing_keys, tenant_data_keys, notices, notification_rules
    CASCADE;
ALTER TABLE audit_logs ENABLE TRIGGER audit_logs_no_truncate;
ALTER TABLE audit_chain ENABLE TRIGGER audit_chain_no_truncate;
ALTER TABLE audit_checkpoints ENABLE TRIGGER audit_checkpoints_no_truncate;
"""


def empty(url: str) -> None:
    """Take every row away but the seeded ones."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_CLEAN)


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
