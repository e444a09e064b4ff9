"""Every check, in the order they are made, with the ones each needs."""

from hotswap.doctor import advice, artifacts, fleet, keys, records, servers
from hotswap.doctor.examine import Check

CHECKS = (
    Check("settings", "settings", advice.settings),
    Check("postgres", "PostgreSQL", servers.postgres),
    Check("redis", "Redis", servers.redis),
    Check("object-store", "the object store", servers.object_store),
    Check("temporal", "Temporal: namespace, retention, search attributes", servers.temporal_server),
    Check("schema", "the schema's revision", servers.schema, ("postgres",)),
    Check("clock", "the clocks of this machine and the servers", servers.clocks, ("postgres", "object-store")),
    Check("worker", "who polls for rollouts", servers.worker, ("temporal",)),
    Check("artifacts", "stored artifacts", artifacts.artifacts, ("schema", "postgres", "object-store")),
    Check("nodes", "nodes on record", fleet.nodes, ("schema", "postgres")),
    Check("drift", "what nodes run, against the routes", fleet.drift, ("schema", "postgres")),
    Check("sandbox", "the sandbox tier of nodes and of this machine", fleet.sandbox, ("schema", "postgres")),
    Check("signing-keys", "keys that sign tokens", keys.signing_keys, ("schema", "postgres")),
    Check("key-provider", "keys of tenants' secrets", keys.key_provider, ("schema", "postgres")),
    Check("failed-deployments", "rollouts that need a person", records.failed, ("schema", "postgres")),
    Check(
        "workflows",
        "unfinished rollouts, against their workflows",
        records.workflows,
        ("schema", "postgres", "temporal"),
    ),
    Check("freezes", "freezes that were left on", records.freezes, ("schema", "postgres")),
    Check("audit", "the audit's seals", records.audit, ("schema", "postgres")),
)
