"""What only a real server can show: the audit's guard, the columns that SQL readers use, plans, keys that sort."""

import itertools
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import dict_row
from pydantic import SecretStr

from hotswap.adapters.memory.records import MemoryRecords
from hotswap.adapters.postgres.database import Database
from hotswap.adapters.postgres.precedence import precedence_key
from hotswap.config import PostgresSettings
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import InvalidInput, Unavailable
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import Page
from hotswap.ports.records import PluginFilter
from tests.contract.databases import execute
from tests.contract.factories import (
    EPOCH,
    make_answer,
    make_audit,
    make_deployment,
    make_plugin,
    make_route,
    make_version,
)

pytestmark = pytest.mark.stack


async def test_a_number_no_column_holds_is_invalid_input(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("big"))
        with pytest.raises(InvalidInput, match="out of range"):
            await uow.versions.add(make_version("big", size_bytes=2**70))


async def test_a_unit_that_only_reads_opens_no_transaction_and_writes_nothing(
    database: Database, database_url: str
) -> None:
    async with database.unit_of_work() as uow:
        for number in range(30):
            await uow.plugins.add(make_plugin(f"plugin-{number:02}"))
        await uow.commit()
    async with database.reading() as uow:
        found, total = await uow.plugins.list(PluginFilter(), Page(limit=5, offset=5))
        assert ([plugin.name for plugin in found], total) == ([f"plugin-{number:02}" for number in range(5, 10)], 30)
        states = (
            "SELECT DISTINCT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(database_url) as connection:
            assert connection.execute(states).fetchall() == [("idle",)]
        with pytest.raises(RuntimeError, match="more than SELECT"):
            await uow.plugins.delete("plugin-00")
        with pytest.raises(RuntimeError, match="more than SELECT"):
            await uow.plugins.add(make_plugin("another"))
    async with database.unit_of_work() as uow:  # on a connection that has read
        await uow.plugins.delete("plugin-00")
    async with database.reading() as uow:
        assert (await uow.plugins.get("plugin-00")).name == "plugin-00", "what was not committed was undone"


async def test_a_fault_never_shows_what_was_stored(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("quiet"))
        with pytest.raises(InvalidInput) as caught:
            await uow.versions.add(make_version("quiet", size_bytes=2**70, release_notes="private words"))
    assert "private words" not in str(caught.value) + str(caught.value.__cause__)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_logs SET user_id = 'somebody else'", "DELETE FROM audit_logs", "TRUNCATE audit_logs"],
)
async def test_the_audit_refuses_to_be_changed(database: Database, database_url: str, statement: str) -> None:
    async with database.unit_of_work() as uow:
        await uow.audit.append(make_audit())
        await uow.commit()
    with pytest.raises(psycopg.errors.RestrictViolation, match="audit_logs is append-only"):
        execute(database_url, statement)


async def test_a_written_route_refuses_to_be_rewritten(database: Database, database_url: str) -> None:
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("routed"))
        await uow.versions.add(make_version("routed"))
        await uow.routes.write("Development", "routed", 0, make_route("routed"), "dep")
        await uow.commit()
    with pytest.raises(psycopg.errors.RestrictViolation, match="routes is append-only"):
        execute(database_url, "UPDATE routes SET candidate_weight = 0")


async def test_answers_expire_after_a_day_and_are_swept(database: Database, database_url: str) -> None:
    async with database.unit_of_work() as uow:
        for key in ("old", "older", "fresh"):
            await uow.idempotency.keep("zoe", "deploy", key, make_answer())
        await uow.commit()
    execute(
        database_url,
        "UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second' WHERE key <> 'fresh'",
    )
    async with database.unit_of_work() as uow:
        assert await uow.idempotency.find("zoe", "deploy", "old") is None
        await uow.idempotency.keep("zoe", "deploy", "old", make_answer(status_code=201))
        await uow.commit()
        renewed = await uow.idempotency.find("zoe", "deploy", "old")
        assert renewed is not None
        assert renewed.status_code == 201
        assert await uow.idempotency.find("zoe", "deploy", "fresh") is not None
    with psycopg.connect(database_url) as connection:
        keys = connection.execute("SELECT key FROM idempotency_keys ORDER BY key").fetchall()
    assert keys == [("fresh",), ("old",)]


async def test_answers_of_the_twin_expire_after_a_day() -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    records = MemoryRecords(clock=lambda: now[0])
    async with records.unit_of_work() as uow:
        await uow.idempotency.keep("zoe", "deploy", "k", make_answer())
        now[0] += timedelta(hours=24)
        assert await uow.idempotency.find("zoe", "deploy", "k") is not None
        now[0] += timedelta(seconds=1)
        assert await uow.idempotency.find("zoe", "deploy", "k") is None
        await uow.idempotency.keep("zoe", "deploy", "k", make_answer(status_code=201))
        renewed = await uow.idempotency.find("zoe", "deploy", "k")
        assert renewed is not None
        assert renewed.status_code == 201


async def test_the_twin_can_be_away() -> None:
    records = MemoryRecords()
    async with records.unit_of_work() as uow:
        records.away = True
        with pytest.raises(Unavailable):
            await uow.plugins.get("any")
        with pytest.raises(Unavailable):
            await uow.commit()
    with pytest.raises(Unavailable):
        async with records.unit_of_work():
            pass


async def test_the_columns_of_a_deployment_say_what_its_progress_says(database: Database, database_url: str) -> None:
    row = make_deployment("exporter", environment=Environment.PRODUCTION)
    done = row.progress.model_copy(
        update={
            "sequence": 12,
            "status": DeploymentStatus.FAILED,
            "from_version": "0.9.0",
            "step_number": 1,
            "step_count": 3,
            "outcome_reason": "node-2 kept the old route",
            "started_at": EPOCH,
            "finished_at": EPOCH + timedelta(minutes=5),
            "rolled_back_at": EPOCH + timedelta(minutes=4),
        }
    )
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("exporter"))
        await uow.deployments.open(row)
        await uow.deployments.project(done, [])
        await uow.commit()
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        stored = connection.execute("SELECT * FROM plugin_deployments").fetchone()
    assert stored is not None
    expected = {
        "plugin_id": "exporter",
        "version": "1.0.0",
        "environment": "Production",
        "strategy": "Canary",
        "status": "Failed",
        "progress_percentage": 33,
        "previous_version": "0.9.0",
        "created_at": EPOCH,
        "started_at": EPOCH,
        "completed_at": EPOCH + timedelta(minutes=5),
        "rolled_back_at": EPOCH + timedelta(minutes=4),
        "rollback_reason": "node-2 kept the old route",
        "error_message": "node-2 kept the old route",
        "sequence": 12,
        "workflow_id": row.workflow_id,
        "run_id": row.run_id,
    }
    assert {name: stored[name] for name in expected} == expected


async def test_a_route_is_waited_for_by_index_not_by_generations(database: Database, database_url: str) -> None:
    """`desired` runs every few seconds on every node: its cost must not grow with the history of routes."""
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("routed"))
        await uow.versions.add(make_version("routed"))
        await uow.routes.write("Development", "routed", 0, make_route("routed"), "dep")
        await uow.commit()
    execute(
        database_url,
        "INSERT INTO routes (environment, plugin_id, generation, state, candidate_weight, deployment_id)"
        " SELECT environment, plugin_id, 1 + n, state, 0, 'dep' FROM routes, generate_series(1, 20000) n",
    )
    execute(database_url, "ANALYZE routes")
    async with database.unit_of_work() as uow:
        (desired,) = await uow.routes.desired("Development")
    assert desired.order.generation == 20001
    with psycopg.connect(database_url) as connection:
        plan = connection.execute(
            "EXPLAIN (FORMAT JSON) SELECT * FROM plugins, LATERAL (SELECT * FROM routes WHERE environment = 'Development'"
            " AND routes.plugin_id = plugins.plugin_id ORDER BY generation DESC LIMIT 1) latest"
        ).fetchone()
    assert plan is not None
    assert "Seq Scan on routes" not in str(plan)
    assert "pk_routes" in str(plan)


_NUMBERS = st.integers(0, 30).map(str) | st.integers(0, 10**12).map(str)
_WORDS = st.from_regex(r"[0-9]{0,2}[A-Za-z-][0-9A-Za-z-]{0,3}", fullmatch=True)
_VERSIONS = st.builds(
    lambda core, pre, build: ".".join(core) + ("-" + ".".join(pre) if pre else "") + ("+" + build if build else ""),
    st.tuples(_NUMBERS, _NUMBERS, _NUMBERS),
    st.lists(_NUMBERS | _WORDS, max_size=3),
    st.sampled_from(["", "b1"]),
)


@given(st.lists(_VERSIONS, min_size=2, max_size=8))
def test_precedence_keys_sort_as_semver_does(versions: list[str]) -> None:
    for one, other in itertools.combinations(versions, 2):
        compared = semver.Version.parse(one).compare(other)
        left, right = precedence_key(one).encode(), precedence_key(other).encode()
        assert compared == (left > right) - (left < right)


def test_the_longest_version_has_a_key_that_fits() -> None:
    longest = "0.0.0-" + ".".join("0" * 22)
    assert len(longest) <= 50
    assert len(precedence_key(longest)) <= 255


def test_a_wrong_url_names_its_setting_and_not_its_password() -> None:
    for url in ("mysql://u:secret@h/db", "postgresql://u:secret@h", "nonsense secret"):
        with pytest.raises(InvalidInput, match="HOTSWAP_POSTGRES__URL") as caught:
            Database(PostgresSettings(url=SecretStr(url)))
        assert "secret" not in str(caught.value)
