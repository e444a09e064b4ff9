"""Fills a migrated database as a busy platform's is: plugins with versions and routes, tenants, deployments. In seconds.

Each kind of row is modelled once in Python, so that it is one the stores can read, and multiplied by the server
(INSERT ... SELECT generate_series). Neighbours: benchmarks.api measures over it, tests/http/test_api_queries.py looks at plans.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from hotswap.adapters.postgres.precedence import precedence_key
from hotswap.domain.deployment import DeploymentProgress, DirectConfig, Environment, Strategy
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.manifest import Manifest
from hotswap.domain.routes import ArtifactRef, RouteState

VERSIONS = ("1.0.0", "1.1.0", "2.0.0")
DIGEST = "a" * 64
AT = datetime(2026, 1, 31, tzinfo=UTC)
SEARCHED = 97
"""Every so many plugins the description says `needle`."""


@dataclass(frozen=True)
class Crowd:
    """How much there is. Rows of tenants: each tenant has settings of its own for two plugins."""

    plugins: int = 1_000
    tenants: int = 10_000
    deployments: int = 50_000


def plugin_name(number: int) -> str:
    return f"plugin-{number:05}"


def deployment_id(number: int) -> str:
    return f"dep_{number:032x}"


def tenant_name(number: int) -> str:
    return f"tenant-{number:05}"


def seed(url: str, crowd: Crowd) -> None:
    """One transaction, then the planner's statistics."""
    with psycopg.connect(url) as connection:
        for statement, values in _statements(crowd):
            connection.execute(statement, values)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _statements(crowd: Crowd) -> list[tuple[sql.SQL, dict[str, Any]]]:
    amounts = {"plugins": crowd.plugins, "tenants": crowd.tenants, "deployments": crowd.deployments, "at": AT}
    statements = [(sql.SQL(_PLUGINS), amounts | {"searched": SEARCHED})]
    for version in VERSIONS:
        more = {"version": version, "precedence": precedence_key(version), "digest": DIGEST}
        statements.append((sql.SQL(_VERSIONS), amounts | more | {"manifest": _manifest(version)}))
    statements += [
        (sql.SQL(_ROUTES), amounts | {"state": _route(), "version": VERSIONS[-1]}),
        (sql.SQL(_TENANTS), amounts),
        (sql.SQL(_HEALTH), amounts),
        (sql.SQL(_DEPLOYMENTS), amounts | {"progress": _progress(), "config": _config(), "digest": DIGEST}),
    ]
    return statements


def _manifest(version: str) -> str:
    methods = [{"name": f"method{n}", "parameters": {"type": "object"}, "result": {}} for n in range(3)]
    schema = {"type": "object", "properties": {"salutation": {"type": "string", "default": "Hello"}}}
    document = {
        "name": plugin_name(0),
        "version": version,
        "entryPoint": "plugin:Plugin",
        "methods": methods,
        "configurationSchema": schema,
    }
    return Manifest.model_validate(document).model_dump_json(by_alias=True)


def _route() -> str:
    stable = ArtifactRef(plugin=plugin_name(0), version=VERSIONS[-1], digest=DIGEST, size_bytes=10_000)
    return RouteState(stable=stable, seed="seed").model_dump_json(by_alias=True)


def _progress() -> str:
    """A deployment that has ended: one that runs would be asked of Temporal, which has none."""
    progress = DeploymentProgress(
        deployment_id=deployment_id(0),
        plugin=plugin_name(0),
        environment=Environment.DEVELOPMENT,
        strategy=Strategy.CANARY,
        to_version="2.0.0",
        from_version="1.1.0",
        status=DeploymentStatus.COMPLETED,
        initiated_by="ada",
        reason="CHANGE-4711",
        step_number=12,
        step_count=12,
        step_title="retire 1.1.0",
        plan_hash="b" * 64,
        digest=DIGEST,
        requested_at=AT,
        started_at=AT,
        finished_at=AT,
        sequence=40,
    )
    return progress.model_dump_json(by_alias=True)


def _config() -> str:
    return json.dumps(DirectConfig().model_dump(mode="json", by_alias=True))


_PLUGIN = "'plugin-' || lpad((n)::text, 5, '0')"

_PLUGINS = f"""
INSERT INTO plugins (plugin_id, name, display_name, description, type, status, current_version, search_text, tags,
                     created_at, updated_at)
SELECT name, name, name, words, (ARRAY['PaymentGateway', 'ReportingEngine', 'Other'])[1 + n %% 3], 'Active', '2.0.0',
       name || E'\\n' || name || E'\\n' || words, to_jsonb(ARRAY['team-' || n %% 20]), %(at)s, %(at)s
FROM (SELECT n, {_PLUGIN} AS name, CASE WHEN n %% %(searched)s = 0 THEN 'a needle' ELSE 'hay' END AS words
      FROM generate_series(0, %(plugins)s - 1) n) one
"""

_VERSIONS = f"""
INSERT INTO plugin_versions (version_id, plugin_id, version, precedence, manifest, binary_path, checksum, binary_size,
                             status, approved_by, approved_at, created_by, created_at)
SELECT 'ver-' || n || '-' || %(version)s, {_PLUGIN}, %(version)s, %(precedence)s, %(manifest)s::jsonb, 'plugins/none',
       %(digest)s, 10000, 'Approved', 'grace', %(at)s, 'ada', %(at)s
FROM generate_series(0, %(plugins)s - 1) n
"""

_ROUTES = f"""
INSERT INTO routes (environment, plugin_id, generation, state, stable_version, candidate_weight, deployment_id)
SELECT place.name, {_PLUGIN}, generation, jsonb_set(%(state)s::jsonb, '{{stable,plugin}}', to_jsonb({_PLUGIN})), %(version)s, 0, 'dep_' || lpad(to_hex(n), 32, '0')
FROM environments place, generate_series(0, %(plugins)s - 1) n, generate_series(1, 5) generation
WHERE place.name IN ('Development', 'Production')
"""

_TENANTS = f"""
INSERT INTO tenant_plugin_configs (config_id, tenant_id, plugin_id, configuration, pinned_version, enabled_by)
SELECT 'cfg-' || t || '-' || n, 'tenant-' || lpad(t::text, 5, '0'), {_PLUGIN}, '{{"salutation": "Moin"}}'::jsonb,
       CASE WHEN t %% 10 = 0 THEN '1.1.0' END, 'ada'
FROM generate_series(0, %(tenants)s - 1) t,
     LATERAL (VALUES (t %% %(plugins)s), ((t + 1) %% %(plugins)s)) chosen (n)
"""

_DEPLOYMENTS = f"""
INSERT INTO plugin_deployments (deployment_id, plugin_id, version, environment, strategy, config, status,
                                progress_percentage, initiated_by, previous_version, created_at, started_at, completed_at,
                                workflow_id, run_id, progress, sequence, digest, plan_hash)
SELECT id, plugin, '2.0.0', place, 'Canary', %(config)s::jsonb, status, 100, 'ada', '1.1.0', at, at, at,
       'deployment/' || place || '/' || plugin, 'run-' || d,
       %(progress)s::jsonb || jsonb_build_object('deploymentId', id, 'plugin', plugin, 'environment', place,
                                                 'status', status, 'requestedAt', at),
       40, %(digest)s, repeat('b', 64)
FROM (SELECT d, 'dep_' || lpad(to_hex(d), 32, '0') AS id, {_PLUGIN} AS plugin,
             (ARRAY['Development', 'QA', 'Staging', 'Production'])[1 + d %% 4] AS place,
             CASE WHEN d %% 50 = 0 THEN 'RolledBack' ELSE 'Completed' END AS status,
             %(at)s + d * interval '1 second' AS at
      FROM generate_series(0, %(deployments)s - 1) d, LATERAL (SELECT d %% %(plugins)s) chosen (n)) one
"""

_HEALTH = f"""
INSERT INTO plugin_health_checks (health_check_id, plugin_id, version, environment, type, status, checked_at, duration_ms)
SELECT 'hck-' || n || '-' || c, {_PLUGIN}, '2.0.0', 'Production', 'Liveness', 'Healthy',
       %(at)s + c * interval '30 minutes', 5
FROM generate_series(0, %(plugins)s - 1) n, generate_series(1, 20) c
"""
