"""A rollout's own metrics on a real Temporal server: what a provider says, or does not say, decides as its policy has it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from hotswap.domain.analysis import InconclusivePolicy, Outcome
from hotswap.domain.deployment import CanaryConfig
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.metrics import Measurement, MetricQuestion, MetricSpec
from tests.workflow.strategies import blue_green
from tests.workflow.world import Arm, World, canary, send, until

SHORT = timedelta(milliseconds=120)


def metric(**more: Any) -> MetricSpec:
    base = {"name": "tickets", "provider": "prometheus", "query": "tickets", "operator": "<=", "threshold": 5}
    return MetricSpec.model_validate({**base, **more})


def watched(*metrics: MetricSpec, **more: Any) -> CanaryConfig:
    """Four looks a step."""
    config = canary((50, 100), period=SHORT, metrics=metrics, **more)
    return config.model_copy(update={"evaluation_interval": SHORT / 4})


async def test_a_good_own_metric_lets_the_rollout_complete_and_keeps_its_evidence(world: World) -> None:
    world.metrics.tell("tickets", 3)
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(watched(metric())))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert progress.verdict is not None
    (told,) = [one for one in progress.verdict.metrics if one.metric == "tickets"]
    assert (told.outcome, told.estimate, told.threshold) == (Outcome.PASS, 3.0, 5.0)
    assert (told.provider, told.query, told.raw) == ("prometheus", "tickets", "3.0")


async def test_a_failing_own_metric_takes_the_version_back_and_says_why(world: World) -> None:
    world.metrics.tell("tickets", 9)
    async with world.working():
        await world.serve_first_version()
        before = await world.route()
        progress = await world.deploy(world.request(watched(metric())))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "tickets: 9 on 2.0.0; good is <= 5" in progress.outcome_reason
    assert await world.route() == before


async def test_a_metric_must_fail_as_often_in_a_row_as_its_limit_says(world: World) -> None:
    said: list[float] = []

    def flickers(question: MetricQuestion) -> Any:
        said.append(9 if len(said) in (0, 1, 3, 4) else 1)  # never three in a row
        return _value(said[-1])

    world.metrics.script("tickets", flickers)
    async with world.working():
        await world.serve_first_version()
        # Long enough that the five first looks fall into the first step, also when each takes a busy machine 300 ms:
        # a step that ends on a failure below the limit is extended twice only, and then waits for a person.
        config = canary((50, 100), period=timedelta(seconds=2), metrics=(metric(consecutiveFailureLimit=3),))
        config = config.model_copy(update={"evaluation_interval": SHORT / 4})
        progress = await world.deploy(world.request(config))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert said.count(9) == 4


async def test_a_failure_below_its_limit_at_the_steps_end_extends_the_step_instead_of_passing(world: World) -> None:
    world.metrics.tell("tickets", 9)
    async with world.working():
        await world.serve_first_version()
        config = watched(metric(consecutiveFailureLimit=6), on_inconclusive=InconclusivePolicy.CONTINUE)
        progress = await world.deploy(world.request(config))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "look 6 in a row" in progress.outcome_reason
    assert progress.set_weight_percent == 0


async def test_a_metric_that_shall_pause_holds_for_a_person_who_may_go_on(world: World) -> None:
    world.metrics.tell("tickets", 9)
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(watched(metric(policy={"onFail": "pause"}))))
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "its policy is to pause" in held.waiting_for
        assert held.set_weight_percent == 50
        world.metrics.tell("tickets", 1)
        await send(handle, "resume")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED


async def test_a_version_whose_metric_still_fails_is_held_again_and_never_passes(world: World) -> None:
    world.metrics.tell("tickets", 9)
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(watched(metric(policy={"onFail": "pause"}))))
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        await send(handle, "resume")
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED and p.sequence > held.sequence + 3)
        assert (await world.route()).candidate_weight == 5_000
        await send(handle, "rollback", reason="it is bad indeed")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        ({"onError": "rollback"}, DeploymentStatus.ROLLED_BACK),
        ({"onError": "pause"}, DeploymentStatus.PAUSED),
        ({"onError": "continue"}, DeploymentStatus.COMPLETED),
    ],
    ids=["rollback", "pause", "continue"],
)
async def test_a_provider_that_is_away_too_long_is_dealt_with_as_its_policy_says(
    world: World, policy: dict[str, str], status: DeploymentStatus
) -> None:
    world.metrics.go_away()
    async with world.working():
        await world.serve_first_version()
        # Long enough for three looks in the first step, also when each takes a busy machine 300 ms.
        config = watched(metric(policy=policy, errorLimit=3)).model_copy(update={"evaluation_period": 10 * SHORT})
        handle = await world.start(world.request(config))
        ended = await until(handle, lambda p: p.status is status)
        if status is DeploymentStatus.PAUSED:
            assert "tickets: prometheus said nothing (3 looks in a row" in ended.waiting_for
            await send(handle, "abort", reason="enough")
        progress = await handle.result()
    if status is DeploymentStatus.ROLLED_BACK:
        assert "the verdict is Error" in progress.outcome_reason
    assert len(world.metrics.questions) >= 3


async def test_resuming_after_the_error_limit_looks_again_before_anything_else(world: World) -> None:
    world.metrics.go_away()
    async with world.working():
        await world.serve_first_version()
        # The limit is reached with the step's last look.
        handle = await world.start(world.request(watched(metric(errorLimit=4))))
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        world.metrics.come_back()
        world.metrics.tell("tickets", 1)
        await send(handle, "resume")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED


async def test_a_provider_that_comes_back_in_time_stops_nobody(world: World) -> None:
    away = [True, True]

    def late(question: MetricQuestion) -> Any:
        if away:
            away.pop()
            raise _fault()
        return _value(1)

    world.metrics.script("tickets", late)
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(watched(metric(errorLimit=3))))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        ({"onNoData": "continue"}, DeploymentStatus.COMPLETED),
        ({"onNoData": "rollback"}, DeploymentStatus.ROLLED_BACK),
        ({"onNoData": "inconclusive", "onInconclusive": "extend"}, DeploymentStatus.PAUSED),
    ],
    ids=["continue", "rollback", "extend-then-pause"],
)
async def test_no_data_is_dealt_with_as_its_policy_says(
    world: World, policy: dict[str, str], status: DeploymentStatus
) -> None:
    world.metrics.tell("tickets", None)
    async with world.working():
        await world.serve_first_version()
        request = world.request(watched(metric(policy=policy)))
        handle = await world.start(request)
        await until(handle, lambda p: p.status is status)
        if status is DeploymentStatus.PAUSED:
            timeline = await handle.query("timeline")
            assert sum("watching on" in event["message"] for event in timeline) == 2, "extended twice, then paused"
            await send(handle, "abort", reason="enough")
        await handle.result()


async def test_a_built_in_fail_does_not_wait_for_a_slow_provider(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)

    class Slow(type(world.metrics)):  # type: ignore[misc]
        async def measure(self, question: MetricQuestion) -> Any:
            await _forever()

    world.metrics.__class__ = Slow
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(watched(metric())))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "error-rate" in progress.outcome_reason


async def test_a_comparison_asks_about_both_versions_where_both_have_traffic(world: World) -> None:
    world.metrics.script("tickets", lambda question: _value(3 if question.version == "2.0.0" else 2))
    spec = metric(query="tickets{version}", compare="baseline-ratio", threshold=1.5)
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(watched(spec)))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    asked = {(question.weight_percent, question.version) for question in world.metrics.questions}
    assert asked == {(50, "2.0.0"), (50, "1.0.0")}, "at 100 % nobody is left to compare with"


async def test_no_own_metric_is_asked_while_the_version_serves_nobody(world: World) -> None:
    """The warm-up of an idle colour: without tenants there is nothing to tell, so it must not wait for it."""
    world.metrics.tell("tickets", 1)
    async with world.working():
        await world.serve_first_version()
        progress = await world.deploy(world.request(blue_green(metrics=(metric(),))))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert {question.weight_percent for question in world.metrics.questions} == {100}


async def test_a_nodes_figure_is_an_own_metric_too(world: World) -> None:
    world.figures.arms["2.0.0"] = Arm(requests=4_000, latency_ms=300)
    async with world.working():
        await world.serve_first_version()
        spec = metric(name="median", provider="nodes", query="latency-p50", operator="<", threshold=100)
        progress = await world.deploy(world.request(watched(spec)))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "median: latency-p50 of 2.0.0" in progress.outcome_reason


LOST: dict[str, Arm] | None = None
"""No node answers at all."""


@pytest.mark.parametrize(
    ("arms", "policy"),
    [
        pytest.param({"2.0.0": Arm(30, 1), "1.0.0": Arm(30, 0)}, "pause", id="sparse-errors-against-zero"),
        pytest.param({"2.0.0": Arm(0)}, "extend", id="new-arm-empty"),
        pytest.param({"1.0.0": Arm(0)}, "rollback", id="old-arm-empty"),
        *(pytest.param(LOST, policy, id=f"total-loss-of-metrics-{policy}") for policy in InconclusivePolicy),
    ],
)
async def test_what_is_inconclusive_follows_the_policy(world: World, arms: dict[str, Arm] | None, policy: str) -> None:
    ends = {"continue": DeploymentStatus.COMPLETED, "rollback": DeploymentStatus.ROLLED_BACK}
    async with world.working():
        await world.serve_first_version()
        world.figures.arms.update(arms or {})
        world.figures.silent = arms is LOST
        config = canary((50, 100), on_inconclusive=InconclusivePolicy(policy))
        handle = await world.start(world.request(config))
        ended = await until(handle, lambda p: p.status is ends.get(policy, DeploymentStatus.PAUSED))
        assert ended.verdict is not None
        if ended.status is DeploymentStatus.PAUSED:
            assert ended.verdict.outcome is Outcome.INCONCLUSIVE
            timeline = await handle.query("timeline")
            extended = sum("watching on" in event["message"] for event in timeline)
            assert extended == (2 if policy == "extend" else 0)
            await send(handle, "abort", reason="seen")
        await handle.result()


def _value(value: float) -> Any:
    return Measurement(value=value)


def _fault() -> Exception:
    return MetricProviderFault("away", transient=True)


async def _forever() -> None:
    await asyncio.Event().wait()
