"""The audit for Admins: look through, export, verify the hash chain, sign checkpoints, truncate behind one.

Every read goes in short transactions by position, so that a long export or verification holds nothing up.
Neighbours: hotswap.domain.audit checks, hotswap.ports.audit keeps; the chain itself is the database's work (ADR 32).
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from api.schemas.audit import AuditWhere, CheckpointIn, CheckpointOut, VerifyQuery
from api.services.actor import Actor
from api.services.plugins import entry
from hotswap.config_trail import AuditSettings
from hotswap.domain.audit import (
    ChainCheck,
    ChainReport,
    Checkpoint,
    Head,
    SealedEntry,
    check_checkpoints,
    sign,
)
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput
from hotswap.domain.registry import AuditEntry, Page
from hotswap.ports.audit import AuditFilter
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory

BATCH = 500
MOST_VERIFIED = 20_000
"""Entries of one verification request, 1 to 3 s of work; the caller goes on behind its head."""

MOST_TRUNCATED = 20_000
"""Entries that one request takes away: a transaction of about a second."""


class AuditService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, settings: AuditSettings) -> None:
        self._unit_of_work = unit_of_work
        self._settings = settings

    async def list(self, where: AuditWhere, page: Page) -> tuple[Sequence[AuditEntry], int]:
        """Newest first."""
        async with self._unit_of_work() as uow:
            return await uow.audit.find(_filter(where), page)

    async def export(self, where: AuditWhere, actor: Actor) -> AsyncIterator[bytes]:
        """NDJSON in the chain's order, each line with its seal; the last line says that it is whole. Audited."""
        filters = _filter(where)
        async with self._unit_of_work() as uow:
            details = {"filters": filters.model_dump(mode="json", exclude_none=True)}
            await uow.audit.append(entry("audit.exported", "audit", "audit", actor, await uow.now(), details))
            await uow.commit()
        return self._lines(filters)

    async def _lines(self, filters: AuditFilter) -> AsyncIterator[bytes]:
        after, count, last = 0, 0, Head()
        while True:
            async with self._unit_of_work() as uow:
                sealed = await uow.audit.sealed(after, BATCH, filters)
            if sealed:
                yield b"".join(_line(_exported(one)) for one in sealed)
                after, count = sealed[-1].seal.position, count + len(sealed)
                last = Head(position=after, hash=sealed[-1].seal.hash)
            if len(sealed) < BATCH:
                yield _line({"trailer": {"entries": count, "head": last.model_dump(mode="json")}})
                return

    async def verify(self, query: VerifyQuery) -> ChainReport:
        """Follow the chain from its beginning (or behind `after`), at most MOST_VERIFIED entries. Raises InvalidInput, Conflict."""
        if (query.expect_position is None) != (query.expect_hash is None):
            missing = "expectHash" if query.expect_hash is None else "expectPosition"
            raise InvalidInput(f"{missing}: is needed too", [FieldFault(missing, "is needed too; a head has both")])
        async with self._unit_of_work() as uow:
            checkpoints = await uow.audit.checkpoints()
        base = _base(checkpoints)
        start = base
        if query.after:
            start = Head(position=query.after, hash=query.hash or await self._hash_at(query.after, base))
        check = ChainCheck(start)
        if not query.after:
            for fault in check_checkpoints(checkpoints, self._keys()):
                check.fault(fault)
        expected = [Head(position=one.position, hash=one.hash) for one in checkpoints]
        if query.expect_position is not None and query.expect_hash is not None:
            expected.append(Head(position=query.expect_position, hash=query.expect_hash))
        complete = await self._follow(check, expected, MOST_VERIFIED)
        if complete:
            await self._check_end(check, expected, base)
        return ChainReport(
            intact=not check.faults,
            entries=check.entries,
            first=check.first,
            head=check.head,
            complete=complete,
            checkpoints=len(checkpoints),
            faults=check.faults,
        )

    async def _follow(self, check: ChainCheck, expected: Sequence[Head], most: int) -> bool:
        """Whether the end was reached."""
        while check.entries < most:
            async with self._unit_of_work() as uow:
                sealed = await uow.audit.sealed(check.head.position, BATCH, lost=True)
            check.follow(sealed, expected)
            if len(sealed) < BATCH:
                return True
        return False

    async def _check_end(self, check: ChainCheck, expected: Sequence[Head], base: Head) -> None:
        async with self._unit_of_work() as uow:
            bare = await uow.audit.unsealed()
            if _base(await uow.audit.checkpoints()) != base:
                raise Conflict("the audit was truncated in this moment; verify it again")
        if bare:
            check.fault(f"{bare} entries have no seal: they were written past the chain")
        for place in expected:
            if place.position > check.head.position:
                check.fault(f"the chain ends at {check.head.position}, but it had reached {place.position}: cut off")
            elif place.position == base.position and place.hash != base.hash:
                check.fault(f"position {place.position}: the checkpoint's hash is not what was known")

    async def _hash_at(self, position: int, base: Head) -> str:
        if position == base.position:
            return base.hash
        async with self._unit_of_work() as uow:
            sealed = await uow.audit.sealed(position - 1, 1, lost=True)
        if not sealed or sealed[0].seal.position != position:
            why = f"there is no position {position} in the chain"
            raise InvalidInput(f"after: {why}", [FieldFault("after", why)])
        return sealed[0].seal.hash

    async def checkpoints(self) -> Sequence[Checkpoint]:
        """Oldest first."""
        async with self._unit_of_work() as uow:
            return await uow.audit.checkpoints()

    async def checkpoint(self, wanted: CheckpointIn, actor: Actor) -> CheckpointOut:
        """Sign where the chain ends; with `truncateBefore`, sign where its old part ends and take that away.

        What is signed was verified first. Raises Conflict (no key, the chain is broken), InvalidInput (too young).
        """
        if self._settings.signing_key is None:
            raise Conflict("checkpoints are signed: set HOTSWAP_AUDIT__SIGNING_KEY (docs/audit.md), then repeat")
        async with self._unit_of_work() as uow:
            checkpoints = await uow.audit.checkpoints()
            now = await uow.now()
            position = 0
            if wanted.truncate_before is not None:
                if wanted.truncate_before > now - self._settings.keep_at_least:
                    why = f"is younger than {self._settings.keep_at_least.days} days (HOTSWAP_AUDIT__KEEP_AT_LEAST)"
                    raise InvalidInput(f"truncateBefore: {why}", [FieldFault("truncateBefore", why)])
                position = await uow.audit.last_before(wanted.truncate_before, MOST_TRUNCATED)
                if not position:
                    raise Conflict(f"no entry at the chain's beginning is older than {wanted.truncate_before}")
        head = await self._verified(checkpoints, position)
        signed = sign(
            Checkpoint(
                position=head.position,
                hash=head.hash,
                truncates=bool(position),
                entries_before=wanted.truncate_before,
                reason=wanted.reason,
                created_by=actor.user,
                created_at=now,
                previous_signature=checkpoints[-1].signature if checkpoints else "",
            ),
            self._settings.signing_key.get_secret_value(),
        )
        async with self._unit_of_work() as uow:
            removed, more = await self._keep(uow, signed, actor)
            await uow.commit()
        return CheckpointOut(checkpoint=signed, removed=removed, more=more)

    async def _keep(self, uow: UnitOfWork, signed: Checkpoint, actor: Actor) -> tuple[int, bool]:
        """The checkpoint's own entry is in the chain: whoever takes the checkpoint away breaks that too."""
        await uow.audit.add_checkpoint(signed)
        removed = await uow.audit.truncate(signed.position) if signed.truncates else 0
        more = signed.entries_before is not None and bool(await uow.audit.last_before(signed.entries_before, 1))
        event = "audit.truncated" if signed.truncates else "audit.checkpointed"
        details: dict[str, Any] = {
            "reason": signed.reason,
            "position": signed.position,
            "hash": signed.hash,
            "removed": removed,
            "signature": signed.signature,
        }
        await uow.audit.append(entry(event, "audit", "audit", actor, signed.created_at, details))
        return removed, more

    async def _verified(self, checkpoints: Sequence[Checkpoint], position: int) -> Head:
        """The head (0) or the place to sign, with everything behind the last signed place verified."""
        known = [Head(position=one.position, hash=one.hash) for one in checkpoints]
        base = _base(checkpoints)
        start = base if position else max([base, *known], key=lambda place: place.position)
        check = ChainCheck(start)
        for fault in check_checkpoints(checkpoints, self._keys()):
            check.fault(fault)
        done = False
        while not done and not check.faults and (not position or check.head.position < position):
            most = min(BATCH, position - check.head.position) if position else BATCH
            async with self._unit_of_work() as uow:
                sealed = await uow.audit.sealed(check.head.position, most, lost=True)
            check.follow(sealed, known)
            done = len(sealed) < most
        if check.faults:
            raise Conflict(f"nothing was signed, the chain is broken: {check.faults[0]}; see GET /audit-logs/verify")
        if not check.head.position:
            raise Conflict("the audit is empty; there is nothing to sign")
        return check.head

    def _keys(self) -> tuple[str, ...]:
        keys = [self._settings.signing_key, *self._settings.former_keys]
        return tuple(key.get_secret_value() for key in keys if key is not None)


def _base(checkpoints: Sequence[Checkpoint]) -> Head:
    """Where the chain that is kept begins: behind the last truncation."""
    cut = [one for one in checkpoints if one.truncates]
    last = max(cut, key=lambda one: one.position, default=None)
    return Head(position=last.position, hash=last.hash) if last else Head()


def _filter(where: AuditWhere) -> AuditFilter:
    return AuditFilter(
        entity=where.entity,
        entity_type=where.entity_type,
        event_type=where.event_type,
        user=where.user,
        since=where.since,
        until=where.until,
    )


def _exported(one: SealedEntry) -> dict[str, Any]:
    assert one.entry is not None  # `lost` was not asked for
    return {
        "position": one.seal.position,
        "previousHash": one.seal.previous_hash,
        "hash": one.seal.hash,
        "content": one.content,
        "entry": one.entry.model_dump(mode="json"),
    }


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
