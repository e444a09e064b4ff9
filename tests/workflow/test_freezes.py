"""Freezes hold running rollouts at their step and release them there; guards stay on and undoing always passes."""

from datetime import datetime, timedelta

import pytest
from temporalio.client import WorkflowUpdateFailedError

from hotswap.domain.deployment import Role
from hotswap.domain.freeze import Freeze, FreezeKind, Once
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import Page
from tests.workflow.freezes import lift, make_freeze
from tests.workflow.strategies import rolling
from tests.workflow.world import NOW, Arm, World, canary, direct, send, until
from workflows import freezes, gates


async def messages(world: World, deployment_id: str, kind: str) -> list[str]:
    async with world.records.unit_of_work() as uow:
        return [event.message for event in await uow.deployments.events(deployment_id) if event.kind == kind]


async def test_a_new_deployment_starts_but_is_held_before_any_node_hears_of_it(world: World) -> None:
    freeze = await make_freeze(world)
    async with world.working():
        request = world.request(direct(), version="1.0.0")
        handle = await world.start(request)
        held = await until(handle, lambda p: bool(p.held_by))
        assert held.status is DeploymentStatus.IN_PROGRESS
        assert held.waiting_for == "the freeze 'quarter close' until it is lifted"
        assert held.step_title.startswith("load beside")
        assert held.held_by == freeze.freeze_id
        assert all(not node.orders for node in world.nodes)
        await lift(world, freeze, handle)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED
    assert progress.held_by == ""
    assert await messages(world, request.deployment_id, "freeze") == [
        "held by the freeze 'quarter close' until it is lifted",
        "released: nothing freezes it any more",
    ]


async def test_a_running_ramp_is_held_at_its_step_and_released_there(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=timedelta(milliseconds=400))))
        await until(handle, lambda p: p.set_weight_percent == 50)
        freeze = await make_freeze(world)
        held = await until(handle, lambda p: bool(p.held_by))
        looks = world.figures.looks
        assert (held.step_title, held.set_weight_percent) == ("observe at 50 %", 50)
        await until(handle, lambda p: world.figures.looks > looks + 2)
        assert (await world.route()).candidate_weight == 5_000, "it moved while frozen"
        await lift(world, freeze, handle)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED
    weights = [order.state.candidate_weight for what, order in world.nodes[0].orders if what == "apply"]
    assert weights[-3:] == [5_000, 10_000, 0]


async def test_a_rolling_step_is_held_between_its_batches(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        wait = timedelta(milliseconds=500)
        handle = await world.start(world.request(rolling(batch_size=1, wait_between_batches=wait)))
        await until(handle, lambda p: p.set_weight_percent == 50)
        freeze = await make_freeze(world)
        held = await until(handle, lambda p: bool(p.held_by))
        assert held.step_title == "switch the nodes, 1 at a time"
        looks = world.figures.looks
        await until(handle, lambda p: world.figures.looks > looks + 1)
        assert len((await world.route()).switched_nodes) == 1, "a second batch switched while frozen"
        await lift(world, freeze, handle)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED


async def test_promote_does_not_pass_a_freeze_but_is_not_forgotten(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=timedelta(hours=1))))
        await until(handle, lambda p: p.step_title == "observe at 50 %")
        freeze = await make_freeze(world)
        await send(handle, "promote")
        await until(handle, lambda p: bool(p.held_by))
        await lift(world, freeze, handle)
        await until(handle, lambda p: p.set_weight_percent == 100)
        await send(handle, "abort", reason="seen enough")
        await handle.result()


async def test_a_guard_that_fails_while_held_takes_the_version_back(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=timedelta(milliseconds=200))))
        await until(handle, lambda p: p.set_weight_percent == 50)
        await make_freeze(world)
        await until(handle, lambda p: bool(p.held_by))
        world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "the verdict failed at 50 %" in progress.outcome_reason
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)


@pytest.mark.parametrize(("command", "ending"), [("rollback", "RolledBack"), ("abort", "Aborted")])
async def test_rollback_and_abort_pass_even_the_stop_switch(world: World, command: str, ending: str) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=timedelta(milliseconds=200))))
        await until(handle, lambda p: p.set_weight_percent == 50)
        await make_freeze(world, kind=FreezeKind.STOP, reason="incident 7")
        held = await until(handle, lambda p: bool(p.held_by))
        assert held.waiting_for == "everything is stopped 'incident 7' until it is lifted"
        await send(handle, command, reason="customers complain")
        progress = await handle.result()
    assert progress.status == ending
    assert (await world.route()).candidate is None


async def test_taking_back_a_completed_deployment_is_never_held(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        done = await world.deploy(world.request(direct()))
        await make_freeze(world, kind=FreezeKind.STOP)
        back = await world.deploy(world.request(direct(), version="1.0.0", rollback_of=done.deployment_id))
    assert back.status is DeploymentStatus.COMPLETED, back.outcome_reason


async def test_an_override_takes_an_admin_and_a_reason_and_is_audited(world: World) -> None:
    freeze = await make_freeze(world)
    async with world.working():
        request = world.request(direct(), version="1.0.0")
        handle = await world.start(request)
        await until(handle, lambda p: bool(p.held_by))
        with pytest.raises(WorkflowUpdateFailedError) as no_admin:
            await send(handle, "override-freeze", reason="because")
        assert "takes one" in str(no_admin.value.cause)
        with pytest.raises(WorkflowUpdateFailedError) as no_reason:
            await send(handle, "override-freeze", roles=(Role.ADMIN,))
        assert "reason" in str(no_reason.value.cause)
        await send(handle, "override-freeze", by="root", roles=(Role.ADMIN,), reason="payments are down")
        again = await send(handle, "override-freeze", by="root", roles=(Role.ADMIN,), reason="payments are down")
        assert "already" in again.message
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED
    async with world.records.unit_of_work() as uow:
        audit, _ = await uow.audit.list(request.deployment_id, "root", Page(limit=100))
    told = [entry.details["message"] for entry in audit]
    assert "freezes overridden by root: payments are down" in told
    passes = next(entry for entry in audit if entry.details["message"].startswith("passes the freeze 'quarter close'"))
    assert passes.details["freeze"] == freeze.freeze_id


async def test_an_override_in_the_request_passes_a_freeze_but_not_the_stop_switch(world: World) -> None:
    await make_freeze(world)
    async with world.working():
        hurried = world.request(direct(), version="1.0.0", freeze_override_reason="agreed with the bank")
        assert (await world.deploy(hurried)).status is DeploymentStatus.COMPLETED
        stop = await make_freeze(world, kind=FreezeKind.STOP, reason="incident 7")
        handle = await world.start(world.request(direct(), freeze_override_reason="agreed with the bank"))
        held = await until(handle, lambda p: bool(p.held_by))
        assert held.held_by == stop.freeze_id
        await lift(world, stop, handle)
        assert (await handle.result()).status is DeploymentStatus.COMPLETED
    told = await messages(world, hurried.deployment_id, "command")
    assert len([message for message in told if "overridden by dana: agreed with the bank" in message]) == 1


async def test_a_person_can_pause_and_resume_what_a_freeze_holds(world: World) -> None:
    freeze = await make_freeze(world)
    async with world.working():
        handle = await world.start(world.request(direct(), version="1.0.0"))
        await until(handle, lambda p: bool(p.held_by))
        await send(handle, "pause")
        paused = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "resume" in paused.waiting_for
        await lift(world, freeze, handle)
        assert (await until(handle, lambda p: True)).status is DeploymentStatus.PAUSED
        await send(handle, "resume")
        assert (await handle.result()).status is DeploymentStatus.COMPLETED


async def test_a_failed_verdict_without_auto_rollback_holds_for_a_person_inside_a_freeze(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        config = canary((50, 100), period=timedelta(milliseconds=200), auto_rollback=False)
        handle = await world.start(world.request(config))
        await until(handle, lambda p: p.set_weight_percent == 50)
        await make_freeze(world)
        await until(handle, lambda p: bool(p.held_by))
        world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
        paused = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "autoRollback is off" in paused.waiting_for
        await send(handle, "rollback", reason="bad indeed")
        assert (await handle.result()).status is DeploymentStatus.ROLLED_BACK


async def test_a_lift_whose_signal_was_lost_is_noticed_all_the_same(
    skipping: World,
) -> None:
    freeze = await make_freeze(skipping)
    async with skipping.working():
        handle = await skipping.start(skipping.request(direct(), version="1.0.0"))
        await until(handle, lambda p: bool(p.held_by))
        await lift(skipping, freeze)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED
    assert progress.finished_at is not None
    assert progress.started_at is not None
    assert progress.finished_at - progress.started_at < 2 * freezes.LONGEST_PATIENCE


async def test_a_freeze_of_a_night_releases_at_its_end_with_a_small_history(
    skipping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "HISTORY_LIMIT", 150)
    async with skipping.working():
        await skipping.serve_first_version()
        request = skipping.request(canary((50, 100), period=timedelta(minutes=10)))
        request = request.model_copy(
            update={"config": request.config.model_copy(update={"evaluation_interval": timedelta(minutes=10)})}
        )
        handle = await skipping.start(request)
        await until(handle, lambda p: p.set_weight_percent == 50)
        begun = await skipping.client.get_workflow_handle(handle.id).query("status")
        ends = datetime.fromisoformat(begun["startedAt"]) + timedelta(hours=12)
        freeze = await make_freeze(skipping, window=Once(starts=NOW, ends=ends))
        progress = await handle.result()
        description = await skipping.client.get_workflow_handle(handle.id).describe()
    assert progress.status is DeploymentStatus.COMPLETED
    assert progress.finished_at is not None
    assert ends <= progress.finished_at < ends + timedelta(minutes=30)
    assert description.run_id != handle.first_execution_run_id, "the run never continued as new"
    told = await messages(skipping, request.deployment_id, "freeze")
    assert told == [f"held by {_text(freeze)}", "released: nothing freezes it any more"]


def _text(freeze: Freeze) -> str:
    assert isinstance(freeze.window, Once)
    return f"the freeze '{freeze.reason}' until {freeze.window.ends:%Y-%m-%d %H:%M} UTC"
