"""One connection in one transaction: the way every store talks to PostgreSQL. unit_of_work opens and ends it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Executable, Row, Select, func
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hotswap.adapters.postgres.faults import translated
from hotswap.domain.errors import HotSwapError
from hotswap.domain.registry import Page

logger = logging.getLogger(__name__)


class Session:
    """Every method raises Unavailable when the server does not answer; then the transaction is lost as a whole."""

    def __init__(self, engine: AsyncEngine, *, reading: bool = False) -> None:
        """`reading`: SELECTs only, each a transaction of its own, on an engine that commits by itself. Under READ COMMITTED
        they see the same, without a BEGIN before and a ROLLBACK after them: two of four trips to the server."""
        self._engine = engine
        self._reading = reading
        self._open: AsyncConnection | None = None

    async def begin(self) -> None:
        with translated():
            self._open = await self._engine.connect()

    async def commit(self) -> None:
        """Raises Unavailable also when the answer to COMMIT was lost: it may or may not have happened."""
        with translated():
            await self._connection.commit()

    async def end(self) -> None:
        """Undo what was not committed and give the connection back. Repeats are fine; a lost connection is no fault."""
        connection, self._open = self._open, None
        if connection is not None:
            # Shielded: a cancelled caller must not leave a connection, and the locks it holds, behind.
            await asyncio.shield(asyncio.ensure_future(_give_back(connection)))

    async def run(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> CursorResult[Any]:
        self._must_not_write(statement)
        with translated():
            return await self._connection.execute(statement, parameters)

    async def run_guarded(
        self, statement: Executable, *, unique: HotSwapError | None = None, foreign: HotSwapError | None = None
    ) -> CursorResult[Any]:
        """Run a statement that may break a constraint; when it does, only it is undone, and the transaction goes on."""
        self._must_not_write(statement)
        with translated(unique=unique, foreign=foreign):
            async with self._connection.begin_nested():
                return await self._connection.execute(statement)

    async def first(self, statement: Executable) -> Row[Any] | None:
        return (await self.run(statement)).first()

    async def all(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[Row[Any]]:
        return (await self.run(statement, parameters)).all()

    async def page(self, statement: Any, page: Page) -> tuple[Sequence[Row[Any]], int]:
        """The slice and the total of an ordered SELECT."""
        rows = await self.all(statement.limit(page.limit).offset(page.offset))
        if len(rows) < page.limit and (rows or page.offset == 0):
            return rows, page.offset + len(rows)  # the last page says how many there are: nothing is left to count
        # Of the statement itself: a subquery would cost more to put together here than to run there.
        total = await self.run(statement.with_only_columns(func.count(), maintain_column_froms=True).order_by(None))
        return rows, total.scalar_one()

    def _must_not_write(self, statement: Executable) -> None:
        if self._reading and not isinstance(statement, Select):
            raise RuntimeError("a unit of work for reading is used for more than SELECT")

    @property
    def _connection(self) -> AsyncConnection:
        if self._open is None:
            raise RuntimeError("a unit of work is used inside `async with` only")
        return self._open


async def _give_back(connection: AsyncConnection) -> None:
    try:
        await connection.close()
    except DBAPIError as fault:
        # The server undid the transaction when it lost us, and SQLAlchemy has thrown the connection away: nothing is left
        # to do, and an error from here would hide the caller's own.
        logger.info("a connection to PostgreSQL was lost: %s", fault.orig)
