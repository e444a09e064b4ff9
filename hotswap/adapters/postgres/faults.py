"""The one place where PostgreSQL's faults become ours. hotswap.adapters.postgres.session runs every statement inside it.

By SQLSTATE class (PostgreSQL manual, appendix A): what a repeat can mend is Unavailable, what the sender must mend is
InvalidInput or Conflict, and a bug of ours (a wrong statement) stays what it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hotswap.domain.errors import Conflict, HotSwapError, InvalidInput, NotFound, Unavailable

_REPEAT_HELPS = {
    "25006": "is read-only now (a failover?)",
    "25P02": "has given this transaction up already",
    "25P03": "closed a transaction that stood idle for too long",
    "40001": "could not serialise this transaction",
    "40P01": "broke a deadlock by undoing this transaction",
    "42P01": "has an older schema than this program: run `python -m migrations upgrade`",
    "42703": "has an older schema than this program: run `python -m migrations upgrade`",
    "55P03": "did not grant a lock in time",
    "57014": "took longer than the statement timeout",
}
_REPEAT_HELPS_BY_CLASS = {
    "08": "lost the connection",
    "53": "is out of resources",
    "57": "is stopping or starting",
    "58": "has trouble with its disk",
}
_UNIQUE, _FOREIGN = "23505", "23503"


@contextmanager
def translated(*, unique: HotSwapError | None = None, foreign: HotSwapError | None = None) -> Iterator[None]:
    """Run the block; raise Unavailable, Conflict, NotFound or InvalidInput in place of the driver's own errors.

    `unique` and `foreign` say it in the caller's words when that constraint is broken.
    """
    try:
        yield
    except DBAPIError as fault:
        ours = _ours(fault, unique, foreign)
        if ours is None:
            raise
        raise ours from fault
    except PoolTimeout as fault:
        raise Unavailable(f"no connection to PostgreSQL became free in time: {fault}") from fault
    except PendingRollbackError as fault:
        raise Unavailable("the connection to PostgreSQL was lost in this transaction; begin it again") from fault


def _ours(fault: DBAPIError, unique: HotSwapError | None, foreign: HotSwapError | None) -> HotSwapError | None:
    driver = fault.orig
    if not isinstance(driver, psycopg.Error):
        return None
    state = driver.sqlstate or ""
    said = driver.diag.message_primary or str(driver)
    if state in _REPEAT_HELPS:
        return Unavailable(f"PostgreSQL {_REPEAT_HELPS[state]}: {said}")
    if state[:2] in _REPEAT_HELPS_BY_CLASS:
        return Unavailable(f"PostgreSQL {_REPEAT_HELPS_BY_CLASS[state[:2]]}: {said}")
    if fault.connection_invalidated or (
        not state and isinstance(driver, psycopg.OperationalError | psycopg.InterfaceError)
    ):
        return Unavailable(f"PostgreSQL does not answer: {said}")
    if state == _UNIQUE:
        return unique or Conflict(f"it is there already: {driver.diag.message_detail or said}")
    if state == _FOREIGN:
        return foreign or NotFound(f"it names something that does not exist: {driver.diag.message_detail or said}")
    if state.startswith(("22", "23", "54")) or isinstance(driver, psycopg.DataError):
        return InvalidInput(f"cannot be stored: {said}")
    return None
