"""Hears of changes to tenant_plugin_configs by LISTEN: hotswap.ports.tenant_changes. A trigger (migration 0008) tells.

One connection beside the pool for each node, and nothing to poll. A server that vanished without a goodbye is noticed by
a question every PING_SECONDS.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from hotswap.domain.errors import Unavailable

CHANNEL = "hotswap_tenants"
CONNECT_SECONDS = 10.0
PING_SECONDS = 30.0


class PostgresTenantChanges:
    """Connects as the engine does."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[None]]:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await AsyncConnection.connect(
                    self._url, autocommit=True, application_name="hotswap tenant changes"
                )
                await connection.execute(f"LISTEN {CHANNEL}".encode())
        except (psycopg.Error, TimeoutError, OSError) as fault:
            raise Unavailable(f"PostgreSQL does not let us listen: {type(fault).__name__}") from None
        try:
            yield self._changes(connection)
        finally:
            await asyncio.shield(connection.close())

    async def _changes(self, connection: AsyncConnection) -> AsyncIterator[None]:
        while True:
            try:
                heard = False
                async for _ in connection.notifies(timeout=PING_SECONDS, stop_after=1):
                    heard = True
                async for _ in connection.notifies(timeout=0):
                    pass  # more of the same: one look sees them all
                if not heard:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        await connection.execute("SELECT 1")
            except (psycopg.Error, TimeoutError, OSError) as fault:
                raise Unavailable(f"listening to PostgreSQL ended: {type(fault).__name__}") from None
            if heard:
                yield
