"""Less waiting, the same guards: promote-full and hotfix. On a real Temporal server."""

from datetime import timedelta

from temporalio.client import WorkflowUpdateFailedError

from hotswap.domain.analysis import InconclusivePolicy
from hotswap.domain.deployment import CanaryConfig, Environment
from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.world import Arm, World, canary, direct, read_plan, send, until

HOUR = timedelta(hours=1)


def quick_looks(period: timedelta = HOUR) -> CanaryConfig:
    """Long steps, looked at often."""
    config = canary((10, 50, 100), period=period)
    return config.model_copy(update={"evaluation_interval": timedelta(milliseconds=50)})


async def test_promote_full_ends_every_wait_that_is_left(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        world.nodes[0].orders.clear()
        handle = await world.start(world.request(canary((10, 50, 100), period=HOUR)))
        await until(handle, lambda p: p.step_title == "observe at 10 %")
        looks = world.figures.looks
        answer = await send(handle, "promote-full", by="dana", reason="seen in QA")
        assert answer.message.startswith("skipping every wait")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED
    weights = [order.state.candidate_weight for what, order in world.nodes[0].orders if what == "apply"]
    assert weights == [1_000, 5_000, 10_000, 0], "no step is left out"
    assert world.figures.looks >= looks + 3, "each weight was looked at"
    assert "all remaining waits skipped by dana: seen in QA" in await _messages(world, progress.deployment_id)


async def test_promote_full_does_not_pass_a_failing_verdict(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((10, 100), period=HOUR)))
        await until(handle, lambda p: p.step_title == "observe at 10 %")
        world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
        await send(handle, "promote-full", reason="hurry")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)


async def test_promote_full_leaves_the_approval_to_people(world: World) -> None:
    async with world.records.unit_of_work() as uow:
        for node in world.nodes:
            await uow.nodes.register(world.node_record(node.node_id, Environment.STAGING))
        await uow.commit()
    async with world.working():
        config = canary((50, 100), period=HOUR)
        handle = await world.start(world.request(config, version="1.0.0", environment=Environment.STAGING))
        await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        await send(handle, "promote-full", reason="hurry")
        still = await until(handle, lambda p: p.sequence > 0)
        assert still.status is DeploymentStatus.AWAITING_APPROVAL
        await send(handle, "approve")
        assert (await handle.result()).status is DeploymentStatus.COMPLETED


async def test_after_a_fail_that_is_held_neither_an_older_promote_nor_promote_full_passes_it_by_resume(
    world: World,
) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=HOUR, auto_rollback=False)))
        await until(handle, lambda p: p.step_title == "observe at 50 %")
        world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
        await send(handle, "promote", reason="looked fine a minute ago")
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        await send(handle, "promote-full", reason="hurry")
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED and "failed" in p.waiting_for)
        assert held.set_weight_percent == 50
        await send(handle, "resume")
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED and p.sequence > held.sequence + 2)
        assert held.set_weight_percent == 50
        world.figures.arms.clear()
        await send(handle, "resume")
        assert (await handle.result()).status is DeploymentStatus.COMPLETED


async def test_promote_full_after_the_end_is_refused(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(canary((50, 100), period=HOUR)))
        await until(handle, lambda p: p.set_weight_percent == 50)
        await send(handle, "abort", reason="stop")
        try:
            answer = await send(handle, "promote-full")
        except WorkflowUpdateFailedError as refused:
            assert "no wait left" in str(refused.cause)  # noqa: PT017 - it may also have closed
        else:
            raise AssertionError(answer.message)
        assert (await handle.result()).status is DeploymentStatus.ABORTED


async def test_a_hotfix_waits_no_longer_than_the_minimum_sample_needs(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(quick_looks(), hotfix=True))
        plan = await until(handle, lambda p: p.plan_hash != "")
        assert plan.hotfix
        assert (await read_plan(handle)).hotfix
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED
    assert progress.verdict is not None
    assert progress.verdict.outcome == "Pass"


async def test_a_hotfix_nobody_asks_for_goes_on_after_an_interval(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=0)
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(quick_looks(), hotfix=True))
    assert progress.status is DeploymentStatus.COMPLETED


async def test_a_hotfix_with_too_few_requests_waits_for_more(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=3)
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(quick_looks(), hotfix=True))
        looked = await until(handle, lambda p: p.verdict is not None)
        seen = world.figures.looks
        while world.figures.looks < seen + 3:
            looked = await until(handle, lambda p: True)
        assert looked.set_weight_percent == 10
        world.figures.arms["2.0.0"] = Arm(requests=400)
        assert (await handle.result()).status is DeploymentStatus.COMPLETED


async def test_a_hotfix_of_which_nothing_is_heard_keeps_to_the_policy(world: World) -> None:
    world.figures.silent = True
    async with world.working():
        await world.serve_first_version()
        config = quick_looks(timedelta(milliseconds=200)).model_copy(
            update={"on_inconclusive": InconclusivePolicy.ROLLBACK}
        )
        progress = await world.deploy(world.request(config, hotfix=True))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "inconclusive" in progress.outcome_reason


async def test_a_bad_hotfix_is_taken_back(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(quick_looks(), hotfix=True))
    assert progress.status is DeploymentStatus.ROLLED_BACK


async def test_a_stop_is_obeyed_in_the_middle_of_whatever_is_done(world: World) -> None:
    """Also when the order under way is finished before it can be cancelled: the step after it never begins."""
    async with world.working():
        await world.serve_first_version()
        for _ in range(5):
            handle = await world.start(world.request(canary((50, 100), period=HOUR)))
            await until(handle, lambda p: p.step_title == "trial in the sandbox" or p.step_number > 2)
            await send(handle, "abort", reason="changed my mind")
            progress = await handle.result()
            assert progress.status is DeploymentStatus.ABORTED
            assert progress.set_weight_percent == 0
    assert (await world.route()).candidate is None


async def test_a_direct_deployment_has_nothing_to_hurry_but_takes_the_word(world: World) -> None:
    async with world.working():
        progress = await world.deploy(world.request(direct(), version="1.0.0", hotfix=True))
    assert progress.status is DeploymentStatus.COMPLETED
    assert progress.hotfix


async def _messages(world: World, deployment_id: str) -> list[str]:
    async with world.records.unit_of_work() as uow:
        return [event.message for event in await uow.deployments.events(deployment_id)]
