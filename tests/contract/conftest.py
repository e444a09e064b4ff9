"""Subjects of the record contract: the PostgreSQL adapter on a database of its own, and its in-memory twin."""

from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr

from hotswap.adapters.memory.records import MemoryRecords
from hotswap.adapters.postgres.database import Database
from hotswap.config import PostgresSettings
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.databases import empty


@pytest.fixture(scope="session")
def records_url(new_database: Callable[..., str]) -> str:
    """A migrated database for this worker's contract tests alone, so that lists can be compared whole."""
    return new_database(migrated=True)


@pytest.fixture
def database_url(records_url: str) -> str:
    """The same, emptied for this test."""
    empty(records_url)
    return records_url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(PostgresSettings(url=SecretStr(database_url), pool_size=30))
    yield database
    await database.close()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.stack)])
async def unit_of_work(request: pytest.FixtureRequest) -> AsyncIterator[UnitOfWorkFactory]:
    if request.param == "memory":
        yield MemoryRecords().unit_of_work
        return
    url: str = request.getfixturevalue("database_url")
    database = Database(PostgresSettings(url=SecretStr(url), pool_size=30))
    yield database.unit_of_work
    await database.close()
