"""What an execution's record decides: whether it may run (again), and whose result counts."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.sandbox import ExecutionOrder, SandboxCallActivities
from hotswap.adapters.memory.records import MemoryRecords
from hotswap.domain.manifest import Resources
from hotswap.domain.sandbox import (
    FINISHED,
    MAX_ATTEMPTS,
    ExecutionStatus,
    SandboxExecution,
    SandboxSession,
    request_text,
)
from tests.contract.factories import make_plugin, make_version
from tests.workflow.sandbox import ScriptedCaller

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def execution(status: str = "Queued", *, idempotent: bool = False, attempts: int = 0) -> SandboxExecution:
    return SandboxExecution(
        execution_id="exe_1",
        sandbox_id="sbx_1",
        method="hold",
        idempotent=idempotent,
        tenant="sandbox",
        timeout=timedelta(seconds=1),
        requested_by="dana",
        queued_at=NOW,
        status=ExecutionStatus(status),
        attempts=attempts,
    )


@pytest.mark.parametrize(
    ("before", "after", "attempts"),
    [
        (execution(), "Running", 1),
        (execution(idempotent=True), "Running", 1),
        (execution("Running", attempts=1), "Lost", 1),
        (execution("Running", idempotent=True, attempts=1), "Running", 2),
        (execution("Running", idempotent=True, attempts=MAX_ATTEMPTS - 1), "Running", MAX_ATTEMPTS),
        (execution("Running", idempotent=True, attempts=MAX_ATTEMPTS), "Lost", MAX_ATTEMPTS),
    ],
)
def test_a_worker_that_takes_it_up_runs_it_or_finds_it_lost(
    before: SandboxExecution, after: str, attempts: int
) -> None:
    begun = before.begun(NOW)
    assert (begun.status, begun.attempts) == (after, attempts)


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_what_is_over_stays_as_it_is(status: str) -> None:
    over = execution(status)
    assert over.begun(NOW) is over
    assert over.cancelled("deleted", NOW) is over


async def test_a_worker_that_was_thought_dead_overwrites_nothing() -> None:
    records = MemoryRecords()
    version = make_version(make_plugin("p").name)
    async with records.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("p"))
        await uow.versions.add(version)
        now = await uow.now()
        session = SandboxSession(
            sandbox_id="sbx_1",
            artifact=version.ref,
            environment="Development",
            resources=Resources(),
            execution_timeout=timedelta(minutes=5),
            tier="standard",
            created_by="dana",
            created_at=now,
            expires_at=now + timedelta(hours=1),
        )
        await uow.sandboxes.open(session, 50)
        await uow.sandboxes.queue(execution(idempotent=True), request_text({}, None), 50)
        await uow.commit()
    sleeper, other = ScriptedCaller(), ScriptedCaller(sandbox_tier="strong")
    other.hold.set()
    order = ExecutionOrder(sandbox_id="sbx_1", execution_id="exe_1")
    slow = asyncio.ensure_future(
        ActivityEnvironment().run(SandboxCallActivities(records.unit_of_work, sleeper).run_execution, order)
    )
    async with asyncio.timeout(20):
        while not sleeper.called:
            await asyncio.sleep(0.01)
    quick = await ActivityEnvironment().run(SandboxCallActivities(records.unit_of_work, other).run_execution, order)
    sleeper.hold.set()
    assert await slow == quick
    async with records.unit_of_work() as uow:
        kept = await uow.sandboxes.execution("sbx_1", "exe_1")
    assert (kept.status, kept.tier, kept.attempts) == (ExecutionStatus.SUCCEEDED, "strong", 2)


def test_what_a_session_leaves_unfinished_says_whether_it_ran() -> None:
    ran, waited = execution("Running", attempts=1), execution()
    assert ran.cancelled("expired", NOW).exit_reason == "the sandbox ended (expired), it was stopped while it ran"
    assert waited.cancelled("expired", NOW).exit_reason == "the sandbox ended (expired), it never ran"
