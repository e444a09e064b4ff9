"""The audit in memory: the twin of hotswap.adapters.postgres.audit. Its content is JSON of its own, chained alike."""

import json
from collections.abc import Sequence
from datetime import datetime

from hotswap.adapters import record_rules as rules
from hotswap.adapters import trail_rules
from hotswap.adapters.memory.record_stores import _slice, _Store, _stored
from hotswap.domain.audit import GENESIS, Checkpoint, Seal, SealedEntry, seal_of
from hotswap.domain.registry import AuditEntry, Page
from hotswap.ports.audit import AuditFilter


class MemoryAuditStore(_Store):
    async def append(self, entry: AuditEntry) -> None:
        rules.storable(entry, rules.AUDIT_LIMITS)
        state = await self._transaction.writing()
        row_id = max(state.audit, default=0) + 1
        state.audit[row_id] = kept = _stored(entry)
        last = state.seals[max(state.seals)] if state.seals else None
        position, previous = (last.position + 1, last.hash) if last else (1, GENESIS)
        sealed = seal_of(previous, content_of(row_id, kept))
        state.seals[position] = Seal(position=position, audit_id=row_id, previous_hash=previous, hash=sealed)

    async def list(self, entity_id: str | None, user: str | None, page: Page) -> tuple[Sequence[AuditEntry], int]:
        return await self.find(AuditFilter(entity=entity_id, user=user), page)

    async def find(self, where: AuditFilter, page: Page) -> tuple[Sequence[AuditEntry], int]:
        rules.storable(where, trail_rules.FILTER_LIMITS)
        state = await self._transaction.reading()
        newest = sorted(state.audit.items(), key=lambda row: (row[1].at, row[0]), reverse=True)
        return _slice([entry for _, entry in newest if _matches(entry, where)], page)

    async def sealed(
        self, after: int, limit: int, where: AuditFilter | None = None, *, lost: bool = False
    ) -> Sequence[SealedEntry]:
        state = await self._transaction.reading()
        found = []
        for position in sorted(state.seals):
            seal = state.seals[position]
            entry = state.audit.get(seal.audit_id)
            if position <= after or (entry is None and not lost):
                continue
            if where is not None and (entry is None or not _matches(entry, where)):
                continue
            content = content_of(seal.audit_id, entry) if entry else None
            found.append(SealedEntry(seal=seal, content=content, entry=entry))
        return found[:limit]

    async def unsealed(self) -> int:
        state = await self._transaction.reading()
        return len(set(state.audit) - {seal.audit_id for seal in state.seals.values()})

    async def checkpoints(self) -> Sequence[Checkpoint]:
        return [checkpoint for _, checkpoint in sorted((await self._transaction.reading()).checkpoints.items())]

    async def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        rules.storable(checkpoint, trail_rules.CHECKPOINT_LIMITS)
        state = await self._transaction.writing()
        if checkpoint.previous_signature in {one.previous_signature for one in state.checkpoints.values()}:
            raise trail_rules.checkpoint_taken()
        state.checkpoints[len(state.checkpoints) + 1] = _stored(checkpoint)

    async def last_before(self, instant: datetime, most: int) -> int:
        state = await self._transaction.reading()
        positions = sorted(state.seals)
        old = 0
        for position in positions[:-1][:most]:
            if state.audit[state.seals[position].audit_id].at >= instant:
                break
            old = position
        return old

    async def truncate(self, position: int) -> int:
        state = await self._transaction.writing()
        if max((one.position for one in state.checkpoints.values() if one.truncates), default=0) < position:
            raise trail_rules.not_covered(position)
        gone = [seal for seal in state.seals.values() if seal.position <= position]
        for seal in gone:
            del state.seals[seal.position]
            state.audit.pop(seal.audit_id, None)
        return len(gone)


def content_of(row_id: int, entry: AuditEntry) -> str:
    return json.dumps([row_id, entry.model_dump(mode="json")], sort_keys=True, ensure_ascii=False)


def _matches(entry: AuditEntry, where: AuditFilter) -> bool:
    return (
        where.entity in (None, entry.entity_id)
        and where.entity_type in (None, entry.entity_type)
        and where.event_type in (None, entry.event_type)
        and where.user in (None, entry.user)
        and (where.since is None or entry.at >= where.since)
        and (where.until is None or entry.at < where.until)
    )
