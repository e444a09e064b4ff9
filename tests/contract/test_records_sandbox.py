"""One contract for sandbox sessions and their executions on record: PostgreSQL and its in-memory twin."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, InvalidInput, NotFound
from hotswap.domain.manifest import Resources
from hotswap.domain.registry import Page, PluginVersion
from hotswap.domain.sandbox import (
    LISTED_BYTES,
    ExecutionStatus,
    SandboxExecution,
    SandboxSession,
    SessionStatus,
)
from hotswap.ports.records import UnitOfWorkFactory
from hotswap.ports.sandbox_records import KEPT, LATE, SandboxFilter
from tests.contract.factories import make_plugin, make_version

MOST = 50
HOUR = timedelta(hours=1)


def make_session(version: PluginVersion, **changes: Any) -> SandboxSession:
    now = datetime.now(UTC)
    given = {
        "sandbox_id": f"sbx_{uuid.uuid4().hex}",
        "artifact": version.ref,
        "environment": Environment.DEVELOPMENT,
        "resources": Resources(),
        "execution_timeout": timedelta(minutes=5),
        "tier": "standard",
        "created_by": "dana",
        "created_at": now,
        "expires_at": now + HOUR,
    } | changes
    return SandboxSession(**given)


def make_execution(session: SandboxSession, **changes: Any) -> SandboxExecution:
    given = {
        "execution_id": f"exe_{uuid.uuid4().hex}",
        "sandbox_id": session.sandbox_id,
        "method": "run",
        "tenant": "sandbox",
        "timeout": timedelta(seconds=10),
        "requested_by": "dana",
        "queued_at": datetime.now(UTC),
    } | changes
    return SandboxExecution(**given)


@pytest.fixture
async def version(unit_of_work: UnitOfWorkFactory) -> PluginVersion:
    plugin = make_plugin()
    made = make_version(plugin.name)
    async with unit_of_work() as uow:
        await uow.plugins.add(plugin)
        await uow.versions.add(made)
        await uow.commit()
    return made


@pytest.fixture
async def session(unit_of_work: UnitOfWorkFactory, version: PluginVersion) -> SandboxSession:
    made = make_session(version)
    async with unit_of_work() as uow:
        assert await uow.sandboxes.open(made, MOST)
        await uow.commit()
    return made


async def queue(uow_factory: UnitOfWorkFactory, execution: SandboxExecution, request: str = "{}") -> None:
    async with uow_factory() as uow:
        await uow.sandboxes.queue(execution, request, MOST)
        await uow.commit()


async def test_a_session_comes_back_as_it_was_opened_and_a_repeat_changes_nothing(
    unit_of_work: UnitOfWorkFactory, session: SandboxSession
) -> None:
    async with unit_of_work() as uow:
        assert not await uow.sandboxes.open(session.model_copy(update={"created_by": "eve"}), MOST)
        await uow.sandboxes.started(session.sandbox_id, "run-1")
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.sandboxes.get(session.sandbox_id) == session.model_copy(update={"run_id": "run-1"})


async def test_of_a_hundred_openings_at_once_just_as_many_get_a_place_as_there_are(
    unit_of_work: UnitOfWorkFactory, version: PluginVersion
) -> None:
    async def try_to_open() -> str:
        async with unit_of_work() as uow:
            try:
                await uow.sandboxes.open(make_session(version), MOST)
            except Conflict as refusal:
                return refusal.message
            await uow.commit()
            return ""

    answers = await asyncio.gather(*(try_to_open() for _ in range(100)))
    assert answers.count("") == MOST
    refused = next(answer for answer in answers if answer)
    async with unit_of_work() as uow:
        _, total = await uow.sandboxes.list(SandboxFilter(status=SessionStatus.ACTIVE), Page())
        rows, _ = await uow.sandboxes.list(SandboxFilter(), Page(limit=100))
        assert total == MOST
        oldest = rows[-1]
        assert oldest.sandbox_id in refused
        assert "Development has 50 live sandboxes" in refused
        assert "DELETE" in refused
        await uow.sandboxes.open(make_session(version, environment=Environment.QA), MOST)  # places are an environment's
        await uow.sandboxes.close(oldest.sandbox_id, SessionStatus.DELETED, "by dana")
        await uow.sandboxes.open(make_session(version), MOST)


async def test_what_is_long_over_frees_its_place_and_is_forgotten_in_the_end(
    unit_of_work: UnitOfWorkFactory, version: PluginVersion
) -> None:
    now = datetime.now(UTC)
    late = make_session(version, expires_at=now - LATE - HOUR, created_at=now - 2 * HOUR)
    due = make_session(version, expires_at=now - LATE / 2)
    old = make_session(version, status=SessionStatus.EXPIRED, ended_at=now - KEPT - HOUR, created_at=now - 2 * KEPT)
    async with unit_of_work() as uow:
        await uow.sandboxes.open(late, MOST)
        await uow.commit()
    await queue(unit_of_work, make_execution(late))
    async with unit_of_work() as uow:
        await uow.sandboxes.open(old, 2)
        assert (await uow.sandboxes.get(late.sandbox_id)).status is SessionStatus.EXPIRED
        await uow.sandboxes.open(due, 2)
        with pytest.raises(NotFound):
            await uow.sandboxes.get(old.sandbox_id)
        await uow.sandboxes.open(make_session(version), 2)
        with pytest.raises(Conflict):  # one that is due ends by itself in a moment: until then it counts
            await uow.sandboxes.open(make_session(version), 2)
        assert await uow.sandboxes.counts(late.sandbox_id) == {"Cancelled": 1}


async def test_a_session_needs_a_version_and_goes_with_its_plugin(
    unit_of_work: UnitOfWorkFactory, version: PluginVersion, session: SandboxSession
) -> None:
    execution = make_execution(session)
    await queue(unit_of_work, execution)
    async with unit_of_work() as uow:
        nowhere = version.ref.model_copy(update={"version": "9.9.9"})
        with pytest.raises(NotFound, match="registered version"):
            await uow.sandboxes.open(make_session(version, artifact=nowhere), MOST)
        await uow.plugins.delete(version.plugin)
        with pytest.raises(NotFound):
            await uow.sandboxes.get(session.sandbox_id)
        with pytest.raises(NotFound):
            await uow.sandboxes.claim(execution.execution_id)


async def test_sessions_are_listed_newest_first_by_what_is_asked(
    unit_of_work: UnitOfWorkFactory, version: PluginVersion
) -> None:
    now = datetime.now(UTC)
    made = [make_session(version, created_at=now + timedelta(seconds=n)) for n in range(3)]
    async with unit_of_work() as uow:
        for one in made:
            await uow.sandboxes.open(one, MOST)
        await uow.sandboxes.close(made[0].sandbox_id, SessionStatus.DELETED, "")
        store = uow.sandboxes
        assert [one.sandbox_id for one in (await store.list(SandboxFilter(), Page()))[0]] == [
            one.sandbox_id for one in reversed(made)
        ]
        assert (await store.list(SandboxFilter(status=SessionStatus.ACTIVE), Page(limit=1, offset=1)))[1] == 2
        assert (await store.list(SandboxFilter(plugin="another"), Page()))[1] == 0
        assert await store.live() == {"Development": 2}
        assert (await store.list(SandboxFilter(environment=Environment.QA), Page()))[1] == 0


async def test_the_first_ending_holds_and_cancels_what_has_not_finished(
    unit_of_work: UnitOfWorkFactory, session: SandboxSession
) -> None:
    waiting, running, done = (make_execution(session) for _ in range(3))
    for one in (waiting, running, done):
        await queue(unit_of_work, one)
    async with unit_of_work() as uow:
        now = await uow.now()
        await uow.sandboxes.save(running.begun(now))
        await uow.sandboxes.save(done.model_copy(update={"status": ExecutionStatus.SUCCEEDED, "finished_at": now}))
        assert await uow.sandboxes.close(session.sandbox_id, SessionStatus.EXPIRED, "its time was over")
        assert not await uow.sandboxes.close(session.sandbox_id, SessionStatus.DELETED, "by dana")
        await uow.commit()
    async with unit_of_work() as uow:
        ended = await uow.sandboxes.get(session.sandbox_id)
        assert (ended.status, ended.end_reason) == (SessionStatus.EXPIRED, "its time was over")
        assert ended.ended_at is not None
        assert await uow.sandboxes.counts(session.sandbox_id) == {"Cancelled": 2, "Succeeded": 1}
        told = [await uow.sandboxes.execution(session.sandbox_id, one.execution_id) for one in (waiting, running)]
        assert "it never ran" in told[0].exit_reason
        assert "stopped while it ran" in told[1].exit_reason
        with pytest.raises(Conflict, match="its time was over"):
            await uow.sandboxes.queue(make_execution(session), "{}", MOST)


async def test_an_execution_is_queued_once_and_only_while_there_is_room(
    unit_of_work: UnitOfWorkFactory, session: SandboxSession
) -> None:
    first = make_execution(session)
    async with unit_of_work() as uow:
        await uow.sandboxes.queue(first, '{"a": 1}', 1)
        await uow.sandboxes.queue(first.model_copy(update={"method": "other"}), '{"a": 2}', 1)
        assert await uow.sandboxes.claim(first.execution_id) == (first, '{"a": 1}')
        with pytest.raises(Conflict, match="1 executions"):
            await uow.sandboxes.queue(make_execution(session), "{}", 1)
        with pytest.raises(NotFound):
            await uow.sandboxes.queue(make_execution(session, sandbox_id="sbx_none"), "{}", 1)


async def test_only_what_still_waits_can_be_withdrawn(unit_of_work: UnitOfWorkFactory, session: SandboxSession) -> None:
    waiting, running = make_execution(session), make_execution(session)
    for one in (waiting, running):
        await queue(unit_of_work, one)
    async with unit_of_work() as uow:
        await uow.sandboxes.save(running.begun(await uow.now()))
        for one in (waiting, running, waiting):
            await uow.sandboxes.withdraw(one.execution_id)
        assert await uow.sandboxes.counts(session.sandbox_id) == {"Running": 1}


async def test_parameters_are_gone_once_it_has_finished(
    unit_of_work: UnitOfWorkFactory, session: SandboxSession
) -> None:
    execution = make_execution(session)
    await queue(unit_of_work, execution, '{"card": "4111"}')
    async with unit_of_work() as uow:
        begun = execution.begun(await uow.now())
        await uow.sandboxes.save(begun)
        assert (await uow.sandboxes.claim(execution.execution_id))[1] == '{"card": "4111"}'
        finished = begun.model_copy(
            update={"status": ExecutionStatus.SUCCEEDED, "output": '"\\u0000\\ud83d"', "logs": "größer 🚀\n"}
        )
        await uow.sandboxes.save(finished)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.sandboxes.claim(execution.execution_id) == (finished, "")
        assert await uow.sandboxes.execution(session.sandbox_id, execution.execution_id) == finished


async def test_two_claims_of_one_execution_take_turns(unit_of_work: UnitOfWorkFactory, session: SandboxSession) -> None:
    execution = make_execution(session)
    await queue(unit_of_work, execution)

    async def begin() -> ExecutionStatus:
        async with unit_of_work() as uow:
            held, _ = await uow.sandboxes.claim(execution.execution_id)
            begun = held.begun(await uow.now())
            await uow.sandboxes.save(begun)
            await uow.commit()
            return begun.status

    assert sorted(await asyncio.gather(*(begin() for _ in range(5)))) == ["Lost"] * 4 + ["Running"]


async def test_lists_leave_out_what_is_too_large_for_a_page(
    unit_of_work: UnitOfWorkFactory, session: SandboxSession
) -> None:
    now = datetime.now(UTC)
    exactly = '"' + "é" * ((LISTED_BYTES - 2) // 2) + '"'
    small = make_execution(session, output=exactly, logs="said", queued_at=now)
    large = make_execution(session, output=exactly + " ", logs="é" * LISTED_BYTES, queued_at=now + timedelta(seconds=1))
    none = make_execution(session, queued_at=now + timedelta(seconds=2))
    for one in (small, large, none):
        await queue(unit_of_work, one)
    async with unit_of_work() as uow:
        rows, total = await uow.sandboxes.executions(session.sandbox_id, Page())
        assert total == 3
        assert rows == [
            none,
            large.model_copy(update={"output": None, "output_omitted": True, "logs": "", "logs_omitted": True}),
            small,
        ]
        assert (await uow.sandboxes.executions(session.sandbox_id, Page(limit=1, offset=2)))[0] == [small]
        assert await uow.sandboxes.execution(session.sandbox_id, large.execution_id) == large
        with pytest.raises(NotFound):
            await uow.sandboxes.execution("sbx_another", large.execution_id)


async def test_what_could_not_be_started_is_forgotten_whole(
    unit_of_work: UnitOfWorkFactory, session: SandboxSession
) -> None:
    execution = make_execution(session)
    await queue(unit_of_work, execution)
    async with unit_of_work() as uow:
        await uow.sandboxes.discard(session.sandbox_id)
        await uow.sandboxes.discard(session.sandbox_id)
        for lost in (uow.sandboxes.get(session.sandbox_id), uow.sandboxes.claim(execution.execution_id)):
            with pytest.raises(NotFound):
                await lost
        for missing in (
            uow.sandboxes.close(session.sandbox_id, SessionStatus.DELETED, ""),
            uow.sandboxes.started(session.sandbox_id, "run"),
            uow.sandboxes.save(execution),
        ):
            with pytest.raises(NotFound):
                await missing


async def test_what_no_row_can_hold_is_refused_by_name(
    unit_of_work: UnitOfWorkFactory, session: SandboxSession, version: PluginVersion
) -> None:
    async with unit_of_work() as uow:
        with pytest.raises(InvalidInput, match="createdBy"):
            await uow.sandboxes.open(make_session(version, created_by="a\0b"), MOST)
        with pytest.raises(InvalidInput, match="request"):
            await uow.sandboxes.queue(make_execution(session), "\0", MOST)
        with pytest.raises(InvalidInput, match="exitReason"):
            await uow.sandboxes.save(make_execution(session, exit_reason="\ud800"))
