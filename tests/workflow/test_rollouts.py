"""The machinery on a real Temporal server: what a deployment does to routes, nodes and the record."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle

from hotswap.domain.analysis import InconclusivePolicy
from hotswap.domain.deployment import Environment, Role
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import Page
from hotswap.ports.sandbox import TrialReport
from tests.workflow.world import NOW, Arm, ScriptedNode, World, canary, direct, read_plan, send, until


async def test_direct_deployment_makes_the_version_stable_on_every_node(world: World) -> None:
    async with world.working():
        progress = await world.deploy(world.request(direct(), version="1.0.0"))
    assert progress.status is DeploymentStatus.COMPLETED
    route = await world.route()
    assert route.stable is not None
    assert route.stable.version == "1.0.0"
    assert route.candidate is None
    for node in world.nodes:
        assert node.route is not None
        assert node.route.state == route
        assert node.loaded == {"1.0.0"}


async def test_direct_deployment_loads_beside_before_it_switches(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        node = world.nodes[0]
        node.orders.clear()
        await world.deploy(world.request(direct()))
    staged = [order.state for what, order in node.orders if what == "stage"]
    assert [
        (s.stable.version, s.candidate.version, s.candidate_weight) for s in staged if s.stable and s.candidate
    ] == [("1.0.0", "2.0.0", 0)]
    assert [what for what, _ in node.orders] == ["stage", "apply", "retire"]


async def test_canary_shifts_step_by_step_and_ends_with_only_the_new_version(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        world.nodes[0].orders.clear()
        progress = await world.deploy(world.request(canary((10, 40, 100))))
    assert progress.status is DeploymentStatus.COMPLETED
    weights = [order.state.candidate_weight for what, order in world.nodes[0].orders if what == "apply"]
    assert weights == [1_000, 4_000, 10_000, 0]
    assert all(node.loaded == {"2.0.0"} for node in world.nodes)
    assert progress.verdict is not None
    assert progress.verdict.outcome == "Pass"


async def test_bad_canary_gives_all_traffic_back_and_says_why(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=200, errors=60)
    async with world.working():
        await world.serve_first_version()
        before = await world.route()
        request = world.request(canary((10, 100)))
        progress = await world.deploy(request)
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "the verdict failed at 10 %" in progress.outcome_reason
    assert progress.rolled_back_at is not None
    assert await world.route() == before
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)
    assert "status" in await world.kinds(request.deployment_id)


async def test_failed_trial_touches_no_node_and_no_route(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        for node in world.nodes:
            node.orders.clear()
        before = await world.route()
        world.trial.report = TrialReport(passed=False, sandbox_tier="standard", limit="TIMEOUT", detail="run hung")
        progress = await world.deploy(world.request(direct()))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "TIMEOUT" in progress.outcome_reason
    assert await world.route() == before
    assert all(not node.orders for node in world.nodes)


async def test_unisolated_trial_is_never_accepted_for_production(world: World) -> None:
    world.trial.report = TrialReport(passed=True, sandbox_tier="none")
    async with world.working():
        progress = await world.deploy(world.request(direct(), environment=Environment.PRODUCTION))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "isolation" in progress.outcome_reason


async def test_a_node_that_cannot_load_the_version_undoes_it_everywhere(world: World) -> None:
    world.nodes[1].fail_to_load.add("2.0.0")
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(canary()))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert world.nodes[1].node_id in progress.outcome_reason
    assert "cannot be imported" in progress.outcome_reason
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)


async def test_corrupt_artifact_is_refused_before_the_trial(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        async with world.records.unit_of_work() as uow:
            version = await uow.versions.get(world.name, "2.0.0")
        world.store.objects[f"artifacts/{world.name}/{version.digest}.zip"] = b"tampered"
        progress = await world.deploy(world.request(direct()))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert progress.outcome_reason.startswith("ArtifactCorrupt")


async def test_dead_node_is_named_and_the_others_go_on(world: World) -> None:
    dead = world.nodes.pop()  # registered a moment ago, but nobody polls its queue
    third = ScriptedNode(f"{world.name}-3")
    world.nodes.append(third)
    async with world.records.unit_of_work() as uow:
        await uow.nodes.register(world.node_record(third.node_id, Environment.DEVELOPMENT))
        # Told of itself 6 s ago: recent enough to belong to the wave, too long for a node that lives.
        await uow.nodes.register(
            world.node_record(dead.node_id, Environment.DEVELOPMENT, seen=NOW - timedelta(seconds=6))
        )
        await uow.commit()
    async with world.working():
        progress = await world.deploy(world.request(direct(), version="1.0.0"))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    states = {node.node_id: node.state for node in progress.nodes}
    assert states == {world.nodes[0].node_id: "Ready", dead.node_id: "Lost", third.node_id: "Ready"}


async def test_no_live_node_means_no_deployment(world: World) -> None:
    world.nodes.clear()
    async with world.records.unit_of_work() as uow:
        for node in await uow.nodes.list(None, None):
            await uow.nodes.remove(node.node_id, node.boot_id)
        await uow.commit()
    async with world.working():
        progress = await world.deploy(world.request(direct(), version="1.0.0"))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "0 of 0 live nodes" in progress.outcome_reason


async def test_undo_that_a_node_refuses_ends_failed_with_what_to_do(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=200, errors=200)
    async with world.working():
        await world.serve_first_version()
        world.nodes[0].fail_to_apply = lambda order: order.state.candidate is None
        progress = await world.deploy(world.request(canary()))
    assert progress.status is DeploymentStatus.FAILED
    assert "check `hotswap nodes`" in progress.what_to_do
    assert world.nodes[1].loaded == {"1.0.0"}, "one node's fault must not keep the others from being undone"


async def test_inconclusive_analysis_pauses_before_promotion(world: World) -> None:
    world.figures.silent = True
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100))))
        paused = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "inconclusive" in paused.waiting_for
        assert paused.set_weight_percent == 50
        world.figures.silent = False
        await send(handle, "resume")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED


async def test_inconclusive_with_rollback_policy_rolls_back(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=0)
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(canary(on_inconclusive=InconclusivePolicy.ROLLBACK)))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "inconclusive" in progress.outcome_reason


async def test_failed_verdict_without_auto_rollback_holds_for_a_person_and_never_passes(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
    async with world.working():
        await world.serve_first_version()
        config = canary((50, 100), auto_rollback=False, on_inconclusive=InconclusivePolicy.CONTINUE)
        handle = await world.start(world.request(config))
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "autoRollback is off" in held.waiting_for
        await send(handle, "resume")
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED and p.sequence > held.sequence + 3)
        assert (await world.route()).candidate_weight == 5_000
        await send(handle, "rollback", reason="it is bad indeed")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK


async def test_paused_rollout_stays_guarded(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=timedelta(milliseconds=300))))
        await until(handle, lambda p: p.set_weight_percent == 50 and p.verdict is not None)
        await send(handle, "pause")
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK


async def test_promote_ends_the_wait_of_a_step(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=timedelta(hours=1))))
        await until(handle, lambda p: p.set_weight_percent == 50)
        await _promote_when_watching(handle)
        await until(handle, lambda p: p.set_weight_percent == 100)
        await _promote_when_watching(handle)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED


async def _promote_when_watching(handle: WorkflowHandle[Any, Any]) -> None:
    await until(handle, lambda p: p.step_title.startswith("observe"))
    await send(handle, "promote", by="dana", reason="seen enough")


async def test_abort_in_the_middle_of_loading_waits_for_the_node_and_undoes(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        world.nodes[0].hold_stage = asyncio.Event()
        handle = await world.start(world.request(canary()))
        await until(handle, lambda p: p.step_title.startswith("load beside"))
        await send(handle, "abort", reason="wrong version")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ABORTED
    assert progress.outcome_reason == "aborted by ada: wrong version"
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)
    assert (await world.route()).candidate is None


async def test_cancel_from_the_web_ui_undoes_too(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=timedelta(hours=1))))
        await until(handle, lambda p: p.set_weight_percent == 50)
        await handle.cancel()
        await until(handle, lambda p: p.status is DeploymentStatus.ABORTED)
    assert (await world.route()).candidate is None
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)


async def test_production_takes_two_people_one_of_them_admin_and_never_the_initiator(world: World) -> None:
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            await uow.nodes.register(world.node_record(node.node_id, Environment.PRODUCTION))
        await uow.commit()
    async with world.working():
        handle = await world.start(world.request(direct(), version="1.0.0", environment=Environment.PRODUCTION))
        waiting = await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        assert waiting.approvals_required == 2
        plan = await read_plan(handle)
        first = await send(handle, "approve", by="ada", plan_hash=plan.plan_hash)
        assert first.message == "approved; more approvals are needed"
        again = await send(handle, "approve", by="ada")
        assert again.message == "ada approved already"
        await send(handle, "approve", by="bob")
        still = await handle.query("status")
        assert still["status"] == "AwaitingApproval", "two approvers without an Admin are not enough"
        await send(handle, "approve", by="root", roles=(Role.ADMIN,))
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED
    assert {given.approver for given in progress.approvals} == {"ada", "bob", "root"}


async def test_rejection_ends_rejected_with_nothing_changed(world: World) -> None:
    async with world.working():
        handle = await world.start(world.request(direct(), environment=Environment.STAGING))
        await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        await send(handle, "reject", reason="not on a Friday")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.REJECTED
    assert progress.outcome_reason == "rejected by ada: not on a Friday"
    assert all(not node.orders for node in world.nodes)


async def test_record_equals_what_the_workflow_says(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        request = world.request(canary())
        progress = await world.deploy(request)
    async with world.records.unit_of_work() as uow:
        row = await uow.deployments.get(request.deployment_id)
        events = await uow.deployments.events(request.deployment_id)
        audit, _ = await uow.audit.list(request.deployment_id, None, page=Page(limit=100))
    assert row.progress == progress
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert audit[0].details["message"] == "2.0.0 serves all tenants"


async def test_a_terminated_deployment_is_closed_on_record_by_the_next_one(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        request = world.request(canary((50, 100), period=timedelta(hours=1)))
        handle = await world.start(request)
        await until(handle, lambda p: p.set_weight_percent == 50)
        await handle.terminate("somebody in the Web UI")
        next_one = world.request(direct())
        progress = await world.deploy(next_one)
    assert progress.status is DeploymentStatus.COMPLETED
    async with world.records.unit_of_work() as uow:
        dead = (await uow.deployments.get(request.deployment_id)).progress
    assert dead.status is DeploymentStatus.FAILED
    assert next_one.deployment_id in dead.what_to_do
    assert all(node.loaded == {"2.0.0"} for node in world.nodes)
