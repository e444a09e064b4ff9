"""Reading from PostgreSQL: no query without an index, no more queries for a long page than for a short one, pages that
join to the whole, filters that take exactly what they say.

Over a small copy of what benchmarks/api.py measures. Plans are asked for with sequential scans switched off: one that is
chosen all the same has no index to take, whatever the table's size.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import event

from benchmarks.api_seed import Crowd, deployment_id, plugin_name, seed, tenant_name
from hotswap.adapters.postgres.database import Database
from hotswap.config import PostgresSettings
from tests.http.site import API, make_site
from tests.http.test_api_security import ROLES

CROWD = Crowd(plugins=150, tenants=300, deployments=600)
PLUGIN, DEPLOYMENT, TENANT = plugin_name(7), deployment_id(57), tenant_name(7)
NONE = "0" * 32

PATHS = {
    "pluginId": PLUGIN,
    "version": "1.1.0",
    "deploymentId": DEPLOYMENT,
    "environment": "Development",
    "tenant": TENANT,
    "user": "ghost",
    "freezeId": f"frz_{NONE}",
    "pipelineId": f"pip_{NONE}",
    "sandboxId": f"sbx_{NONE}",
    "approvalId": f"dep_{NONE}",
    "ruleId": "ghost",
}

FILTERED = (
    "/plugins?type=Other&status=Active&tags=team-7&limit=3&offset=2",
    f"/deployments?pluginId={PLUGIN}",
    "/deployments?environment=Staging&status=RolledBack",
    f"/deployments?pluginId={PLUGIN}&environment=Production&status=Completed",
    f"/audit-logs?entity={DEPLOYMENT}&user=ada&from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z",
    "/audit-logs?entityType=plugin&eventType=plugin.registered",
    f"/freezes?environment=QA&pluginId={PLUGIN}&lifted=false",
    f"/freezes/standing?environment=QA&pluginId={PLUGIN}",
    f"/pipelines?pluginId={PLUGIN}&status=InProgress",
    f"/sandbox?pluginId={PLUGIN}&environment=QA&status=Active",
    "/notifications/deliveries?ruleId=ghost&status=Delivered",
    f"/plugins/{PLUGIN}/health?environment=QA",
    "/approvals?environment=Production&mine=true",
)

LISTS = (
    "/plugins",
    f"/plugins/{PLUGIN}/versions",
    "/deployments",
    f"/deployments/{deployment_id(50)}/rollback-history",
    f"/tenants/{TENANT}/plugins",
    f"/tenants/{TENANT}/plugins/{PLUGIN}/history",
    f"/tenants/{TENANT}/tokens",
    "/freezes",
    "/pipelines",
    "/sandbox",
    "/audit-logs",
    "/audit-logs/checkpoints",
    "/users",
    "/service-tokens",
    "/approvals",
    "/notifications/rules",
    "/notifications/deliveries",
    "/publisher-keys",
    "/environments",
    "/nodes",
    "/environments/Development/held-versions",
)
EMPTY_HERE = {"/audit-logs/checkpoints", "/notifications/rules", "/notifications/deliveries", "/nodes", LISTS[-1]}

WHOLE = {("/dependencies", "plugins"), ("/dependencies", "plugin_versions")}
"""(path, table): who needs a plugin is found by looking at what serves of every plugin, in one query an environment."""

SMALL = {
    "environments": "four rows",
    "nodes": "as many as there are machines; written each second, so few indexes",
    "signing_keys": "a handful that still verify",
    "notification_rules": "what people set up; all are told",
    "audit_checkpoints": "one each time somebody asked for it; all are told",
    "freezes": "by an index of those that nobody lifted",
}
"""Tables that are read whole, and why they may be."""

UNASKED = {
    "GET /api/v1/deployments/{deploymentId}/events": "a stream: tests/http/test_api_events.py",
    "GET /api/v1/plugins/{pluginId}/versions/{version}/download": "reads the object store, and the version as GET does",
    "GET /api/v1/audit-logs/verify": "follows the whole chain, in parts",
    "GET /api/v1/audit-logs/export": "follows the whole chain, in parts",
}


@dataclass
class Asked:
    """A client of an api over PostgreSQL, and the statements that it made it send."""

    client: httpx.AsyncClient
    statements: list[tuple[str, Any]] = field(default_factory=list)

    async def get(self, path: str) -> httpx.Response:
        self.statements.clear()
        return await self.client.get(path)


@pytest.fixture(scope="module")
def database_url(new_database: Callable[..., str]) -> str:
    url = new_database(migrated=True)
    seed(url, CROWD)
    waiting = {"status": "AwaitingApproval", "approvalsRequired": 1}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE plugin_deployments SET status = 'AwaitingApproval', progress = progress || %s::jsonb"
            " WHERE deployment_id = ANY(%s)",
            (json.dumps(waiting), [deployment_id(1), deployment_id(2)]),
        )
    return url


@pytest.fixture(scope="module")
async def asked(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    database = Database(PostgresSettings(url=SecretStr(database_url)))
    stand_in: Any = database  # all that a site asks of its records is a unit of work
    site = make_site(tmp_path_factory.mktemp("site"), records=stand_in, api={"rate_limit_factor": 1_000_000})
    headers = {"Authorization": "Bearer token-of-admin"}
    transport = httpx.ASGITransport(site.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as client:
        await fill(client)
        asked = Asked(client)

        @event.listens_for(database._engine.sync_engine, "before_cursor_execute")
        def sent(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
            asked.statements.append((statement, parameters))

        yield asked
    site.container.streams.close()
    await database.close()


async def fill(client: httpx.AsyncClient) -> None:
    """Two of everything that the seed leaves out."""
    window = {"kind": "once", "starts": "2030-01-01T00:00:00Z"}
    for number in range(2):
        plugin = plugin_name(number)
        for path, body in (
            ("/freezes", {"reason": "inventory", "window": window, "pluginId": PLUGIN}),
            ("/users", {"name": f"user{number}", "roles": ["Viewer"]}),
            ("/service-tokens", {"name": f"ci{number}", "roles": ["Viewer"]}),
            (f"/tenants/{TENANT}/tokens", {}),
            (f"/tenants/{TENANT}/plugins/{PLUGIN}/{('disable', 'enable')[number]}", {}),
            ("/pipelines", {"pluginId": plugin, "version": "1.1.0", "stages": [{"environment": "Development"}]}),
            ("/sandbox/create", {"pluginId": plugin, "version": "1.1.0"}),
            ("/publisher-keys", {"publisher": "us", "publicKey": f"{number}" + "A" * 42 + "="}),
        ):
            answer = await client.post(API + path, json=body)
            assert answer.is_success, answer.text


def gets() -> Iterator[str]:
    for name in ROLES:
        method, path = name.split(" ")
        if method == "GET" and name not in UNASKED:
            query = f"?environment=QA&pluginId={PLUGIN}" if path.endswith("/standing") else ""
            template = path.replace("{tokenId}", f"svc_{NONE}").replace("{keyId}", "0" * 64)
            yield template.format_map(PATHS) + query
    yield from (API + path for path in FILTERED)


def scans(plan: Any, beneath: str = "") -> Iterator[tuple[str, str, bool]]:
    """(kind of scan, table, whether it was led by something: a condition, or an order of which a part is taken as it comes)."""
    kind = plan["Node Type"]
    if "Scan" in kind and "Relation Name" in plan:
        whole = beneath in ("Limit", "Aggregate") and "Filter" not in plan
        led = "Index Cond" in plan or "Recheck Cond" in plan or whole
        yield kind, plan["Relation Name"], led
    passed = kind if kind in ("Limit", "Aggregate") else beneath if kind in ("Result", "Subquery Scan") else ""
    for inner in plan.get("Plans", ()):
        yield from scans(inner, passed)


async def test_no_query_of_any_get_goes_without_an_index(asked: Asked, database_url: str) -> None:
    faults, asked_in_all = [], 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET plan_cache_mode = force_custom_plan")
        for path in gets():
            answer = await asked.get(path)
            assert answer.status_code in (200, 404, 503), answer.text
            asked_in_all += len(asked.statements)
            for statement, parameters in asked.statements:
                (row,) = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode(), parameters)
                for kind, table, led in scans(row[0][0]["Plan"]):
                    meant = table in SMALL or any(path.endswith(end) and table == one for end, one in WHOLE)
                    if not meant and (kind == "Seq Scan" or not led):
                        faults.append(f"{path}: {kind} of {table}: {' '.join(statement.split())[:500]}")
    assert faults == [], "\n".join(faults)
    assert asked_in_all > 80, "the statements were not seen"


@pytest.mark.parametrize("path", LISTS)
async def test_a_long_page_takes_no_more_queries_than_a_short_one(asked: Asked, path: str) -> None:
    counts = []
    for limit in (1, 100):
        answer = await asked.get(f"{API}{path}?limit={limit}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["total"] >= 2 or path in EMPTY_HERE
        counts.append(len(asked.statements))
    short, long = counts
    assert long <= short <= 8, counts


BOUNDED = settings(
    max_examples=6, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


async def each_example(check: Any) -> None:
    """Run an async property on the loop that the client belongs to: Hypothesis itself calls, and does not await."""
    loop = asyncio.get_running_loop()
    inner = check.hypothesis.inner_test
    check.hypothesis.inner_test = lambda **drawn: asyncio.run_coroutine_threadsafe(inner(**drawn), loop).result(60)
    await asyncio.to_thread(check)


async def whole(asked: Asked, path: str) -> list[Any]:
    """Every item, by following the pages."""
    items: list[Any] = []
    offset: int | None = 0
    while offset is not None:
        page = (await asked.get(f"{API}{path}?limit=100&offset={offset}")).json()
        items += page["items"]
        offset = page["nextOffset"]
    assert page["total"] == len(items)
    assert len({json.dumps(item, sort_keys=True) for item in items}) == len(items), "an item came twice"
    return items


@pytest.mark.parametrize("path", LISTS)
async def test_any_page_is_that_slice_of_the_whole(asked: Asked, path: str) -> None:
    items = await whole(asked, path)

    @BOUNDED
    @given(limit=st.integers(1, 100), offset=st.integers(0, max(2, int(1.2 * len(items)))))
    @example(limit=1, offset=max(0, len(items) - 1))
    @example(limit=max(1, min(100, len(items))), offset=0)
    @example(limit=100, offset=1_000_000)
    async def check(limit: int, offset: int) -> None:
        page = (await asked.get(f"{API}{path}?limit={limit}&offset={offset}")).json()
        assert page["items"] == items[offset : offset + limit]
        end = offset + len(page["items"])
        more = offset < len(items) and end < len(items)
        assert page | {"items": []} == {
            "items": [],
            "total": len(items),
            "limit": limit,
            "offset": offset,
            "hasMore": more,
            "nextOffset": end if more else None,
        }

    await each_example(check)


Takes = Callable[[Any, str], bool]


def same(name: str) -> Takes:
    return lambda item, asked_for: item[name] == asked_for


def same_or_all(name: str) -> Takes:
    return lambda item, asked_for: item[name] in (None, asked_for)


def has_tags(item: Any, tags: str) -> bool:
    return set(tags.split(",")) <= set(item["tags"])


def speaks_of(item: Any, text: str) -> bool:
    return any(text.casefold() in item[name].casefold() for name in ("name", "displayName", "description"))


FILTERS: dict[str, dict[str, tuple[tuple[str, ...], Takes]]] = {
    "/plugins": {
        "type": (("PaymentGateway", "Other", "AuthProvider"), same("type")),
        "status": (("Active", "Draft"), same("status")),
        "tags": (("team-1", "team-4,team-4", "team-1,team-2"), has_tags),
        "search": (("needle", "HAY", "0007", "%", "_", "\\"), speaks_of),
    },
    "/deployments": {
        "pluginId": ((PLUGIN, plugin_name(50), "ghost"), same("plugin")),
        "environment": (("Staging", "Production"), same("environment")),
        "status": (("Completed", "RolledBack", "AwaitingApproval", "Failed"), same("status")),
    },
    "/freezes": {
        "environment": (("QA",), same_or_all("environment")),
        "pluginId": ((PLUGIN, "ghost"), same_or_all("plugin")),
        "lifted": (("true", "false"), lambda item, lifted: (item["liftedAt"] is not None) == (lifted == "true")),
    },
    "/pipelines": {
        "pluginId": ((plugin_name(0), "ghost"), same("plugin")),
        "status": (("InProgress", "Pending", "Completed"), same("status")),
    },
    "/sandbox": {
        "pluginId": ((plugin_name(1), "ghost"), same("pluginId")),
        "environment": (("Development", "QA"), same("environment")),
        "status": (("Active", "Deleted"), same("status")),
    },
    "/audit-logs": {
        "entity": (("user0", TENANT, "ghost"), same("entityId")),
        "entityType": (("user", "tenant", "freeze"), same("entityType")),
        "eventType": (("sandbox.created", "user.created"), same("eventType")),
        "user": (("admin", "ghost"), same("user")),
        "from": (("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"), lambda item, since: item["at"] >= since),
        "to": (("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"), lambda item, until: item["at"] < until),
    },
    "/approvals": {
        "environment": (("QA", "Production"), same("environment")),
        "pluginId": ((plugin_name(1), "ghost"), same("plugin")),
    },
}


@pytest.mark.parametrize("path", FILTERS)
async def test_filters_take_what_a_reader_would_and_nothing_else(asked: Asked, path: str) -> None:
    items, filters = await whole(asked, path), FILTERS[path]
    choices: Any = {name: st.sampled_from(values) for name, (values, _) in filters.items()}

    @BOUNDED
    @given(wanted=st.fixed_dictionaries({}, optional=choices), limit=st.integers(1, 100))
    async def check(wanted: dict[str, str], limit: int) -> None:
        answer = await asked.client.get(f"{API}{path}", params={**wanted, "limit": limit})
        assert answer.status_code == 200, answer.text
        left = [item for item in items if all(filters[name][1](item, value) for name, value in wanted.items())]
        assert (answer.json()["items"], answer.json()["total"]) == (left[:limit], len(left)), wanted

    await each_example(check)
    for name, (values, takes) in filters.items():
        for value in values:
            page = (await asked.client.get(f"{API}{path}", params={name: value, "limit": 100})).json()
            assert page["items"] == [item for item in items if takes(item, value)][:100], (name, value)
