"""The schema on a real PostgreSQL: up, down, up again, by many at once, and equal to what SQLAlchemy believes."""

import subprocess
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, create_engine
from sqlalchemy.pool import NullPool

from hotswap.adapters.postgres.tables import metadata
from hotswap.adapters.postgres.url import engine_url
from hotswap.domain.analysis import Health
from hotswap.domain.deployment import Environment, Strategy
from hotswap.domain.errors import InvalidInput, Unavailable
from hotswap.domain.lifecycle import DeploymentStatus, PluginStatus, VersionStatus
from migrations import runner

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
SEED_TABLES = {
    "plugins",
    "plugin_versions",
    "plugin_deployments",
    "tenant_plugin_configs",
    "plugin_health_checks",
    "audit_logs",
}
HEAD = ScriptDirectory.from_config(runner.script_config()).get_current_head()


def ask(url: str, query: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return sorted(str(row[0]) for row in connection.execute(query.encode()))


def tables(url: str) -> set[str]:
    return set(ask(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))


def leftovers(url: str) -> list[str]:
    """Everything of ours but tables: functions, types, sequences."""
    return ask(
        url,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relname NOT LIKE 'alembic_version%'",
    )


@pytest.fixture(scope="module")
def migrated(new_database: Callable[..., str]) -> str:
    """One migrated database for the tests that only look."""
    return new_database(migrated=True)


def test_up_down_and_up_again(new_database: Callable[..., str]) -> None:
    url = new_database()
    assert runner.current(url) is None
    runner.upgrade(url)
    assert runner.current(url) == HEAD
    assert tables(url) >= SEED_TABLES | {"environments", "nodes", "routes", "approvals", "deployment_events"}
    first = ask(url, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'")
    runner.downgrade(url, "base")
    assert runner.current(url) is None
    assert tables(url) == {"alembic_version"}
    assert leftovers(url) == []
    runner.upgrade(url)
    assert runner.current(url) == HEAD
    assert ask(url, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'") == first
    runner.upgrade(url)
    assert ask(url, "SELECT name FROM environments") == sorted(Environment)


def test_downgrade_works_with_rows_in_every_guarded_table(new_database: Callable[..., str]) -> None:
    url = new_database(migrated=True)
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO audit_logs (event_type, entity_type, entity_id, user_id) VALUES ('a', 'b', 'c', 'd')"
        )
    runner.downgrade(url, "base")
    assert tables(url) == {"alembic_version"}


def test_the_tables_are_what_sqlalchemy_believes(migrated: str) -> None:
    engine = create_engine(engine_url(migrated), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_checks_and_their_names_are_what_sqlalchemy_believes(migrated: str) -> None:
    """Alembic does not compare CHECK constraints, so their names are compared here."""
    believed = {
        constraint.name
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    there = ask(
        migrated,
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace",
    )
    assert there == sorted(str(name) for name in believed)


@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        ("ck_plugins_status", PluginStatus),
        ("ck_plugin_versions_status", VersionStatus),
        ("ck_plugin_deployments_status", DeploymentStatus),
        ("ck_plugin_deployments_strategy", Strategy),
        ("ck_environments_default_strategy", Strategy),
        ("ck_plugin_health_checks_status", Health),
    ],
)
def test_a_check_allows_just_what_the_domain_knows(migrated: str, constraint: str, values: type[StrEnum]) -> None:
    (definition,) = ask(migrated, f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '{constraint}'")
    allowed = set(definition.split("'")[1::2])
    assert allowed == {str(value) for value in values}


def test_no_extension_is_needed(migrated: str) -> None:
    assert ask(migrated, "SELECT extname FROM pg_extension") == ["plpgsql"]


def test_every_instant_carries_a_time_zone(migrated: str) -> None:
    naive = ask(
        migrated,
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type = 'timestamp without time zone'",
    )
    assert naive == []


def test_every_foreign_key_can_be_followed_back_by_an_index(migrated: str) -> None:
    """Deleting a plugin must not read whole tables. Environments are never deleted and need none."""
    bare = ask(
        migrated,
        """
        SELECT conrelid::regclass || '.' || conname FROM pg_constraint c
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND confrelid <> 'environments'::regclass
          AND NOT EXISTS (
            SELECT 1 FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indpred IS NULL AND i.indkey[0] = c.conkey[1])
        """,
    )
    assert bare == []


def test_many_that_migrate_at_once_do_it_once(new_database: Callable[..., str]) -> None:
    url = new_database()
    faults: list[BaseException] = []

    def migrate() -> None:
        try:
            runner.upgrade(url)
        except BaseException as fault:  # noqa: BLE001 - whatever it is, the test below shows it
            faults.append(fault)

    threads = [threading.Thread(target=migrate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert runner.current(url) == HEAD


def test_a_migration_that_fails_leaves_nothing(new_database: Callable[..., str]) -> None:
    url = new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE sandbox_sessions (mine int)")
    with pytest.raises(Exception, match="sandbox_sessions"):
        runner.upgrade(url)
    assert tables(url) == {"sandbox_sessions"}
    assert runner.current(url) is None


def test_an_unknown_revision_is_invalid_input(new_database: Callable[..., str]) -> None:
    with pytest.raises(InvalidInput, match="'nowhere'"):
        runner.upgrade(new_database(), "nowhere")


def test_a_server_that_is_away_is_unavailable_and_its_password_stays_unsaid() -> None:
    with pytest.raises(Unavailable) as caught:
        runner.upgrade("postgresql://u:secret@127.0.0.1:1/db")
    assert "127.0.0.1:1/db" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_there_is_one_head_and_every_revision_goes_both_ways() -> None:
    scripts = ScriptDirectory.from_config(runner.script_config())
    assert len(scripts.get_heads()) == 1
    for revision in scripts.walk_revisions():
        assert callable(revision.module.upgrade)
        assert callable(revision.module.downgrade)


def run(url: str | None, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **variables}
    if url is not None:
        environment["HOTSWAP_POSTGRES__URL"] = url
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "migrations", *arguments],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_migrates_from_any_directory(new_database: Callable[..., str], tmp_path: Path) -> None:
    url = new_database()
    before = run(url, "current")
    assert (before.returncode, before.stdout) == (0, "base\n")
    up = run(url)
    assert (up.returncode, up.stdout) == (0, f"{HEAD}\n")
    assert run(url, "downgrade", "base").stdout == "base\n"
    secret = tmp_path / "url"
    secret.write_text(url + "\n", encoding="utf-8")
    by_file = run(None, "upgrade", HOTSWAP_POSTGRES__URL_FILE=str(secret))
    assert (by_file.returncode, by_file.stdout) == (0, f"{HEAD}\n")


@pytest.mark.parametrize(
    ("url", "variables", "said"),
    [
        (None, {}, "HOTSWAP_POSTGRES__URL is not set"),
        ("sqlite://", {}, "is not a PostgreSQL URL"),
        (None, {"HOTSWAP_POSTGRES__URL_FILE": "/not/there"}, "cannot read /not/there"),
        ("postgresql://u:secret@127.0.0.1:1/db", {}, "does not answer"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(url: str | None, variables: dict[str, str], said: str) -> None:
    done = run(url, **variables)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
