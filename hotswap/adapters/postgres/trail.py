"""What was answered, on PostgreSQL: the answers to Idempotency-Keys. Neighbour: hotswap.adapters.postgres.audit."""

from datetime import datetime

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import idempotency_keys
from hotswap.ports.records import StoredAnswer

_SWEEP = 100
"""Expired answers that one `keep` sweeps away at most: it bounds what a request pays for tidiness."""


class PostgresIdempotencyStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, user: str, operation: str, key: str) -> StoredAnswer | None:
        rules.check_idempotency_key(user, operation, key)
        row = await self._session.first(
            select(idempotency_keys.c.request_hash, idempotency_keys.c.status_code, idempotency_keys.c.body).where(
                idempotency_keys.c.user_id == user,
                idempotency_keys.c.operation == operation,
                idempotency_keys.c.key == key,
                idempotency_keys.c.created_at >= _oldest(),
            )
        )
        return None if row is None else StoredAnswer.model_validate(row._asdict())

    async def keep(self, user: str, operation: str, key: str, answer: StoredAnswer) -> None:
        rules.check_idempotency_key(user, operation, key)
        data = rules.storable(answer, {"requestHash": rules.HASH})
        expired = (
            select(idempotency_keys.c.user_id, idempotency_keys.c.operation, idempotency_keys.c.key)
            .where(idempotency_keys.c.created_at < _oldest())
            .limit(_SWEEP)
            .with_for_update(skip_locked=True)
        )
        row = insert(idempotency_keys).values(
            user_id=user,
            operation=operation,
            key=key,
            request_hash=answer.request_hash,
            status_code=answer.status_code,
            body=data["body"],
        )
        # The first answer stays, unless it has expired and only waited to be swept.
        await self._session.run(
            row.on_conflict_do_update(
                index_elements=["user_id", "operation", "key"],
                set_={
                    "request_hash": row.excluded.request_hash,
                    "status_code": row.excluded.status_code,
                    "body": row.excluded.body,
                    "created_at": func.clock_timestamp(),
                },
                where=idempotency_keys.c.created_at < _oldest(),
            )
        )
        await self._session.run(
            delete_from(idempotency_keys).where(
                tuple_(idempotency_keys.c.user_id, idempotency_keys.c.operation, idempotency_keys.c.key).in_(expired)
            )
        )


def _oldest() -> ColumnElement[datetime]:
    return func.clock_timestamp() - rules.IDEMPOTENCY_KEPT
