"""The pool of connections to PostgreSQL and the factory of units of work. Built in composition roots only."""

from math import ceil
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from hotswap.adapters.postgres.inspection import PostgresInspection
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import environments
from hotswap.adapters.postgres.tenant_changes import PostgresTenantChanges
from hotswap.adapters.postgres.tenant_settings import PostgresTenantSettings
from hotswap.adapters.postgres.unit_of_work import PostgresUnitOfWork
from hotswap.adapters.postgres.url import engine_url
from hotswap.config import PostgresSettings
from hotswap.ports.tenant_settings import Decrypt, Prepare

_RECYCLE_SECONDS = 1800
"""Connections older than this are replaced, so that a failover or a new password is followed within half an hour."""

_IDLE_IN_TRANSACTION_SECONDS = 60
"""A transaction that stands still this long is ended by the server: it holds locks that others wait for."""


class Database:
    """`database.unit_of_work` is the UnitOfWorkFactory. Nothing connects before it is used; `close` when done."""

    def __init__(self, settings: PostgresSettings) -> None:
        connect_seconds = max(1, ceil(settings.connect_timeout.total_seconds()))
        self._engine = create_async_engine(
            engine_url(settings.url.get_secret_value()),
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=connect_seconds,
            pool_pre_ping=True,
            pool_recycle=_RECYCLE_SECONDS,
            isolation_level="READ COMMITTED",
            hide_parameters=True,  # a fault's text goes to logs; what people stored does not
            connect_args=_connect_args(settings, connect_seconds),
        )
        self._reading_engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")  # of the same pool

    def unit_of_work(self) -> PostgresUnitOfWork:
        return PostgresUnitOfWork(self._engine)

    def reading(self) -> PostgresUnitOfWork:
        """A UnitOfWorkFactory too, of units that only read: cheaper, and a fault in the program when one writes."""
        return PostgresUnitOfWork(self._reading_engine, reading=True)

    def tenant_settings(self, decrypt: Decrypt | None = None, prepare: Prepare | None = None) -> PostgresTenantSettings:
        """A node's view of its tenants' settings. Without `decrypt` nobody has secrets."""
        return PostgresTenantSettings(self._engine, decrypt, prepare)

    def tenant_changes(self) -> PostgresTenantChanges:
        """Tells a node that something about tenants has changed."""
        return PostgresTenantChanges(self._engine)

    def inspection(self) -> PostgresInspection:
        """What the doctor and the backup ask."""
        return PostgresInspection(self._engine)

    async def ready(self) -> None:
        """Raises Unavailable when the server does not answer or has no schema yet; the message says which."""
        session = Session(self._engine)
        await session.begin()
        try:
            await session.run(select(environments.c.name).limit(1))
        finally:
            await session.end()

    async def close(self) -> None:
        """Close every connection. Repeats are fine."""
        await self._engine.dispose()


def _connect_args(settings: PostgresSettings, connect_seconds: int) -> dict[str, Any]:
    statement_ms = int(settings.statement_timeout.total_seconds() * 1000)
    options = [
        f"-c statement_timeout={statement_ms}",
        f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_SECONDS * 1000}",
    ]
    given = engine_url(settings.url.get_secret_value()).query.get("options")
    if isinstance(given, str):
        options.insert(0, given)
    return {
        "connect_timeout": connect_seconds,
        "options": " ".join(options),
        "application_name": "hotswap",
        # A server that vanished without a goodbye (host down, cable cut) is noticed, not waited for.
        "keepalives_idle": connect_seconds,
        "keepalives_interval": connect_seconds,
        "keepalives_count": 2,
        "tcp_user_timeout": statement_ms + 5000,
    }
