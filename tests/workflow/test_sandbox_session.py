"""Sandbox sessions as workflows: executions one after the other, and everything tidied up however a session ends."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, CancelledError

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import ArtifactCorrupt, SandboxUnavailable, Unavailable
from hotswap.domain.sandbox import MAX_EXECUTIONS, MAX_WAITING, ExecutionStatus, SessionStatus
from hotswap.ports.sandbox import CallReport
from tests.workflow.sandbox import Sandbox, ScriptedCaller, sandbox_worker, working
from tests.workflow.skipping import skipping_world
from tests.workflow.world import World
from workflows.messages import Command
from workflows.sandbox_messages import END, ExecuteCommand, SessionOrder
from workflows.sandbox_session import SandboxSession


async def refusal(call: Any) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await call
    assert refused.value.cause is not None
    return str(refused.value.cause)


async def test_executions_run_one_after_the_other_and_are_kept_with_what_they_cost(world: World) -> None:
    caller = ScriptedCaller()
    caller.reports["fail"] = CallReport(
        succeeded=False,
        sandbox_tier="standard",
        limit="MEMORY_LIMIT",
        reason="the host ran out of memory",
        logs="begun\n",
        duration_ms=7.0,
        peak_memory_bytes=1234,
    )
    async with working(world, caller):
        sandbox = await Sandbox.open(world)
        asked = [await sandbox.execute(), await sandbox.execute("fail"), await sandbox.execute()]
        done = [await sandbox.finished(one) for one in asked]
        async with asyncio.timeout(30):
            while (told := await sandbox.progress()).running:  # on record a moment before the workflow knows
                await asyncio.sleep(0.02)
        await sandbox.end()
    assert [one.status for one in done] == ["Succeeded", "Failed", "Succeeded"]
    assert (done[0].output, done[0].tier, done[0].attempts) == ('{"n":1}', "standard", 1)
    failed = done[1]
    assert (failed.limit, failed.logs, failed.peak_memory_bytes) == ("MEMORY_LIMIT", "begun\n", 1234)
    assert "out of memory" in failed.exit_reason
    assert (told.executed, told.waiting, told.running) == (3, 0, "")
    assert caller.most_at_once == 1
    assert [(call.tenant, call.parameters) for call in caller.called] == [("sandbox", '{"n":1}')] * 3


async def test_a_delete_stops_what_runs_and_says_so_on_record(world: World) -> None:
    caller = ScriptedCaller()
    async with working(world, caller):
        sandbox = await Sandbox.open(world)
        running, waiting = await sandbox.execute("hold"), await sandbox.execute()
        await sandbox.running(running)
        answers = await asyncio.gather(sandbox.end("enough"), sandbox.end())
        ended = await sandbox.handle.result()
    [said] = {answer.message for answer in answers}  # whichever came first is the one that ended it
    assert said in ("deleted by dana: enough", "deleted by dana")
    assert caller.cancelled == ["hold"]
    assert ended.status is SessionStatus.DELETED
    record = await sandbox.on_record()
    assert (record.status, record.end_reason) == (SessionStatus.DELETED, said)
    told = [await sandbox.execution(one) for one in (running, waiting)]
    assert [one.status for one in told] == [ExecutionStatus.CANCELLED] * 2
    assert [one.exit_reason.rpartition(", ")[2] for one in told] == ["it was stopped while it ran", "it never ran"]
    (entry,) = await sandbox.audited()
    assert (entry.event_type, entry.user) == ("sandbox.ended", "dana")


async def test_it_expires_while_it_runs(world: World) -> None:
    caller = ScriptedCaller()
    async with working(world, caller):
        sandbox = await Sandbox.open(world, life=timedelta(seconds=3))
        running = await sandbox.execute("hold")
        ended = await sandbox.handle.result()
        assert (await sandbox.execution(running)).status is ExecutionStatus.CANCELLED
    assert (ended.status, ended.end_reason) == (SessionStatus.EXPIRED, "its time was over")
    assert (await sandbox.on_record()).status is SessionStatus.EXPIRED
    assert caller.cancelled == ["hold"]


async def test_a_session_of_an_hour_expires_by_itself(tmp_path: Path) -> None:
    async with skipping_world(tmp_path) as world, working(world, ScriptedCaller()):
        sandbox = await Sandbox.open(world)
        assert (await sandbox.handle.result()).status is SessionStatus.EXPIRED
        record = await sandbox.on_record()
        assert (record.status, record.end_reason) == (SessionStatus.EXPIRED, "its time was over")


async def test_a_cancelled_workflow_tidies_up_first(world: World) -> None:
    caller = ScriptedCaller()
    async with working(world, caller):
        sandbox = await Sandbox.open(world)
        running = await sandbox.execute("hold")
        await sandbox.running(running)
        await sandbox.handle.cancel()
        with pytest.raises(WorkflowFailureError) as ended:
            await sandbox.handle.result()
    assert isinstance(ended.value.cause, CancelledError)
    assert caller.cancelled == ["hold"]
    assert "cancelled in Temporal" in (await sandbox.on_record()).end_reason
    assert (await sandbox.execution(running)).status is ExecutionStatus.CANCELLED


async def test_a_signal_ends_it_too_and_the_first_ending_holds(world: World) -> None:
    async with working(world, ScriptedCaller()):
        sandbox = await Sandbox.open(world)
        await sandbox.handle.signal(END, Command(by="web", reason="from the Web UI"))
        assert (await sandbox.handle.result()).end_reason == "deleted by web: from the Web UI"
        assert (await sandbox.on_record()).status is SessionStatus.DELETED


async def test_only_so_many_may_wait_and_a_repeat_takes_no_place(world: World) -> None:
    caller = ScriptedCaller()
    async with working(world, caller):
        sandbox = await Sandbox.open(world)
        first = await sandbox.execute("hold")
        await sandbox.running(first)
        for _ in range(MAX_WAITING):
            last = await sandbox.execute()
        assert "try again when one has finished" in await refusal(sandbox.execute())
        assert "taken before" not in (await sandbox.ask(last)).message, "the update's id gives the first answer"
        assert (await sandbox.progress()).waiting == MAX_WAITING
        caller.hold.set()
        await sandbox.finished(last)
        assert len(caller.called) == MAX_WAITING + 1
        await sandbox.end()
        assert (await sandbox.progress()).waiting == 0


async def test_two_hundred_executions_make_a_short_history(world: World) -> None:
    """By forty, which show what each adds."""
    count = 2 * MAX_WAITING
    async with working(world, ScriptedCaller()):
        sandbox = await Sandbox.open(world)
        for _ in range(count // 10):
            asked = await asyncio.gather(*(sandbox.execute() for _ in range(10)))
            await asyncio.gather(*(sandbox.finished(one) for one in asked))
        await sandbox.end()
        history = await sandbox.handle.fetch_history()
    assert len(history.events) * MAX_EXECUTIONS / count < 4_000
    assert sum(event.ByteSize() for event in history.events) * MAX_EXECUTIONS / count < 2_000_000


def test_a_session_takes_so_many_executions_and_no_more() -> None:
    order = SessionOrder(
        sandbox_id="sbx_1",
        plugin="p",
        version="1.0.0",
        environment=Environment.QA,
        expires_at=datetime.now(UTC),
        created_by="dana",
    )
    session = SandboxSession(order)

    def ask(number: int) -> ExecuteCommand:
        return ExecuteCommand(by="dana", execution_id=f"exe_{number}", method="run", timeout=timedelta(seconds=1))

    for number in range(MAX_EXECUTIONS):
        session._check_execute(ask(number))
        session.execute(ask(number))  # type: ignore[call-arg, arg-type] # the handler itself, not what clients call
        session._waiting.clear()
    session._check_execute(ask(0))  # one that it has taken already
    with pytest.raises(ApplicationError, match="200 executions, as many as one sandbox may have; make another"):
        session._check_execute(ask(MAX_EXECUTIONS))


@pytest.mark.parametrize(
    ("fault", "limit", "says"),
    [
        (ArtifactCorrupt("its digest differs"), "LOAD_FAILED", "its digest differs; it never ran"),
        (SandboxUnavailable("Landlock is missing"), "SANDBOX_UNAVAILABLE", "Landlock is missing"),
    ],
)
async def test_what_cannot_run_is_a_result_that_says_why(world: World, fault: Exception, limit: str, says: str) -> None:
    caller = ScriptedCaller()

    def refuse(order: Any) -> None:
        raise fault

    if isinstance(fault, SandboxUnavailable):
        caller.during = refuse
    else:
        caller.faults.append(fault)
    async with working(world, caller):
        sandbox = await Sandbox.open(world)
        failed = await sandbox.finished(await sandbox.execute())
        await sandbox.end()
    assert (failed.status, failed.limit) == (ExecutionStatus.FAILED, limit)
    assert says in failed.exit_reason


async def test_a_store_that_is_away_for_a_moment_costs_a_moment(world: World) -> None:
    caller = ScriptedCaller(faults=[Unavailable("S3 is away"), Unavailable("S3 is away")])
    async with working(world, caller):
        sandbox = await Sandbox.open(world)
        done = await sandbox.finished(await sandbox.execute())
        await sandbox.end()
    assert (done.status, done.attempts) == (ExecutionStatus.SUCCEEDED, 1)


async def test_a_result_waits_for_a_record_that_is_away(world: World) -> None:
    caller = ScriptedCaller()

    def lose_the_record(order: Any) -> None:
        world.records.away = True
        asyncio.get_running_loop().call_later(1.0, lambda: setattr(world.records, "away", False))

    caller.during = lose_the_record
    async with working(world, caller):
        sandbox = await Sandbox.open(world)
        execution_id = await sandbox.execute()
        async with asyncio.timeout(60):
            while not caller.called or world.records.away:
                await asyncio.sleep(0.02)
        done = await sandbox.finished(execution_id)
        caller.during = lambda order: None
        await sandbox.end()
    assert (done.status, done.attempts) == (ExecutionStatus.SUCCEEDED, 1)
    assert len(caller.called) == 1


@pytest.mark.parametrize(("idempotent", "status", "calls"), [(False, "Lost", 0), (True, "Succeeded", 1)])
async def test_what_another_worker_began_runs_again_only_when_declared_idempotent(
    world: World, idempotent: bool, status: str, calls: int
) -> None:
    caller = ScriptedCaller()
    async with world.control_worker():
        sandbox = await Sandbox.open(world)
        execution_id = await sandbox.execute(idempotent=idempotent)
        async with world.records.unit_of_work() as uow:  # as a worker leaves it that was killed in the middle
            held, _ = await uow.sandboxes.claim(execution_id)
            await uow.sandboxes.save(held.begun(await uow.now()))
            await uow.commit()
        async with sandbox_worker(world, caller):
            done = await sandbox.finished(execution_id)
            after = await sandbox.finished(await sandbox.execute())
            await sandbox.end()
    assert (done.status, len(caller.called) - 1) == (status, calls)
    assert after.status is ExecutionStatus.SUCCEEDED, "the session goes on"
    if not idempotent:
        assert done.limit == "DIED"
        assert "'run' is not declared idempotent" in done.exit_reason


async def test_an_execution_that_was_withdrawn_holds_nobody_up(world: World) -> None:
    async with world.control_worker():
        sandbox = await Sandbox.open(world)
        withdrawn, next_one = await sandbox.execute(), await sandbox.execute()
        async with world.records.unit_of_work() as uow:
            await uow.sandboxes.withdraw(withdrawn)
            await uow.commit()
        async with sandbox_worker(world, ScriptedCaller()):
            assert (await sandbox.finished(next_one)).status is ExecutionStatus.SUCCEEDED
            await sandbox.end()


async def test_an_end_without_any_worker_for_executions_waits_for_none(world: World) -> None:
    async with world.control_worker():
        sandbox = await Sandbox.open(world)
        execution_id = await sandbox.execute()
        await sandbox.end()
        assert (await sandbox.execution(execution_id)).exit_reason.endswith("it never ran")
