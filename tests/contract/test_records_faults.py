"""A PostgreSQL that is away, killed, slow, full or not migrated: always Unavailable, and always over with the next try."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from hotswap.adapters.postgres.database import Database
from hotswap.config import PostgresSettings
from hotswap.domain.errors import Unavailable
from hotswap.domain.registry import Page
from hotswap.ports.records import PluginFilter
from tests.contract.databases import execute
from tests.contract.factories import make_plugin

pytestmark = pytest.mark.stack


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Database]]:
    """Databases with settings of their own, closed at the end."""
    made: list[Database] = []

    def make(url: str, **changes: object) -> Database:
        made.append(Database(PostgresSettings.model_validate({"url": SecretStr(url), **changes})))
        return made[-1]

    yield make
    for database in made:
        await database.close()


def kill_everybody_else(url: str) -> None:
    execute(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


async def test_a_server_that_is_away_is_unavailable(connect: Callable[..., Database]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        database = connect(f"postgresql://u:secret@127.0.0.1:{probe.getsockname()[1]}/db")
        with pytest.raises(Unavailable, match="PostgreSQL") as caught:
            await database.ready()
        assert "secret" not in str(caught.value)
        with pytest.raises(Unavailable):
            async with database.unit_of_work():
                pass


async def test_a_server_that_accepts_and_says_nothing_is_unavailable(connect: Callable[..., Database]) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # libpq takes whole seconds and at least two.
    database = connect(f"postgresql://u@127.0.0.1:{port}/db", connect_timeout=timedelta(seconds=1))
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable):
            await database.ready()
    server.close()
    await server.wait_closed()


async def test_wrong_credentials_and_databases_say_what_is_wrong(
    connect: Callable[..., Database], database_url: str
) -> None:
    there = make_url(database_url)
    for wrong, said in (
        (there.set(database="not_there"), '"not_there" does not exist'),
        (there.set(password="wrong-word"), "password authentication failed"),
    ):
        with pytest.raises(Unavailable, match=said) as caught:
            await connect(wrong.render_as_string(hide_password=False)).ready()
        assert "wrong-word" not in str(caught.value)


async def test_a_database_without_a_schema_says_how_to_get_one(
    connect: Callable[..., Database], new_database: Callable[..., str]
) -> None:
    database = connect(new_database())
    with pytest.raises(Unavailable, match="python -m migrations upgrade"):
        await database.ready()
    async with database.unit_of_work() as uow:
        with pytest.raises(Unavailable, match="python -m migrations upgrade"):
            await uow.plugins.get("any")


async def test_a_migrated_database_is_ready(database: Database) -> None:
    await database.ready()


async def test_a_connection_killed_in_a_transaction_is_unavailable_and_the_next_one_works(
    database: Database, database_url: str
) -> None:
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("lost"))
        kill_everybody_else(database_url)
        with pytest.raises(Unavailable):
            await uow.plugins.get("lost")
        with pytest.raises(Unavailable):
            await uow.commit()
    async with database.unit_of_work() as uow:
        assert await uow.plugins.list(PluginFilter(), Page()) == ([], 0)


async def test_a_connection_killed_before_the_commit_is_unavailable(database: Database, database_url: str) -> None:
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("lost"))
        kill_everybody_else(database_url)
        with pytest.raises(Unavailable):
            await uow.commit()


async def test_connections_killed_in_the_pool_are_replaced_unseen(database: Database, database_url: str) -> None:
    async with database.unit_of_work() as first, database.unit_of_work() as second:
        await first.now()
        await second.now()
    kill_everybody_else(database_url)
    for _ in range(3):
        async with database.unit_of_work() as uow:
            await uow.now()


async def test_an_error_survives_the_loss_of_the_connection(
    connect: Callable[..., Database], database_url: str
) -> None:
    database = connect(database_url, pool_size=1)

    async def fail_inside() -> None:
        async with database.unit_of_work() as uow:
            await uow.now()
            kill_everybody_else(database_url)
            raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        await fail_inside()
    await database.ready()


async def test_a_statement_over_its_time_is_unavailable(connect: Callable[..., Database], database_url: str) -> None:
    database = connect(database_url, statement_timeout=timedelta(milliseconds=100))
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE plugins")
        async with database.unit_of_work() as uow:
            with pytest.raises(Unavailable, match="statement timeout"):
                await uow.plugins.add(make_plugin("late"))
            with pytest.raises(Unavailable, match="given this transaction up"):
                await uow.plugins.get("late")


async def test_a_pool_that_is_used_up_is_unavailable(connect: Callable[..., Database], database_url: str) -> None:
    database = connect(database_url, pool_size=1, connect_timeout=timedelta(seconds=1))
    async with database.unit_of_work():
        with pytest.raises(Unavailable, match="no connection"):
            async with database.unit_of_work():
                pass


async def test_a_deadlock_is_unavailable_for_one_and_harmless_for_the_other(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("a"))
        await uow.plugins.add(make_plugin("b"))
        await uow.commit()
    both_hold_one = asyncio.Barrier(2)

    async def save(first: str, second: str) -> str:
        try:
            async with database.unit_of_work() as uow:
                await uow.plugins.save(make_plugin(first))
                await both_hold_one.wait()
                await uow.plugins.save(make_plugin(second))
                await uow.commit()
        except Unavailable as fault:
            return str(fault)
        return "done"

    outcomes = await asyncio.gather(save("a", "b"), save("b", "a"))
    assert outcomes.count("done") == 1
    assert any("broke a deadlock" in outcome for outcome in outcomes)


async def test_a_cancelled_caller_gives_its_connection_and_its_locks_back(
    connect: Callable[..., Database], database_url: str
) -> None:
    database = connect(database_url, pool_size=1)
    inside = asyncio.Event()

    async def hold() -> None:
        async with database.unit_of_work() as uow:
            await uow.plugins.add(make_plugin("wanted"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("wanted"))
        await uow.commit()


async def test_a_caller_cancelled_in_a_statement_gives_its_connection_back(
    connect: Callable[..., Database], database_url: str
) -> None:
    database = connect(database_url, pool_size=1)

    async def wait_for_the_lock() -> None:
        async with database.unit_of_work() as uow:
            await uow.plugins.add(make_plugin("wanted"))

    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE plugins")
        task = asyncio.create_task(wait_for_the_lock())
        done, _ = await asyncio.wait([task], timeout=0.2)
        assert not done
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with database.unit_of_work() as uow:
        assert await uow.plugins.list(PluginFilter(), Page()) == ([], 0)
