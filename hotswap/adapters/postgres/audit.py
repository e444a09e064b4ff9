"""The append-only audit on PostgreSQL, and its hash chain. Implements hotswap.ports.audit.

Nothing here makes a seal: a deferred trigger of the server does, at commit, whoever inserts (migration 0009, ADR 32).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, exists, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters import trail_rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import audit_chain, audit_checkpoints, audit_logs
from hotswap.domain.audit import Checkpoint, Seal, SealedEntry
from hotswap.domain.registry import AuditEntry, Page
from hotswap.ports.audit import AuditFilter

_CONTENT = func.audit_content(literal_column("audit_logs"), audit_chain.c.layout).label("content")


class PostgresAuditStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def append(self, entry: AuditEntry) -> None:
        data = rules.storable(entry, rules.AUDIT_LIMITS)
        await self._session.run(
            insert(audit_logs).values(
                event_type=entry.event_type,
                entity_type=entry.entity_type,
                entity_id=entry.entity_id,
                user_id=entry.user,
                details=data["details"],
                trace_id=entry.trace_id,
                address=entry.address,
                created_at=entry.at,
            )
        )

    async def list(self, entity_id: str | None, user: str | None, page: Page) -> tuple[Sequence[AuditEntry], int]:
        return await self.find(AuditFilter(entity=entity_id, user=user), page)

    async def find(self, where: AuditFilter, page: Page) -> tuple[Sequence[AuditEntry], int]:
        query = _filtered(select(audit_logs), where)
        query = query.order_by(audit_logs.c.created_at.desc(), audit_logs.c.id.desc())
        rows, total = await self._session.page(query, page)
        return [_entry(row) for row in rows], total

    async def sealed(
        self, after: int, limit: int, where: AuditFilter | None = None, *, lost: bool = False
    ) -> Sequence[SealedEntry]:
        joined = audit_chain.join(audit_logs, audit_logs.c.id == audit_chain.c.audit_id, isouter=lost)
        query = select(audit_chain, audit_logs, _CONTENT).select_from(joined)
        if where is not None:
            query = _filtered(query, where)
        query = query.where(audit_chain.c.position > after).order_by(audit_chain.c.position).limit(limit)
        return [_sealed(row) for row in await self._session.all(query)]

    async def unsealed(self) -> int:
        bare = select(audit_logs.c.id).where(~exists().where(audit_chain.c.audit_id == audit_logs.c.id))
        done = await self._session.run(
            select(func.count()).select_from(bare.limit(trail_rules.MOST_UNSEALED).subquery())
        )
        return int(done.scalar_one())

    async def checkpoints(self) -> Sequence[Checkpoint]:
        rows = await self._session.all(select(audit_checkpoints).order_by(audit_checkpoints.c.checkpoint_id))
        return [_checkpoint(row) for row in rows]

    async def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        rules.storable(checkpoint, trail_rules.CHECKPOINT_LIMITS)
        await self._session.run_guarded(
            insert(audit_checkpoints).values(**dict(checkpoint)), unique=trail_rules.checkpoint_taken()
        )

    async def last_before(self, instant: datetime, most: int) -> int:
        ends = await self._session.run(
            select(func.min(audit_chain.c.position).label("first"), func.max(audit_chain.c.position).label("last"))
        )
        row = ends.one()
        if row.first is None:
            return 0
        first, last = int(row.first), int(row.last)
        young = await self._session.run(
            select(audit_chain.c.position)
            .join(audit_logs, audit_logs.c.id == audit_chain.c.audit_id)
            .where(audit_logs.c.created_at >= instant, audit_chain.c.position < first + most)
            .order_by(audit_chain.c.position)
            .limit(1)
        )
        stays = young.scalar_one_or_none()
        # The last seal always stays: the next one follows it.
        until = min(first + most, last) if stays is None else min(stays, last)
        return max(int(until) - 1, 0) if until > first else 0

    async def truncate(self, position: int) -> int:
        covered = await self._session.run(
            select(func.max(audit_checkpoints.c.position)).where(audit_checkpoints.c.truncates)
        )
        if (covered.scalar_one() or 0) < position:
            raise trail_rules.not_covered(position)
        gone = select(audit_chain.c.audit_id).where(audit_chain.c.position <= position)
        done = await self._session.run(delete(audit_logs).where(audit_logs.c.id.in_(gone)))
        await self._session.run(delete(audit_chain).where(audit_chain.c.position <= position))
        return int(done.rowcount)


def _filtered(query: Select[Any], where: AuditFilter) -> Select[Any]:
    rules.storable(where, trail_rules.FILTER_LIMITS)
    for column, value in (
        (audit_logs.c.entity_id, where.entity),
        (audit_logs.c.entity_type, where.entity_type),
        (audit_logs.c.event_type, where.event_type),
        (audit_logs.c.user_id, where.user),
    ):
        if value is not None:
            query = query.where(column == value)
    if where.since is not None:
        query = query.where(audit_logs.c.created_at >= where.since)
    if where.until is not None:
        query = query.where(audit_logs.c.created_at < where.until)
    return query


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        event_type=row.event_type,
        entity_type=row.entity_type,
        entity_id=row.entity_id,
        user=row.user_id,
        details=row.details,
        trace_id=row.trace_id,
        address=row.address,
        at=row.created_at,
    )


def _sealed(row: Row[Any]) -> SealedEntry:
    seal = Seal(position=row.position, audit_id=row.audit_id, previous_hash=row.previous_hash, hash=row.hash)
    there = row.id is not None  # else the content is that of nothing: an array of nulls
    return SealedEntry(seal=seal, content=row.content if there else None, entry=_entry(row) if there else None)


def _checkpoint(row: Row[Any]) -> Checkpoint:
    return Checkpoint.model_validate({key: value for key, value in row._mapping.items() if key != "checkpoint_id"})
