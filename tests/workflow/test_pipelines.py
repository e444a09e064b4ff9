"""One version through environments: order, soak, gates, endings, and taking a stage again."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError

from hotswap.domain.deployment import Environment, Role
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.pipeline import Gate, PipelineProgress, PipelineStatus, StageConflict, StageState
from hotswap.domain.registry import Page
from tests.workflow.pipelines import DEV, QA, STAGING, approve_stage, order, populate, reached, stage, start
from tests.workflow.skipping import skip
from tests.workflow.world import Arm, World, canary, direct, send, until
from workflows import pipeline_record

LONG = timedelta(hours=1)


async def serves(world: World, *environments: Environment) -> list[str | None]:
    routes = [await world.route(environment) for environment in environments]
    return [route.stable.version if route.stable else None for route in routes]


def states(progress: PipelineProgress) -> list[str]:
    return [entry.state for entry in progress.stages]


async def test_a_version_goes_through_every_environment_in_order(world: World) -> None:
    nodes = await populate(world, QA, STAGING)
    async with world.working():
        handle = await start(world, stage(DEV), stage(QA, soak=timedelta(milliseconds=100)), stage(STAGING))
        waiting = await reached(handle, lambda p: "approval" in p.waiting_for)
        assert waiting.waiting_for == "QA: 1 approval, not by dana"
        assert states(waiting) == ["Done", "Running", "Waiting"]
        assert waiting.stages[1].deployment_status is DeploymentStatus.AWAITING_APPROVAL
        assert not nodes[QA].orders, "QA moved before its approval"
        await approve_stage(world, QA)
        await approve_stage(world, STAGING)
        progress = await handle.result()
    assert progress.status is PipelineStatus.COMPLETED, progress
    assert states(progress) == ["Done", "Done", "Done"]
    assert await serves(world, DEV, QA, STAGING) == ["2.0.0"] * 3
    ends = [entry.completed_at for entry in progress.stages]
    begins = [entry.started_at for entry in progress.stages]
    assert all(end is not None and begin is not None for end, begin in zip(ends, begins, strict=True))
    assert begins[1] >= ends[0]  # type: ignore[operator]
    async with world.records.unit_of_work() as uow:
        row = await uow.pipelines.get(progress.pipeline_id)
        child = await uow.deployments.get(progress.stages[1].deployment_id)
        audit, _ = await uow.audit.list(progress.pipeline_id, None, Page(limit=100))
    assert row.progress == progress
    assert child.progress.status is DeploymentStatus.COMPLETED
    assert child.progress.initiated_by == "dana"
    assert audit[0].details["message"] == "2.0.0 serves Development, QA, Staging"


async def test_default_soak_of_days_is_waited_for(skipping: World) -> None:
    await populate(skipping, QA)
    async with skipping.working():
        handle = await start(skipping, stage(DEV, soak=timedelta(days=3)), stage(QA, soak=timedelta(hours=1)))
        await reached(handle, lambda p: states(p) == ["Soaking", "Waiting"])
        waiting = await handle.query("status")
        assert waiting["waitingFor"].startswith("Development to soak until ")
        for _ in range(3):
            await skip(skipping, timedelta(days=1))
        await approve_stage(
            skipping, QA
        )  # time stands still for nobody but a sleeper: the gate cannot expire meanwhile
        progress = await handle.result()
    assert progress.status is PipelineStatus.COMPLETED, progress
    assert progress.started_at is not None
    assert progress.finished_at is not None
    assert progress.finished_at - progress.started_at > timedelta(days=3)


async def test_an_environment_that_goes_back_while_it_soaks_ends_the_pipeline(world: World) -> None:
    await populate(world, QA)
    async with world.working():
        await world.serve_first_version()
        handle = await start(world, stage(DEV, soak=timedelta(seconds=20)), stage(QA))
        soaking = await reached(handle, lambda p: states(p) == ["Soaking", "Waiting"])
        back = world.request(direct(), version="1.0.0", rollback_of=soaking.stages[0].deployment_id)
        assert (await world.deploy(back)).status is DeploymentStatus.COMPLETED
        ended = await reached(handle, lambda p: p.status is PipelineStatus.ROLLED_BACK, within=90)
        assert "taken back while it soaked" in ended.outcome_reason
        await handle.terminate()
    assert await serves(world, DEV, QA) == ["1.0.0", None]


async def test_a_gate_takes_its_role_and_never_the_initiator(world: World) -> None:
    await populate(world, QA)
    gate = Gate(role=Role.TENANT_OWNER, required=2)
    async with world.working():
        handle = await start(world, stage(DEV), stage(QA, gate=gate))
        waiting = await reached(handle, lambda p: p.status is PipelineStatus.AWAITING_APPROVAL)
        assert waiting.waiting_for == "2 approvals by TenantOwner before QA, not by dana"
        refusals = {}
        for by, role in (("dana", Role.ADMIN), ("ada", Role.APPROVER)):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await order(handle, "approve", by=by, roles=(role,))
            refusals[by] = str(refused.value.cause)
        assert "started this pipeline" in refusals["dana"]
        assert "this gate takes one of" in refusals["ada"]
        assert "more approvals" in (await order(handle, "approve", by="tom", roles=(Role.TENANT_OWNER,))).message
        assert "already" in (await order(handle, "approve", by="tom", roles=(Role.TENANT_OWNER,))).message
        assert (await order(handle, "approve", by="root", roles=(Role.ADMIN,))).message == "approved"
        await approve_stage(world, QA)
        progress = await handle.result()
    assert progress.status is PipelineStatus.COMPLETED
    assert [given.approver for given in progress.stages[1].approvals] == ["tom", "root"]


async def test_approvals_of_a_stage_are_its_deployments_and_the_pipeline_says_so(world: World) -> None:
    await populate(world, QA)
    async with world.working():
        handle = await start(world, stage(QA))
        waiting = await reached(handle, lambda p: "approval" in p.waiting_for)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await order(handle, "approve")
        assert waiting.stages[0].deployment_id in str(refused.value.cause)
        await approve_stage(world, QA)
        assert (await handle.result()).status is PipelineStatus.COMPLETED


async def test_a_rejected_gate_ends_rejected_and_retry_asks_it_again(world: World) -> None:
    await populate(world, QA)
    async with world.working():
        handle = await start(world, stage(DEV), stage(QA, gate=Gate()))
        await reached(handle, lambda p: p.status is PipelineStatus.AWAITING_APPROVAL)
        await order(handle, "reject", reason="not on a Friday")
        ended = await reached(handle, lambda p: p.status is PipelineStatus.REJECTED)
        assert ended.outcome_reason == "rejected by ada before QA: not on a Friday"
        assert ended.retry_until is not None
        await order(handle, "retry", by="dana", reason="it is Monday")
        await reached(handle, lambda p: p.status is PipelineStatus.AWAITING_APPROVAL)
        await order(handle, "approve")
        await approve_stage(world, QA)
        assert (await handle.result()).status is PipelineStatus.COMPLETED
    assert await serves(world, DEV, QA) == ["2.0.0", "2.0.0"]


async def test_a_stage_that_is_rolled_back_ends_the_pipeline_there_and_can_be_taken_again(world: World) -> None:
    await populate(world, QA)
    async with world.working():
        await world.serve_first_version()
        first_in_qa = await world.start(world.request(direct(), version="1.0.0", environment=QA))
        await until(first_in_qa, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        await send(first_in_qa, "approve")
        await first_in_qa.result()
        handle = await start(world, stage(DEV), stage(QA, config=canary((50, 100))))
        await reached(handle, lambda p: states(p) == ["Done", "Running"])
        world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
        await approve_stage(world, QA)
        ended = await reached(handle, lambda p: p.status is PipelineStatus.ROLLED_BACK)
        assert ended.outcome_reason.startswith("QA ended RolledBack: the verdict failed at 50 %")
        assert states(ended) == ["Done", "Stopped"]
        assert await serves(world, DEV, QA) == ["2.0.0", "1.0.0"]
        with pytest.raises(WorkflowUpdateFailedError):
            await order(handle, "abort", reason="late")
        world.figures.arms.clear()
        answer = await order(handle, "retry", by="dana", reason="mended the database")
        assert answer.message == "QA begins again"
        await approve_stage(world, QA)
        progress = await handle.result()
    assert progress.status is PipelineStatus.COMPLETED
    assert (progress.stages[0].attempt, progress.stages[1].attempt) == (1, 2)
    assert progress.stages[1].deployment_id != ended.stages[1].deployment_id
    async with world.records.unit_of_work() as uow:
        again = (await uow.deployments.get(progress.stages[1].deployment_id)).progress
    assert again.retry_of == ended.stages[1].deployment_id


async def test_nobody_retrying_closes_it_after_two_days(skipping: World) -> None:
    skipping.nodes[0].fail_to_load.add("2.0.0")
    async with skipping.working():
        handle = await start(skipping, stage(DEV))
        progress = await handle.result()
    assert progress.status is PipelineStatus.ROLLED_BACK
    assert progress.retry_until is None
    assert "cannot be imported" in progress.outcome_reason


async def test_abort_aborts_the_running_stage_and_waits_until_it_is_undone(world: World) -> None:
    await populate(world, QA)
    async with world.working():
        await world.serve_first_version()
        handle = await start(world, stage(DEV, config=canary((50, 100), period=LONG)), stage(QA))
        child = world.client.get_workflow_handle(f"deployment/{DEV}/{world.name}")
        await until(child, lambda p: p.set_weight_percent == 50)
        await order(handle, "abort", reason="wrong version")
        progress = await handle.result()
    assert progress.status is PipelineStatus.ABORTED
    assert progress.outcome_reason == "aborted by ada: wrong version"
    assert progress.stages[0].deployment_status is DeploymentStatus.ABORTED
    assert progress.stages[1].state is StageState.WAITING
    assert (await world.route()).candidate is None
    assert await serves(world, DEV) == ["1.0.0"]


async def test_abort_in_a_soak_ends_it_and_the_environment_keeps_the_version(world: World) -> None:
    async with world.working():
        handle = await start(world, stage(DEV, soak=LONG), stage(QA))
        await reached(handle, lambda p: states(p)[0] == "Soaking")
        await order(handle, "abort", reason="enough")
        assert (await handle.result()).status is PipelineStatus.ABORTED
    assert await serves(world, DEV) == ["2.0.0"]


async def test_cancel_from_the_web_ui_takes_the_running_stage_along(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await start(world, stage(DEV, config=canary((50, 100), period=LONG)))
        child = world.client.get_workflow_handle(f"deployment/{DEV}/{world.name}")
        await until(child, lambda p: p.set_weight_percent == 50)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert (await until(child, lambda p: True)).status is DeploymentStatus.ABORTED
        ended = await handle.query("status")
    assert ended["status"] == "Aborted"
    assert (await world.route()).candidate is None


async def test_pause_holds_the_running_stage_and_the_pipeline_until_resumed(world: World) -> None:
    await populate(world, QA)
    async with world.working():
        await world.serve_first_version()
        handle = await start(world, stage(DEV, config=canary((50, 100), period=LONG)), stage(QA))
        child = world.client.get_workflow_handle(f"deployment/{DEV}/{world.name}")
        await until(child, lambda p: p.set_weight_percent == 50)
        await order(handle, "pause")
        await until(child, lambda p: p.status is DeploymentStatus.PAUSED)
        paused = await reached(handle, lambda p: bool(p.waiting_for))
        assert paused.status is PipelineStatus.PAUSED
        assert paused.waiting_for == "Development: resume, promote, abort or rollback"
        await order(handle, "resume")
        await until(child, lambda p: p.status is DeploymentStatus.IN_PROGRESS)
        await order(handle, "abort", reason="seen enough")
        assert (await handle.result()).status is PipelineStatus.ABORTED


async def test_paused_in_a_soak_it_stands_before_the_next_stage(world: World) -> None:
    nodes = await populate(world, QA)
    async with world.working():
        handle = await start(world, stage(DEV, soak=timedelta(milliseconds=500)), stage(QA))
        await reached(handle, lambda p: states(p)[0] == "Soaking")
        await order(handle, "pause")
        held = await reached(handle, lambda p: p.waiting_for == "resume or abort")
        assert states(held) == ["Done", "Waiting"]
        assert not nodes[QA].orders
        await order(handle, "resume")
        await approve_stage(world, QA)
        assert (await handle.result()).status is PipelineStatus.COMPLETED


async def test_an_environment_that_serves_the_version_already_is_skipped(world: World) -> None:
    await populate(world, QA)
    async with world.working():
        await world.deploy(world.request(direct()))
        handle = await start(world, stage(DEV, soak=LONG), stage(QA))
        await approve_stage(world, QA)
        progress = await handle.result()
    assert progress.status is PipelineStatus.COMPLETED
    assert states(progress) == ["Skipped", "Done"]


async def test_a_stage_waits_for_its_place_and_is_called_when_it_is_free(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        other = await world.start(world.request(canary((50, 100), period=LONG)))
        await until(other, lambda p: p.set_weight_percent == 50)
        handle = await start(world, stage(DEV))
        await reached(handle, lambda p: "that runs in Development to end" in p.waiting_for)
        await send(other, "abort", reason="make way")
        progress = await asyncio.wait_for(handle.result(), 20)
    assert progress.status is PipelineStatus.COMPLETED
    assert await serves(world, DEV) == ["2.0.0"]


async def test_a_place_that_is_held_fails_the_stage_when_asked_to(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        other = await world.start(world.request(canary((50, 100), period=LONG)))
        await until(other, lambda p: p.set_weight_percent == 50)
        handle = await start(world, stage(DEV), on_conflict=StageConflict.FAIL)
        ended = await reached(handle, lambda p: p.status is PipelineStatus.FAILED)
        assert "another deployment" in ended.outcome_reason
        await send(other, "abort", reason="make way")
        await other.result()
        await order(handle, "retry", by="dana")
        assert (await handle.result()).status is PipelineStatus.COMPLETED


async def test_a_terminated_stage_fails_the_pipeline_and_says_what_to_do(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await start(world, stage(DEV, config=canary((50, 100), period=LONG)))
        child = world.client.get_workflow_handle(f"deployment/{DEV}/{world.name}")
        await until(child, lambda p: p.set_weight_percent == 50)
        await child.terminate("by accident")
        ended = await reached(handle, lambda p: p.status is PipelineStatus.FAILED)
        await handle.terminate()
    assert "without a result" in ended.outcome_reason
    assert "hotswap status dep_" in ended.what_to_do


async def test_continuing_as_new_between_stages_forgets_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_record, "HISTORY_LIMIT", 20)
    await populate(world, QA, STAGING)
    async with world.working():
        handle = await start(world, stage(DEV, soak=timedelta(milliseconds=50)), stage(QA, gate=Gate()), stage(STAGING))
        await reached(handle, lambda p: p.status is PipelineStatus.AWAITING_APPROVAL)
        await order(world.client.get_workflow_handle(handle.id), "approve")
        await approve_stage(world, QA)
        await approve_stage(world, STAGING)
        progress = await handle.result()
        description = await world.client.get_workflow_handle(handle.id).describe()
    assert progress.status is PipelineStatus.COMPLETED
    assert description.run_id != handle.first_execution_run_id, "the run never continued as new"
    assert [entry.attempt for entry in progress.stages] == [1, 1, 1]
    sequences = [event.sequence for event in progress.timeline]
    assert sequences == list(range(1, len(sequences) + 1))


async def test_a_worker_that_dies_in_the_middle_is_followed_by_one_that_goes_on(world: World) -> None:
    nodes = await populate(world, QA)
    async with world.node_worker(world.nodes[0]), world.node_worker(world.nodes[1]), world.node_worker(nodes[QA]):
        async with world.control_worker():
            handle = await start(world, stage(DEV), stage(QA))
            await reached(handle, lambda p: "approval" in p.waiting_for)
        async with world.control_worker():
            await approve_stage(world, QA)
            assert (await handle.result()).status is PipelineStatus.COMPLETED
    assert await serves(world, DEV, QA) == ["2.0.0", "2.0.0"]


async def test_the_web_ui_says_stage_state_and_wait(world: World) -> None:
    await populate(world, QA)
    async with world.working():
        handle = await start(world, stage(DEV), stage(QA))
        await reached(handle, lambda p: "approval" in p.waiting_for)
        details = await handle.query("__temporal_workflow_metadata")
        await order(handle, "abort", reason="over")
        await handle.result()
    text = str(details)
    assert "**QA** by Direct: Running" in text
    assert "waiting for QA: 1 approval" in text
