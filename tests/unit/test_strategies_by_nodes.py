"""Plans of Rolling, BlueGreen and ABTesting as tables and as properties, and what their configurations may hold."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hotswap.domain.analysis import DecisionMetric, InconclusivePolicy, Thresholds
from hotswap.domain.deployment import (
    ABTestConfig,
    BlueGreenConfig,
    DeploymentRequest,
    DirectConfig,
    Environment,
    RollingConfig,
    Strategy,
    StrategyConfig,
    Switchover,
)
from hotswap.domain.errors import Conflict, InvalidInput
from hotswap.domain.plan import (
    Experiment,
    Observe,
    Plan,
    PromoteVersion,
    ShiftTenants,
    SmokeNodes,
    Step,
    SwitchNodes,
    WarmUp,
    guard_of,
    step_title,
)
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.domain.routes import ArtifactRef, RouteState
from hotswap.strategies.registry import default_config, make_plan, parse_config

OLD = ArtifactRef(plugin="phone", version="1.0.0", digest="a" * 64, size_bytes=10)
NEW = ArtifactRef(plugin="phone", version="2.0.0", digest="b" * 64, size_bytes=11)
FREE = EnvironmentPolicy(name=Environment.QA, rank=1, default_strategy=Strategy.ROLLING, required_approvals=0)

BEFORE, AFTER = ["verify-artifact", "run-trial", "stage-version"], ["promote-version", "retire-version"]


def plan(
    config: StrategyConfig,
    previous: ArtifactRef | None = OLD,
    rollback_of: str | None = None,
    warm: tuple[ArtifactRef, ...] = (),
) -> Plan:
    request = DeploymentRequest(
        deployment_id="dep_1",
        plugin="phone",
        version="2.0.0",
        environment=Environment.QA,
        config=config,
        initiated_by="ada",
        requested_at=datetime(2026, 1, 1, tzinfo=UTC),
        rollback_of=rollback_of,
    )
    return make_plan(request, FREE, NEW, previous, warm)


def shape(made: Plan) -> list[str]:
    return [
        f"{step.kind} {step.weight_percent}" if isinstance(step, ShiftTenants | Observe) else step.kind
        for step in made.steps
    ]


def only(made: Plan, kind: type[Any]) -> Any:
    (step,) = [step for step in made.steps if isinstance(step, kind)]
    return step


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(RollingConfig(), [*BEFORE, "switch-nodes", *AFTER], id="rolling"),
        pytest.param(
            BlueGreenConfig(),
            [*BEFORE, "warm-up", "smoke-nodes", "shift-tenants 100", "observe 100", *AFTER],
            id="blue-green at once",
        ),
        pytest.param(
            BlueGreenConfig(switchover=Switchover.GRADUAL, gradual_steps=(40, 100), warmup_period=timedelta(0)),
            [
                *BEFORE,
                "smoke-nodes",
                "shift-tenants 40",
                "observe 40",
                "shift-tenants 100",
                "observe 100",
                *AFTER,
            ],
            id="blue-green by steps, not warmed",
        ),
        pytest.param(
            ABTestConfig(traffic_split=20), [*BEFORE, "shift-tenants 20", "experiment", *AFTER], id="a/b test"
        ),
    ],
)
def test_each_strategy_has_its_shape(config: StrategyConfig, expected: list[str]) -> None:
    assert shape(plan(config)) == expected


def test_defaults_are_those_of_the_specification() -> None:
    rolling = only(plan(default_config("Rolling")), SwitchNodes)
    assert (rolling.batch_size, rolling.batch_percent) == (1, None)
    assert (rolling.wait_between_batches, rolling.health_check_timeout) == (timedelta(seconds=30),) * 2
    assert rolling.progress_deadline == timedelta(minutes=10)
    green = plan(default_config("BlueGreen"))
    assert only(green, WarmUp).period == timedelta(minutes=2)
    assert only(green, Observe).period == timedelta(minutes=5)
    assert only(green, PromoteVersion).keep_previous_warm
    test = only(plan(default_config("ABTesting")), Experiment)
    assert (test.split_percent, test.duration, test.auto_promote) == (50, timedelta(hours=24), False)
    assert test.decision_metrics == (DecisionMetric.ERROR_RATE, DecisionMetric.LATENCY_P99)


def test_gradual_switchover_climbs_by_quarters_unless_told() -> None:
    made = plan(BlueGreenConfig(switchover=Switchover.GRADUAL))
    weights = [step.weight_percent for step in made.steps if isinstance(step, ShiftTenants)]
    assert weights == [25, 50, 75, 100]
    parts = [step.thresholds.alpha for step in made.steps if isinstance(step, Observe)]
    assert sum(parts) == pytest.approx(Thresholds().alpha)


def test_the_old_colour_is_let_go_when_that_is_asked() -> None:
    assert not only(plan(BlueGreenConfig(keep_previous_environment=False)), PromoteVersion).keep_previous_warm


@pytest.mark.parametrize("config", [DirectConfig(), RollingConfig()])
def test_going_back_to_a_warm_version_is_one_switch(config: StrategyConfig) -> None:
    assert shape(plan(config, rollback_of="dep_0", warm=(NEW,))) == AFTER
    assert "stage-version" in shape(plan(config, rollback_of="dep_0", warm=()))
    assert "run-trial" in shape(plan(config, warm=(NEW,))), "only a rollback goes without a trial"


def test_another_artifact_of_the_same_version_is_not_the_warm_one() -> None:
    other = NEW.model_copy(update={"digest": "c" * 64})
    assert "stage-version" in shape(plan(DirectConfig(), rollback_of="dep_0", warm=(other,)))


def test_a_test_needs_a_version_in_place() -> None:
    with pytest.raises(Conflict, match=r"nothing to compare 2\.0\.0 with"):
        plan(ABTestConfig(), previous=None)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (ABTestConfig(variant_a="1.1.0"), "config.variantA"),
        (ABTestConfig(variant_b="1.0.0"), "config.variantB"),
    ],
)
def test_variants_must_be_the_two_versions_at_hand(config: ABTestConfig, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        plan(config)
    assert [fault.field for fault in refused.value.faults] == [field]
    plan(ABTestConfig(variant_a="1.0.0", variant_b="2.0.0"))


FAULTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("Rolling", {"batchSize": 0}, "config.batchSize", "greater than or equal to 1"),
    ("Rolling", {"batchPercent": 101}, "config.batchPercent", "less than or equal to 100"),
    ("Rolling", {"batchSize": 2, "batchPercent": 10}, "config.batchSize", "not both"),
    ("Rolling", {"waitBetweenBatches": "PT0S"}, "config.waitBetweenBatches", "longer than zero"),
    ("Rolling", {"progressDeadline": 600}, "config.progressDeadline", "ISO 8601"),
    ("BlueGreen", {"warmupPeriod": "-PT1S"}, "config.warmupPeriod", "0 seconds"),
    ("BlueGreen", {"switchover": "Slow"}, "config.switchover", "'Instant' or 'Gradual'"),
    ("BlueGreen", {"gradualSteps": [50, 100]}, "config.gradualSteps", "belongs to switchover Gradual"),
    ("BlueGreen", {"switchover": "Gradual", "gradualSteps": [50]}, "config.gradualSteps", "must end at 100"),
    ("BlueGreen", {"switchover": "Gradual", "gradualSteps": ["5", 100]}, "config.gradualSteps.0", "whole percentages"),
    ("ABTesting", {"trafficSplit": 0}, "config.trafficSplit", "greater than or equal to 1"),
    ("ABTesting", {"trafficSplit": 100}, "config.trafficSplit", "less than or equal to 99"),
    ("ABTesting", {"decisionMetrics": []}, "config.decisionMetrics", "at least one of errorRate"),
    ("ABTesting", {"decisionMetrics": ["errorRate"] * 2}, "config.decisionMetrics", "names a metric twice"),
    ("ABTesting", {"decisionMetrics": ["beauty"]}, "config.decisionMetrics.0", "'errorRate'"),
    ("ABTesting", {"testDuration": "P31D"}, "config.testDuration", "at most 30 days"),
    ("ABTesting", {"variantA": "one"}, "config.variantA", ""),
]


@pytest.mark.parametrize(("strategy", "raw", "field", "said"), FAULTS)
def test_every_fault_is_named_by_its_path(strategy: str, raw: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_config(strategy, raw)
    found = {fault.field: fault.message for fault in refused.value.faults}
    assert field in found, found
    assert said in found[field]


PERIODS = st.timedeltas(min_value=timedelta(milliseconds=10), max_value=timedelta(days=30))
ROLLING = st.one_of(
    st.builds(RollingConfig, batch_size=st.integers(1, 10_000), wait_between_batches=PERIODS),
    st.builds(RollingConfig, batch_percent=st.integers(1, 100), wait_between_batches=PERIODS),
)
TESTS = st.builds(ABTestConfig, traffic_split=st.integers(1, 99), test_duration=PERIODS)
COLOURS = st.builds(BlueGreenConfig, warmup_period=PERIODS, monitoring_period=PERIODS)


@given(st.one_of(ROLLING, TESTS, COLOURS))
def test_every_plan_survives_json_and_names_every_step(config: StrategyConfig) -> None:
    made = plan(config)
    assert Plan.model_validate_json(made.model_dump_json()) == made
    assert all(step_title(step) for step in made.steps)
    strategy = Strategy(config.kind)
    assert parse_config(strategy, json.loads(config.model_dump_json())) == config


@given(st.one_of(ROLLING, TESTS, COLOURS))
def test_no_look_comes_later_than_the_end_of_what_is_watched(config: StrategyConfig) -> None:
    for step in plan(config).steps:
        guard = guard_of(step)
        if guard is not None:
            assert timedelta(0) < guard.interval <= guard.period


@given(percent=st.integers(1, 100), nodes=st.integers(1, 1000))
def test_a_batch_by_percent_is_never_empty_and_never_more_than_asked(percent: int, nodes: int) -> None:
    step = only(plan(RollingConfig(batch_percent=percent)), SwitchNodes)
    batch = step.batch_of(nodes)
    assert 1 <= batch <= max(1, nodes * percent / 100)


def test_steps_of_before_keep_their_json_and_a_plan_its_hash() -> None:
    """A running deployment's plan, and a route that a node of the release before reads, must not change by new fields."""
    steps: TypeAdapter[Any] = TypeAdapter(Step)
    assert steps.dump_python(PromoteVersion(), mode="json") == {"kind": "promote-version"}
    assert "switchedNodes" not in RouteState().model_dump(mode="json")
    assert RouteState(candidate=NEW, switched_nodes=("n1",)).model_dump(mode="json")["switchedNodes"] == ["n1"]


def test_only_rolling_goes_on_by_default_when_figures_are_too_few() -> None:
    assert RollingConfig().on_inconclusive is InconclusivePolicy.CONTINUE
    assert BlueGreenConfig().on_inconclusive is InconclusivePolicy.PAUSE


def test_smoke_tests_come_before_any_tenant() -> None:
    kinds = [step.kind for step in plan(BlueGreenConfig()).steps]
    assert kinds.index("smoke-nodes") < kinds.index("shift-tenants")
    assert only(plan(BlueGreenConfig()), SmokeNodes).timeout == timedelta(minutes=1)
