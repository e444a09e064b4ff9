"""Moves a PostgreSQL schema between revisions. Used by `python -m migrations`, the embedded stack and the tests.

The scripts are found beside this file, so neither an alembic.ini nor a working directory matters. One call is one
transaction under an advisory lock: it happens whole or not at all, and concurrent callers wait for one another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from hotswap.adapters.postgres.url import engine_url, without_password
from hotswap.domain.errors import InvalidInput, Unavailable

MIGRATION_LOCK = 0x686F7473776170
"""Key of the advisory lock ("hotswap" in ASCII): whoever holds it migrates, everybody else waits."""

CONNECT_TIMEOUT_SECONDS = 10
"""A server that has not answered by then counts as away; a repeat helps."""


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema up to `revision`; nothing happens when it is there already.

    `url` reads postgresql://user:password@host:port/database. Raises Unavailable when the server does not answer
    (a repeat helps) and InvalidInput for a revision that does not exist (a repeat cannot help).
    """
    with _locked(url) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to `revision` ("base" = empty). DESTROYS the data that the older schema cannot hold.

    Raises Unavailable and InvalidInput as `upgrade` does.
    """
    with _locked(url) as connection:
        command.downgrade(_config(connection), revision)


def current(url: str) -> str | None:
    """The revision the schema is at, or None for a database without one. Raises Unavailable."""
    with _connected(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """The revision that this release's code is written for."""
    newest = ScriptDirectory.from_config(script_config()).get_current_head()
    assert newest is not None
    return newest


def knows(revision: str) -> bool:
    """Whether this release has a migration of that name; a newer release's it has not."""
    try:
        return ScriptDirectory.from_config(script_config()).get_revision(revision) is not None
    except CommandError:
        return False


def script_config() -> Config:
    """Alembic's configuration without a file: where the scripts are. For tools that read them, such as the tests."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _config(connection: Connection) -> Config:
    config = script_config()
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """One connection, one transaction, no pool: this runs once and is gone."""
    engine = create_engine(
        engine_url(url), poolclass=NullPool, connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    )
    try:
        with engine.begin() as connection:
            yield connection
    except OperationalError as fault:
        raise Unavailable(f"PostgreSQL at {without_password(url)} does not answer: {fault.orig}") from fault
    except CommandError as fault:
        raise InvalidInput(f"the schema cannot be moved there: {fault}") from fault
    finally:
        engine.dispose()


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    with _connected(url) as connection:
        # Released by the end of the transaction, also when this process is killed.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        yield connection
