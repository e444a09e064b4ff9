"""PostgreSQL to files and back: COPY of each table in one snapshot, and into a schema that the migrations made. Blocks.

No pg_dump: it must be of the server's version and is on few machines. The schema comes from migrations/, so a backup of an
older release is loaded at its own revision and then migrated like any database.
"""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from hotswap.adapters.postgres.url import without_password
from hotswap.backup import manifest as files
from hotswap.backup.manifest import NeededKeys, TableFile, sha256_of
from hotswap.domain.base import Model
from hotswap.domain.errors import Conflict, InvalidInput, Unavailable

LEFT_OUT = frozenset({"alembic_version", "nodes"})
"""The revision is in the manifest; nodes say themselves that they live, and one of a backup would be a dead one."""

TELLING = ("plugins", "plugin_deployments", "routes", "users", "tenant_plugin_configs", "audit_logs")
"""Tables that hold rows in every installation that somebody used."""

CONNECT_SECONDS = 10

# What COPY writes must read the same on every server.
_PORTABLE = "SET client_encoding = 'UTF8'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'"


class Dump(Model):
    """What `dump` wrote, and what the same snapshot says besides."""

    taken_at: datetime
    schema_revision: str
    postgres: int
    tables: tuple[TableFile, ...]
    sequences: tuple[files.Sequence, ...]
    needed_keys: NeededKeys
    artifacts: tuple[tuple[str, str, int], ...]
    """(key, digest, bytes) of every artifact that the registry has."""


def dump(url: str, directory: Path) -> Dump:
    """Write every table as of one moment. Raises Unavailable, and InvalidInput for a database without our schema."""
    (directory / files.TABLES).mkdir(mode=0o700)
    with _connected(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # The first statement takes the snapshot that all that follow read.
        taken_at, number = _one(connection, "SELECT clock_timestamp(), current_setting('server_version_num')::int")
        if _one(connection, "SELECT to_regclass('alembic_version')") == (None,):
            raise InvalidInput(f"{without_password(url)} has no schema of HotSwap: there is nothing to back up")
        (revision,) = _one(connection, "SELECT version_num FROM alembic_version")
        tables = tuple(_copy_out(connection, name, directory) for name in _in_order(connection))
        return Dump(
            taken_at=taken_at,
            schema_revision=revision,
            postgres=number // 10_000,
            tables=tables,
            sequences=_sequences(connection),
            needed_keys=_needed_keys(connection),
            artifacts=tuple(
                connection.execute(
                    "SELECT DISTINCT binary_path, checksum, binary_size FROM plugin_versions"
                    " WHERE artifact_removed_at IS NULL ORDER BY 1"
                )
            ),
        )


def load(url: str, directory: Path, manifest: files.Manifest) -> None:
    """Fill the tables in one transaction: all of it, or nothing. The schema is at the manifest's revision, its rows go.

    Triggers rest meanwhile: entries of the audit keep the seals they had. Foreign keys and checks hold as ever.
    """
    with _connected(url) as connection:
        present = {name: set(_columns(connection, name)) for name in _in_order(connection)}
        names = [table.name for table in manifest.tables]
        if set(names) != set(present):
            raise InvalidInput(
                f"the backup has the tables {sorted(names)}, the schema {manifest.schema_revision} of this release has "
                f"{sorted(present)}: restore it with the release that made it (HotSwap {manifest.hotswap})"
            )
        # Named too, though nothing of them is restored: they point at tables that are emptied.
        every = _identifiers([*names, *sorted(LEFT_OUT - {"alembic_version"})])
        for name in names:
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(name)))
        connection.execute(sql.SQL("TRUNCATE {}").format(every))
        for table in manifest.tables:
            _copy_in(connection, table, directory)
        for sequence in manifest.sequences:
            connection.execute("SELECT setval(%s, %s, %s)", (sequence.name, sequence.last_value, sequence.is_called))
        if manifest.gone:
            connection.execute(
                "UPDATE plugin_versions SET artifact_removed_at = %s WHERE binary_path = ANY(%s)",
                (manifest.taken_at, list(manifest.gone)),
            )
        for name in names:
            connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(sql.Identifier(name)))


def removed_meanwhile(url: str, keys: list[str]) -> set[str]:
    """Of these artifacts, those that the registry says retention has taken away."""
    with _connected(url) as connection:
        rows = connection.execute(
            "SELECT binary_path FROM plugin_versions WHERE artifact_removed_at IS NOT NULL AND binary_path = ANY(%s)",
            (keys,),
        )
        return {row[0] for row in rows}


def check_target(url: str) -> bool:
    """Whether the database has a schema of ours already. Raises Conflict, with the remedy, when somebody uses or used it."""
    where = without_password(url)
    with _connected(url) as connection:
        (others,) = _one(
            connection,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hotswap'",
        )
        if others:
            raise Conflict(
                f"{others} sessions of HotSwap are connected to {where}: stop api, workers and nodes first, or the old and "
                "the restored record mix"
            )
        if _one(connection, "SELECT to_regclass('alembic_version')") == (None,):
            return False
        held = []
        present = set(_in_order(connection))
        for table in TELLING:
            if table in present:
                (some,) = _one(connection, sql.SQL("SELECT EXISTS (SELECT 1 FROM {})").format(sql.Identifier(table)))
                held += [table] if some else []
        if held:
            raise Conflict(
                f"{where} is not empty (it has {', '.join(held)}): restore into an empty database, or give --force, which "
                "DESTROYS what is there"
            )
        return True


def _copy_out(connection: psycopg.Connection, name: str, directory: Path) -> TableFile:
    columns = _columns(connection, name)
    path = directory / files.TABLES / f"{name}.copy.gz"
    statement = sql.SQL("COPY {} ({}) TO STDOUT").format(sql.Identifier(name), _identifiers(columns))
    # No name and no time in the file: the same rows give the same bytes. Level 1: the network is the slower part.
    with (
        os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as file,
        connection.cursor() as cursor,
    ):
        with cursor.copy(statement) as copy:
            for chunk in copy:
                file.write(chunk)
        rows = cursor.rowcount
    return TableFile(name=name, columns=tuple(columns), rows=rows, sha256=sha256_of(path))


def _copy_in(connection: psycopg.Connection, table: TableFile, directory: Path) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), _identifiers(table.columns))
    with gzip.open(directory / table.path, "rb") as file, connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            while chunk := file.read(1024 * 1024):
                copy.write(chunk)
        if cursor.rowcount != table.rows:
            raise InvalidInput(f"{table.path} holds {cursor.rowcount} rows, its manifest says {table.rows}")


def _in_order(connection: psycopg.Connection) -> list[str]:
    """Our tables, each after those that its foreign keys name."""
    names = [
        row[0]
        for row in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY 1"
        )
        if row[0] not in LEFT_OUT
    ]
    needs: dict[str, set[str]] = {name: set() for name in names}
    for child, parent in connection.execute(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
    ):
        if child in needs and parent in needs and child != parent:
            needs[child].add(parent)
    ordered: list[str] = []
    while left := [name for name in names if name not in ordered]:
        ready = [name for name in left if needs[name] <= set(ordered)]
        if not ready:
            raise InvalidInput(f"the foreign keys of {', '.join(left)} form a circle: they cannot be loaded in order")
        ordered += ready
    return ordered


def _columns(connection: psycopg.Connection, name: str) -> list[str]:
    """Those that are stored, not computed."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attgenerated = '' ORDER BY attnum",
        (name,),
    )
    return [row[0] for row in rows]


def _sequences(connection: psycopg.Connection) -> tuple[files.Sequence, ...]:
    """Read after the tables: a sequence runs ahead of every snapshot, never behind."""
    names = [
        row[0]
        for row in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'S' ORDER BY 1"
        )
    ]
    found = []
    for name in names:
        row = connection.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(name))
        ).fetchone()
        assert row is not None
        found.append(files.Sequence(name=name, last_value=row[0], is_called=row[1]))
    return tuple(found)


def _needed_keys(connection: psycopg.Connection) -> NeededKeys:
    sealed = connection.execute("SELECT DISTINCT sealed_by FROM signing_keys ORDER BY 1").fetchall()
    wrapped = connection.execute("SELECT DISTINCT wrapped_by FROM tenant_data_keys ORDER BY 1").fetchall()
    return NeededKeys(key_encryption=tuple(row[0] for row in sealed), wrapping=tuple(row[0] for row in wrapped))


def _identifiers(names: tuple[str, ...] | list[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _one(connection: psycopg.Connection, statement: LiteralString | sql.Composed) -> tuple[Any, ...]:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    """One transaction, without the statement timeout of the services: a table may take minutes."""
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS, application_name="hotswap-backup") as connection:
            connection.execute(_PORTABLE)
            connection.commit()
            yield connection
    except psycopg.OperationalError as fault:
        raise Unavailable(
            f"PostgreSQL at {without_password(url)} does not answer or gave up: {_said(fault)}"
        ) from fault
    except psycopg.errors.UndefinedTable as fault:
        raise InvalidInput(
            f"the schema of {without_password(url)} is older than this release can back up ({_said(fault)}): use the "
            "release that made it, or run `python -m migrations upgrade` first"
        ) from fault
    except psycopg.errors.InsufficientPrivilege as fault:
        raise InvalidInput(
            f"{fault.diag.message_primary}: back up and restore as the owner of HotSwap's tables "
            "(the user of HOTSWAP_POSTGRES__URL that ran the migrations)"
        ) from fault
    except (psycopg.IntegrityError, psycopg.DataError) as fault:
        raise InvalidInput(f"the rows do not fit the schema, nothing was restored: {_said(fault)}") from fault


def _said(fault: psycopg.Error) -> str:
    return (fault.diag.message_primary or str(fault)).strip()[:300]
