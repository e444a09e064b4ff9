"""The approval gate by both doors: who counts, for what, for how long. (Quorum and Admin: test_rollouts; expiry: test_long_waits.)"""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from hotswap.domain.deployment import DeploymentProgress, Environment, Role
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.pipeline import Gate, PipelineStatus
from tests.workflow import pipelines
from tests.workflow.skipping import skip
from tests.workflow.world import World, direct, read_plan, send, until
from workflows.messages import ApproveCommand

STAGING = Environment.STAGING
Handle = WorkflowHandle[Any, DeploymentProgress]


@pytest.fixture
async def waiting(world: World) -> AsyncIterator[Handle]:
    """A deployment to Staging, started by dana, that waits for its one approval."""
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            await uow.nodes.register(world.node_record(node.node_id, STAGING))
        await uow.commit()
    async with world.working():
        handle = await world.start(world.request(direct(), version="1.0.0", environment=STAGING))
        await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        yield handle


WRONG = [
    (ApproveCommand(by="dana", roles=(Role.ADMIN,)), "Forbidden", "another person must"),
    (ApproveCommand(by="eve", roles=(Role.DEVELOPER, Role.VIEWER)), "Forbidden", "neither Approver nor Admin"),
    (ApproveCommand(by="ada", roles=()), "Forbidden", "neither Approver nor Admin"),
    (ApproveCommand(by="ada", roles=(Role.APPROVER,), plan_hash="f" * 64), "Conflict", "read the plan again"),
]


@pytest.mark.parametrize(("order", "kind", "words"), WRONG, ids=["his own", "role", "no role", "another plan"])
async def test_an_approval_that_does_not_count_is_refused_and_by_signal_ignored(
    world: World, waiting: Handle, order: ApproveCommand, kind: str, words: str
) -> None:
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await waiting.execute_update("approve", order)
    assert isinstance(refused.value.cause, ApplicationError)
    assert (refused.value.cause.type, words in refused.value.cause.message) == (kind, True)
    await waiting.signal("approve", order)
    timeline = await waiting.query("timeline")
    assert timeline[-1]["kind"] == "ignored"
    assert words in timeline[-1]["message"]
    still = await until(waiting, lambda p: True)
    assert (still.status, still.approvals) == (DeploymentStatus.AWAITING_APPROVAL, ())
    await send(waiting, "reject", reason="over")
    assert (await waiting.result()).status is DeploymentStatus.REJECTED


async def test_an_approval_is_on_record_with_the_digest_and_the_plan_it_was_given_for(
    world: World, waiting: Handle
) -> None:
    plan = await read_plan(waiting)
    await waiting.signal("approve", ApproveCommand(by="ada", roles=(Role.APPROVER,), plan_hash=plan.plan_hash))
    progress = await waiting.result()
    assert progress.status is DeploymentStatus.COMPLETED
    async with world.records.unit_of_work() as uow:
        (given,) = await uow.approvals.list(progress.deployment_id)
    assert (given.approver, given.decision) == ("ada", "Approved")
    assert (given.digest, given.plan_hash) == (plan.target.digest, plan.plan_hash)


async def test_other_bytes_or_other_steps_are_another_plan(waiting: Handle) -> None:
    plan = await read_plan(waiting)
    others = (
        plan.model_copy(update={"target": plan.target.model_copy(update={"digest": "e" * 64})}),
        plan.model_copy(update={"steps": plan.steps[:-1]}),
        plan.model_copy(update={"hotfix": True}),
    )
    assert plan.plan_hash not in {other.plan_hash for other in others}
    await send(waiting, "reject", reason="over")
    await waiting.result()


async def test_a_gate_stands_for_48_hours_and_says_until_when(skipping: World) -> None:
    async with skipping.working():
        handle = await skipping.start(skipping.request(direct(), version="1.0.0", environment=STAGING))
        asked = await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        assert asked.started_at is not None
        assert asked.approval_expires_at is not None
        assert timedelta(hours=48) <= asked.approval_expires_at - asked.started_at < timedelta(hours=49)
        assert (asked.approvals_required, asked.approval_needs_admin) == (1, False)
        await skip(skipping, timedelta(hours=49))
        ended = await until(handle, lambda p: p.status is DeploymentStatus.REJECTED)
        assert ended.outcome_reason == "nobody approved within 2 days, 0:00:00"
        assert ended.approval_expires_at is None
        assert ended.finished_at is not None
        assert timedelta(0) <= ended.finished_at - asked.approval_expires_at < timedelta(minutes=5)


async def test_a_pipelines_gate_stands_for_48_hours_too(skipping: World) -> None:
    await pipelines.populate(skipping, pipelines.QA)
    async with skipping.working():
        stages = (pipelines.stage(pipelines.DEV), pipelines.stage(pipelines.QA, gate=Gate(required=2)))
        handle = await pipelines.start(skipping, *stages)
        asked = await pipelines.reached(handle, lambda p: p.status is PipelineStatus.AWAITING_APPROVAL)
        stands = asked.stages[1]
        assert stands.gate == Gate(required=2)
        assert stands.gate_expires_at is not None
        await pipelines.order(handle, "approve", by="ada", roles=(Role.APPROVER,))
        await skip(skipping, timedelta(hours=49))
        ended = await pipelines.reached(handle, lambda p: p.status is PipelineStatus.REJECTED)
        assert "nobody approved QA within 2 days" in ended.outcome_reason
        assert ended.finished_at is not None
        assert timedelta(0) <= ended.finished_at - stands.gate_expires_at < timedelta(minutes=5)
        with contextlib.suppress(RPCError):  # it has ended by itself: the clock is jumping on
            await handle.terminate("seen enough")


async def test_production_needs_the_admin_to_be_another_person_than_the_initiator(world: World) -> None:
    async with world.working():
        handle = await world.start(world.request(direct(), version="1.0.0", environment=Environment.PRODUCTION))
        asked = await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        assert (asked.approvals_required, asked.approval_needs_admin) == (2, True)
        await send(handle, "approve", by="ada")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await send(handle, "approve", by="dana", roles=(Role.ADMIN, Role.APPROVER))
        assert "another person must" in str(refused.value.cause)
        assert "approved already" in (await send(handle, "approve", by="ada", roles=(Role.ADMIN,))).message
        still = await until(handle, lambda p: True)
        assert still.status is DeploymentStatus.AWAITING_APPROVAL, "one person with two roles is one person"
        await send(handle, "reject", reason="over")
        await handle.result()
