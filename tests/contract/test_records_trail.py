"""One contract for the audit and the answers to Idempotency-Keys: PostgreSQL and its in-memory twin."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from hotswap.domain.errors import InvalidInput
from hotswap.domain.registry import AuditEntry, Page
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import EPOCH, make_answer, make_audit


async def test_the_audit_is_newest_first_and_filtered(unit_of_work: UnitOfWorkFactory) -> None:
    early = make_audit(entity_id="dep_1", user="zoe", at=EPOCH)
    late = make_audit(entity_id="dep_2", user="zoe", at=EPOCH + timedelta(hours=1))
    same_instant = make_audit(entity_id="dep_1", user="adam", at=EPOCH)
    async with unit_of_work() as uow:
        for entry in (early, late, same_instant):
            await uow.audit.append(entry)
        await uow.commit()

    async def listed(entity: str | None = None, user: str | None = None, **page: int) -> tuple[list[AuditEntry], int]:
        async with unit_of_work() as uow:
            found, total = await uow.audit.list(entity, user, Page(**page))
        return list(found), total

    assert await listed() == ([late, same_instant, early], 3)
    assert await listed(limit=1, offset=1) == ([same_instant], 3)
    assert await listed(offset=3) == ([], 3)
    assert await listed("dep_1") == ([same_instant, early], 2)
    assert await listed(None, "zoe") == ([late, early], 2)
    assert await listed("dep_1", "adam") == ([same_instant], 1)
    assert await listed("' OR 1=1 --") == ([], 0)


async def test_an_audit_entry_comes_back_as_it_was_given(unit_of_work: UnitOfWorkFactory) -> None:
    details = {"from": None, "to": "2.0.0", "reason": 'it\'s "100%" \\ grün 🚀', "n": [1, 2.5, True, {"deep": []}]}
    entry = make_audit(details=details, trace_id="0af7651916cd43dd8448eb211c80319c")
    async with unit_of_work() as uow:
        await uow.audit.append(entry)
        await uow.commit()
    details["from"] = "changed by the caller afterwards"
    async with unit_of_work() as uow:
        ((found,), _) = await uow.audit.list(None, None, Page())
    assert found.details["from"] is None
    assert found == entry.model_copy(update={"details": details | {"from": None}})


async def test_the_same_entry_twice_is_two_entries(unit_of_work: UnitOfWorkFactory) -> None:
    entry = make_audit()
    async with unit_of_work() as uow:
        await uow.audit.append(entry)
        await uow.audit.append(entry)
        assert await uow.audit.list(entry.entity_id, None, Page()) == ([entry, entry], 2)


async def test_the_first_answer_to_a_key_is_kept(unit_of_work: UnitOfWorkFactory) -> None:
    first = make_answer(body={"id": "dep_1", "deep": {"list": [1, None, "ü"]}})
    async with unit_of_work() as uow:
        assert await uow.idempotency.find("zoe", "deploy", "k-1") is None
        await uow.idempotency.keep("zoe", "deploy", "k-1", first)
        await uow.commit()
    async with unit_of_work() as uow:
        await uow.idempotency.keep("zoe", "deploy", "k-1", make_answer(status_code=500))
        await uow.commit()
        assert await uow.idempotency.find("zoe", "deploy", "k-1") == first


async def test_keys_belong_to_a_user_and_an_operation(unit_of_work: UnitOfWorkFactory) -> None:
    answers = {
        key: make_answer(body={"n": number})
        for number, key in enumerate([("a", "x", "k"), ("b", "x", "k"), ("a", "y", "k"), ("a", "x", "K")])
    }
    async with unit_of_work() as uow:
        for key, answer in answers.items():
            await uow.idempotency.keep(*key, answer)
        await uow.commit()
        for key, answer in answers.items():
            assert await uow.idempotency.find(*key) == answer
        assert await uow.idempotency.find("b", "y", "k") is None


async def test_of_concurrent_answers_to_one_key_one_is_kept(unit_of_work: UnitOfWorkFactory) -> None:
    async def keep(number: int) -> None:
        async with unit_of_work() as uow:
            await uow.idempotency.keep("zoe", "deploy", "k", make_answer(body={"n": number}))
            await uow.commit()

    await asyncio.gather(*(keep(number) for number in range(10)))
    async with unit_of_work() as uow:
        kept = await uow.idempotency.find("zoe", "deploy", "k")
    assert kept is not None
    assert kept.body["n"] in range(10)


async def test_the_longest_key_of_the_widest_characters_is_kept(unit_of_work: UnitOfWorkFactory) -> None:
    key = ("🚀" * 255, "🚀" * 100, "🚀" * 255)
    async with unit_of_work() as uow:
        await uow.idempotency.keep(*key, make_answer())
        assert await uow.idempotency.find(*key) == make_answer()


async def test_what_cannot_be_stored_is_named(unit_of_work: UnitOfWorkFactory) -> None:
    nul, long, deep = "a\0", "l" * 256, {"a": [{"b": "\0"}]}
    nested: dict[str, Any] = {}
    inner = nested
    for _ in range(200):
        inner["n"] = inner = {}
    inner["n"] = nul
    async with unit_of_work() as uow:
        attempts = [
            ("details.a.0.b", lambda: uow.audit.append(make_audit(details=deep))),
            ("details" + ".n" * 201, lambda: uow.audit.append(make_audit(details=nested))),
            ("entityId", lambda: uow.audit.append(make_audit(entity_id=long))),
            ("eventType", lambda: uow.audit.append(make_audit(event_type="l" * 101))),
            ("entity", lambda: uow.audit.list(nul, None, Page())),
            ("user", lambda: uow.audit.list(None, nul, Page())),
            ("Idempotency-Key", lambda: uow.idempotency.find("zoe", "deploy", long)),
            ("Idempotency-Key", lambda: uow.idempotency.keep("zoe", "deploy", nul, make_answer())),
            ("body.x", lambda: uow.idempotency.keep("zoe", "deploy", "k", make_answer(body={"x": nul}))),
            ("requestHash", lambda: uow.idempotency.keep("zoe", "deploy", "k", make_answer(request_hash=long))),
        ]
        for field, attempt in attempts:
            with pytest.raises(InvalidInput) as caught:
                await attempt()
            assert [fault.field for fault in caught.value.faults] == [field]
        assert await uow.audit.list(None, None, Page()) == ([], 0)
