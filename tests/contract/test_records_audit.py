"""One contract for the audit's filters, its hash chain and its checkpoints: PostgreSQL and its in-memory twin.

At the end what only a server shows: seals whoever writes, one chain under many writers, guards against its own owner.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from alembic.script import ScriptDirectory

from hotswap.adapters.postgres.database import Database
from hotswap.domain.audit import GENESIS, ChainCheck, Checkpoint, Head, SealedEntry, seal_of, sign
from hotswap.domain.errors import Conflict, InvalidInput
from hotswap.domain.registry import AuditEntry, Page
from hotswap.ports.audit import AuditFilter
from hotswap.ports.records import UnitOfWorkFactory
from migrations import runner
from tests.contract.databases import execute
from tests.contract.factories import EPOCH, make_audit


async def append(unit_of_work: UnitOfWorkFactory, *entries: AuditEntry) -> None:
    async with unit_of_work() as uow:
        for entry in entries:
            await uow.audit.append(entry)
        await uow.commit()


async def chain(unit_of_work: UnitOfWorkFactory, after: int = 0) -> list[SealedEntry]:
    async with unit_of_work() as uow:
        return list(await uow.audit.sealed(after, 1000, lost=True))


def checked(sealed: list[SealedEntry], start: Head | None = None) -> ChainCheck:
    check = ChainCheck(start or Head())
    check.follow(sealed)
    return check


def checkpoint(position: int, hash_: str, previous: str = "", **more: object) -> Checkpoint:
    given = {"position": position, "hash": hash_, "created_by": "admin", "created_at": EPOCH, "reason": "x"} | more
    return sign(Checkpoint(previous_signature=previous, **given), "k" * 32)


async def test_every_entry_is_sealed_to_the_one_before(unit_of_work: UnitOfWorkFactory) -> None:
    hostile = {"reason": 'a"b\\c\n\u2028🚀', "n": [1, 2.5, 1e22, -0.0, None, True], "z": {"b": 1, "a": {}}, "": ""}
    first, second = make_audit(details=hostile, address="::1", trace_id="t"), make_audit(at=EPOCH - timedelta(days=1))
    await append(unit_of_work, first, second)
    await append(unit_of_work, make_audit(user="zoë"))
    sealed = await chain(unit_of_work)
    assert [one.seal.position for one in sealed] == [1, 2, 3]
    assert sealed[0].seal.previous_hash == GENESIS
    assert [one.entry for one in sealed[:2]] == [first, second]
    assert all(one.content and seal_of(one.seal.previous_hash, one.content) == one.seal.hash for one in sealed)
    check = checked(sealed)
    assert (check.faults, check.head) == ((), Head(position=3, hash=sealed[-1].seal.hash))
    assert [one.seal for one in await chain(unit_of_work, after=2)] == [sealed[2].seal]
    async with unit_of_work() as uow:
        assert await uow.audit.unsealed() == 0


async def test_what_is_not_committed_is_not_sealed(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.audit.append(make_audit())
    await append(unit_of_work, make_audit())
    assert [one.seal.position for one in await chain(unit_of_work)] == [1]


async def test_many_writers_make_one_chain(unit_of_work: UnitOfWorkFactory) -> None:
    await asyncio.gather(*(append(unit_of_work, make_audit(), make_audit()) for _ in range(20)))
    sealed = await chain(unit_of_work)
    check = checked(sealed)
    assert (check.faults, check.head.position, check.entries) == ((), 40, 40)


async def test_entries_are_found_by_every_filter(unit_of_work: UnitOfWorkFactory) -> None:
    early = make_audit(entity_id="dep_1", user="zoe")
    late = make_audit(entity_id="frz_1", entity_type="freeze", event_type="freeze.made", at=EPOCH + timedelta(hours=1))
    await append(unit_of_work, early, late)

    async def found(**where: object) -> list[AuditEntry]:
        async with unit_of_work() as uow:
            entries, total = await uow.audit.find(AuditFilter.model_validate(where), Page())
            exported = await uow.audit.sealed(0, 100, AuditFilter.model_validate(where))
        assert total == len(entries)
        assert [one.entry for one in exported] == list(reversed(entries))
        return list(entries)

    assert await found() == [late, early]
    assert await found(entity="dep_1") == await found(user="zoe") == await found(until=late.at) == [early]
    assert await found(entity_type="freeze") == await found(event_type="freeze.made") == [late]
    assert await found(since=late.at) == [late]
    assert await found(since=late.at, user="zoe") == []
    async with unit_of_work() as uow:
        with pytest.raises(InvalidInput):
            await uow.audit.find(AuditFilter(entity_type="x" * 101), Page())


async def test_a_truncated_chain_goes_on_behind_its_checkpoint(unit_of_work: UnitOfWorkFactory) -> None:
    old = [make_audit(at=EPOCH + timedelta(minutes=number)) for number in range(4)]
    await append(unit_of_work, *old, make_audit(at=EPOCH + timedelta(days=9)), make_audit())
    before = await chain(unit_of_work)
    async with unit_of_work() as uow:
        assert await uow.audit.last_before(EPOCH + timedelta(minutes=2), 100) == 2
        assert await uow.audit.last_before(EPOCH, 100) == 0
        assert await uow.audit.last_before(EPOCH + timedelta(days=99), 100) == 5, "the last one always stays"
        assert await uow.audit.last_before(EPOCH + timedelta(days=99), 3) == 3
        with pytest.raises(Conflict, match="only behind a checkpoint"):
            await uow.audit.truncate(4)
        await uow.audit.add_checkpoint(checkpoint(4, before[3].seal.hash))
        with pytest.raises(Conflict, match="only behind a checkpoint"):
            await uow.audit.truncate(4)
        await uow.audit.add_checkpoint(checkpoint(4, before[3].seal.hash, "other", truncates=True))
        assert await uow.audit.truncate(4) == 4
        await uow.audit.append(make_audit())
        await uow.commit()
    sealed = await chain(unit_of_work)
    assert [one.seal.position for one in sealed] == [5, 6, 7]
    assert checked(sealed, Head(position=4, hash=before[3].seal.hash)).faults == ()
    async with unit_of_work() as uow:
        assert (await uow.audit.list(None, None, Page()))[1] == 3


async def test_checkpoints_come_back_as_given_and_do_not_fork(unit_of_work: UnitOfWorkFactory) -> None:
    first = checkpoint(1, "a" * 64, entries_before=EPOCH)
    second = checkpoint(2, "b" * 64, first.signature)
    async with unit_of_work() as uow:
        await uow.audit.add_checkpoint(first)
        await uow.audit.add_checkpoint(second)
        with pytest.raises(Conflict, match="another checkpoint"):
            await uow.audit.add_checkpoint(checkpoint(3, "c" * 64, first.signature))
        await uow.commit()
    async with unit_of_work() as uow:
        assert list(await uow.audit.checkpoints()) == [first, second]


@pytest.mark.stack
async def test_an_entry_written_by_any_client_is_sealed_too(database: Database, database_url: str) -> None:
    """So the release before this one, which knows nothing of seals, leaves no hole."""
    execute(
        database_url,
        "INSERT INTO audit_logs (event_type, entity_type, entity_id, user_id) VALUES ('a', 'b', 'c', 'd')",
    )
    await append(database.unit_of_work, make_audit())
    assert checked(await chain(database.unit_of_work)).faults == ()


@pytest.mark.stack
async def test_a_transaction_that_stands_still_holds_no_other_up(database: Database) -> None:
    async with database.unit_of_work() as still:
        await still.audit.append(make_audit(user="slow"))
        async with asyncio.timeout(20):  # the server would end it after 60 s
            await append(database.unit_of_work, make_audit(user="quick"))
        await still.commit()
    sealed = await chain(database.unit_of_work)
    assert [one.entry.user for one in sealed if one.entry] == ["quick", "slow"]
    assert checked(sealed).faults == ()


@pytest.mark.stack
@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("DELETE FROM audit_logs", "audit_logs"),
        ("DELETE FROM audit_chain", "audit_chain"),
        ("UPDATE audit_chain SET hash = previous_hash", "audit_chain"),
        ("TRUNCATE audit_chain", "audit_chain"),
        ("UPDATE audit_checkpoints SET position = 0", "audit_checkpoints"),
        ("DELETE FROM audit_checkpoints", "audit_checkpoints"),
        ("TRUNCATE audit_checkpoints", "audit_checkpoints"),
    ],
)
async def test_the_server_refuses_to_change_the_chain(
    database: Database, database_url: str, statement: str, table: str
) -> None:
    await append(database.unit_of_work, make_audit(), make_audit())
    async with database.unit_of_work() as uow:
        await uow.audit.add_checkpoint(checkpoint(1, "a" * 64))
        await uow.commit()
    with pytest.raises(psycopg.errors.RestrictViolation, match=f"{table} is append-only"):
        execute(database_url, statement)


@pytest.mark.stack
async def test_what_the_databases_owner_does_behind_the_guards_is_found(database: Database, database_url: str) -> None:
    await append(database.unit_of_work, *(make_audit() for _ in range(4)))
    execute(
        database_url,
        "ALTER TABLE audit_logs DISABLE TRIGGER USER; UPDATE audit_logs SET user_id = 'x' WHERE id ="
        " (SELECT audit_id FROM audit_chain WHERE position = 2); DELETE FROM audit_logs WHERE id ="
        " (SELECT audit_id FROM audit_chain WHERE position = 3); INSERT INTO audit_logs (event_type, entity_type,"
        " entity_id, user_id) VALUES ('a', 'b', 'c', 'd'); ALTER TABLE audit_logs ENABLE TRIGGER USER",
    )
    changed, deleted = checked(await chain(database.unit_of_work)).faults
    assert "position 2" in changed
    assert "changed" in changed
    assert "position 3" in deleted
    assert "deleted" in deleted
    async with database.unit_of_work() as uow:
        assert await uow.audit.unsealed() == 1


@pytest.mark.stack
def test_entries_of_the_release_before_are_sealed_by_the_migration(new_database: Callable[..., str]) -> None:
    url = new_database()
    before = ScriptDirectory.from_config(runner.script_config()).get_revision("0009").down_revision
    runner.upgrade(url, str(before))
    execute(
        url,
        "INSERT INTO audit_logs (event_type, entity_type, entity_id, user_id)"
        " SELECT 'e' || n, 'b', 'c', 'd' FROM generate_series(1, 3) n",
    )
    runner.upgrade(url)
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT c.previous_hash, c.hash, audit_content(a, c.layout) FROM audit_chain c"
            " JOIN audit_logs a ON a.id = c.audit_id ORDER BY position"
        ).fetchall()
    assert len(rows) == 3
    assert [row[0] for row in rows] == [GENESIS, rows[0][1], rows[1][1]]
    assert all(seal_of(previous, content) == sealed for previous, sealed, content in rows)
