"""A/B tests on a real Temporal server: who wins by which evidence, who is asked, and what stays when nobody wins."""

from datetime import timedelta

import pytest

from hotswap.domain.analysis import DecisionMetric, Thresholds, Winner
from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.strategies import ab_test
from tests.workflow.world import Arm, World, canary, send, until

LENIENT = Thresholds(max_error_rate=0.5, min_success_rate=0.5, max_error_rate_increase=0.5)
"""Guards that let a clearly worse B live, so that the test itself must say so."""


def versions(world: World) -> list[set[str]]:
    return [node.loaded for node in world.nodes]


async def test_a_winning_b_is_promoted_by_itself_when_that_is_asked(world: World) -> None:
    world.figures.arms = {"1.0.0": Arm(errors=16), "2.0.0": Arm(errors=0)}
    async with world.working():
        await world.serve_first_version()
        world.nodes[0].orders.clear()
        progress = await world.deploy(world.request(ab_test(auto_promote=True, traffic_split=30)))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert progress.experiment is not None
    assert progress.experiment.winner is Winner.B
    assert progress.experiment.metrics[0].b_n == 800
    weights = [order.state.candidate_weight for what, order in world.nodes[0].orders if what == "apply"]
    assert weights == [3_000, 0]
    assert versions(world) == [{"2.0.0"}, {"2.0.0"}]


async def test_a_winning_b_waits_for_a_person_who_sees_the_evidence(world: World) -> None:
    world.figures.arms = {"1.0.0": Arm(errors=16), "2.0.0": Arm(errors=0)}
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(ab_test()))
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "B (2.0.0) is better by errorRate" in held.waiting_for
        assert held.experiment is not None
        assert held.experiment.metrics[0].a_estimate == pytest.approx(0.04)
        await send(handle, "promote")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert versions(world) == [{"2.0.0"}, {"2.0.0"}]


async def test_resuming_a_decided_test_tests_on_and_asks_again(world: World) -> None:
    world.figures.arms = {"1.0.0": Arm(errors=16), "2.0.0": Arm(errors=0)}
    async with world.working():
        await world.serve_first_version()
        request = world.request(ab_test())
        handle = await world.start(request)
        first = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        await send(handle, "resume")
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED and p.sequence > first.sequence + 2)
        await send(handle, "abort", reason="A is good enough")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ABORTED
    assert versions(world) == [{"1.0.0"}, {"1.0.0"}]
    assert (await world.kinds(request.deployment_id)).count("experiment") >= 2


async def test_a_winning_a_stays(world: World) -> None:
    world.figures.arms = {"1.0.0": Arm(errors=0), "2.0.0": Arm(errors=60)}
    async with world.working():
        await world.serve_first_version()
        before = await world.route()
        progress = await world.deploy(world.request(ab_test(thresholds=LENIENT, auto_promote=True)))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert progress.outcome_reason.startswith("A (1.0.0) stays: A (1.0.0) is better by errorRate")
    assert progress.experiment is not None
    assert progress.experiment.winner is Winner.A
    assert await world.route() == before
    assert versions(world) == [{"1.0.0"}, {"1.0.0"}]


@pytest.mark.parametrize(
    ("arm_a", "arm_b", "why"),
    [
        pytest.param(Arm(errors=4), Arm(errors=4), "which may as well be none", id="alike"),
        pytest.param(Arm(), Arm(requests=10), "too few to tell", id="few requests"),
        pytest.param(Arm(), Arm(requests=0), "no requests of B", id="none of B"),
        pytest.param(
            Arm(errors=0, latency_ms=900),
            Arm(errors=60),
            "the metrics disagree: A is better by errorRate",
            id="contradictory",
        ),
    ],
)
async def test_without_evidence_a_stays_and_says_why(world: World, arm_a: Arm, arm_b: Arm, why: str) -> None:
    world.figures.arms = {"1.0.0": arm_a, "2.0.0": arm_b}
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(ab_test(thresholds=LENIENT, auto_promote=True)))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert progress.outcome_reason.startswith("no winner, so A (1.0.0) stays: ")
    assert why in progress.outcome_reason
    assert versions(world) == [{"1.0.0"}, {"1.0.0"}]


async def test_total_loss_of_figures_keeps_a(world: World) -> None:
    world.figures.silent = True
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(ab_test(auto_promote=True)))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "no requests of B failed, no requests of A" in progress.outcome_reason


async def test_a_failing_guard_ends_the_test_at_once(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        config = ab_test(test_duration=timedelta(days=2), evaluation_interval=timedelta(milliseconds=100))
        handle = await world.start(world.request(config))
        await until(handle, lambda p: p.verdict is not None and p.verdict.outcome == "Pass")
        world.figures.arms["2.0.0"] = Arm(errors=200)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "the verdict failed at 50 %" in progress.outcome_reason
    assert versions(world) == [{"1.0.0"}, {"1.0.0"}]


async def test_a_better_b_that_breaks_a_limit_is_not_promoted_by_itself(world: World) -> None:
    world.figures.arms = {"1.0.0": Arm(errors=120), "2.0.0": Arm(errors=60)}
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(ab_test(auto_promote=True, auto_rollback=False)))
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "autoRollback is off" in held.waiting_for
        asked = held
        while asked.experiment is None:  # on a busy machine the guard may hold it again before the test's time is over
            seen = asked.sequence
            await send(handle, "resume")
            asked = await until(handle, lambda p, seen=seen: p.status is DeploymentStatus.PAUSED and p.sequence > seen)  # type: ignore[misc]
        assert asked.experiment.winner is Winner.B
        assert "a guard fails" in asked.waiting_for or "autoRollback is off" in asked.waiting_for
        await send(handle, "abort", reason="neither is good")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ABORTED
    assert versions(world) == [{"1.0.0"}, {"1.0.0"}]


async def test_promote_ends_the_test_early_and_the_evidence_so_far_decides(world: World) -> None:
    world.figures.arms = {"1.0.0": Arm(errors=16), "2.0.0": Arm(errors=0)}
    async with world.working():
        await world.serve_first_version()
        long = ab_test(test_duration=timedelta(days=2), evaluation_interval=timedelta(hours=1))
        handle = await world.start(world.request(long))
        await until(handle, lambda p: p.step_title.startswith("compare"))
        await send(handle, "promote", by="dana")
        progress = await handle.result()
        assert progress.status is DeploymentStatus.COMPLETED, "a person asked for it, so nobody needs to be asked again"
        world.figures.arms["1.0.0"] = Arm(errors=0)
        handle = await world.start(world.request(long, version="1.0.0"))
        await until(handle, lambda p: p.step_title.startswith("compare"))
        await send(handle, "promote", by="dana")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "no winner, so A (2.0.0) stays" in progress.outcome_reason


async def test_a_difference_below_the_one_that_counts_wins_nothing(world: World) -> None:
    world.figures.arms = {"1.0.0": Arm(errors=16), "2.0.0": Arm(errors=0)}
    metrics = (DecisionMetric.SUCCESS_RATE,)
    async with world.working():
        await world.serve_first_version()
        config = ab_test(auto_promote=True, min_difference=0.05, decision_metrics=metrics)
        progress = await world.deploy(world.request(config))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert progress.experiment is not None
    assert progress.experiment.metrics[0].b_estimate == 1


async def test_an_ab_test_needs_a_version_in_place(world: World) -> None:
    async with world.working():
        progress = await world.deploy(world.request(ab_test(), version="1.0.0"))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "nothing to compare 1.0.0 with" in progress.outcome_reason


async def test_a_tenant_of_the_test_stays_in_its_arm_when_a_canary_of_it_follows(world: World) -> None:
    """A retry reuses the cohort: the seed is that of plugin and version, whatever the strategy."""
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(ab_test()))
        await world.deploy(world.request(canary((50, 100))))
    seeds = {order.state.seed for _, order in world.nodes[0].orders if order.state.candidate_weight == 5_000}
    assert seeds == {f"{world.name}:2.0.0"}
