"""What plans say about the time after the rollout: bake, what stays warm, who watches."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from hotswap.domain.aftercare import warm_after
from hotswap.domain.deployment import (
    BlueGreenConfig,
    CanaryConfig,
    DeploymentRequest,
    DirectConfig,
    Environment,
    Strategy,
    StrategyConfig,
)
from hotswap.domain.errors import InvalidInput
from hotswap.domain.plan import Bake, Observe, Plan, PromoteVersion, RetireVersion, guard_of, step_title
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.domain.routes import RouteState
from hotswap.strategies.registry import make_plan, parse_config
from tests.contract.factories import EPOCH, make_ref

POLICY = EnvironmentPolicy(name=Environment.DEVELOPMENT, rank=0, default_strategy=Strategy.DIRECT, required_approvals=0)
HOUR = timedelta(hours=1)


def plan_of(config: StrategyConfig, previous: str | None = "1.0.0", warm: tuple[str, ...] = (), **more: object) -> Plan:
    request = DeploymentRequest(
        deployment_id="dep_1",
        plugin="invoice",
        version="2.0.0",
        environment=Environment.DEVELOPMENT,
        config=config,
        initiated_by="ada",
        requested_at=EPOCH,
        **more,
    )
    before = make_ref("invoice", previous) if previous else None
    return make_plan(request, POLICY, make_ref("invoice", "2.0.0"), before, [make_ref("invoice", one) for one in warm])


def ending(plan: Plan) -> list[str]:
    kinds: list[str] = [step.kind for step in plan.steps]
    return kinds[kinds.index("promote-version") :]


def promotion(plan: Plan) -> PromoteVersion:
    return next(step for step in plan.steps if isinstance(step, PromoteVersion))


def retirement(plan: Plan) -> RetireVersion:
    return next(step for step in plan.steps if isinstance(step, RetireVersion))


def test_without_aftercare_the_old_version_goes_at_once() -> None:
    plan = plan_of(DirectConfig())
    assert ending(plan) == ["promote-version", "retire-version"]
    assert not promotion(plan).keep_previous_warm
    assert not retirement(plan).drop_warm


def test_a_baking_version_keeps_the_old_one_warm_until_the_bake_is_over() -> None:
    plan = plan_of(CanaryConfig(bake_period=HOUR))
    assert ending(plan) == ["promote-version", "bake", "retire-version"]
    assert promotion(plan).keep_previous_warm
    assert retirement(plan).drop_warm
    [bake] = [step for step in plan.steps if isinstance(step, Bake)]
    assert (bake.period, bake.interval) == (HOUR, timedelta(seconds=30))
    assert step_title(bake) == "bake"
    guard = guard_of(bake)
    assert guard is not None
    assert (guard.weight_percent, guard.thresholds) == (100, bake.thresholds)


def test_bake_and_steps_together_spend_the_declared_alpha() -> None:
    config = CanaryConfig(steps=(10, 50, 100), bake_period=HOUR)
    plan = plan_of(config)
    spent = sum(step.thresholds.alpha for step in plan.steps if isinstance(step, Observe | Bake))
    assert spent == pytest.approx(config.thresholds.alpha)


@pytest.mark.parametrize(
    ("config", "revisions"),
    [
        (DirectConfig(rollback_window=HOUR), 1),
        (DirectConfig(rollback_window_revisions=3), 3),
        (DirectConfig(rollback_window=HOUR, rollback_window_revisions=2, bake_period=HOUR), 2),
        (BlueGreenConfig(keep_previous_environment=False, rollback_window=HOUR), 1),
        (BlueGreenConfig(), 1),
    ],
)
def test_a_window_keeps_old_versions_warm(config: StrategyConfig, revisions: int) -> None:
    plan = plan_of(config)
    assert promotion(plan).keep_previous_warm
    assert promotion(plan).warm_revisions == revisions
    assert not retirement(plan).drop_warm


@pytest.mark.parametrize(
    ("stable", "warm", "revisions", "kept"),
    [
        ("1.0.0", (), 1, ["1.0.0"]),
        ("1.0.0", ("0.9.0", "0.8.0"), 1, ["1.0.0"]),
        ("1.0.0", ("0.9.0", "0.8.0"), 2, ["1.0.0", "0.9.0"]),
        ("1.0.0", ("2.0.0", "0.9.0"), 3, ["1.0.0", "0.9.0"]),  # it comes again: it is not kept beside itself
        (None, (), 2, []),
    ],
)
def test_the_newest_old_versions_stay_warm(
    stable: str | None, warm: tuple[str, ...], revisions: int, kept: list[str]
) -> None:
    before = RouteState(
        stable=make_ref("invoice", stable) if stable else None, warm=tuple(make_ref("invoice", one) for one in warm)
    )
    assert [ref.version for ref in warm_after(before, make_ref("invoice", "2.0.0"), revisions)] == kept


def test_the_monitor_is_recorded_in_the_plan() -> None:
    care = plan_of(CanaryConfig(rollback_window=HOUR, monitor_interval=timedelta(seconds=5))).aftercare
    assert care is not None
    assert (care.interval, care.failures, care.rollback_window) == (timedelta(seconds=5), 3, HOUR)
    off = plan_of(DirectConfig(auto_rollback=False)).aftercare
    assert off is not None
    assert not off.auto_rollback


@pytest.mark.parametrize(("previous", "more"), [(None, {}), ("1.0.0", {"rollback_of": "dep_0"})])
def test_nobody_goes_back_from_a_first_version_or_from_a_rollback(previous: str | None, more: dict[str, Any]) -> None:
    assert plan_of(DirectConfig(), previous, **more).aftercare is None


def test_going_back_to_a_warm_version_is_a_switch_and_nothing_before_it() -> None:
    plan = plan_of(DirectConfig(), warm=("2.0.0",), rollback_of="dep_0")
    assert [step.kind for step in plan.steps] == ["promote-version", "retire-version"]
    cold = plan_of(DirectConfig(), warm=("0.9.0",), rollback_of="dep_0")
    assert [step.kind for step in cold.steps] == [
        "verify-artifact",
        "stage-version",
        "promote-version",
        "retire-version",
    ]
    forward = plan_of(DirectConfig(), warm=("2.0.0",))
    assert "run-trial" in [step.kind for step in forward.steps], "only a rollback may leave the trial out"


def test_the_plan_of_a_release_before_keeps_its_hash() -> None:
    """Approvals given before an upgrade stay bound: what is new is left out of the JSON while it says nothing."""
    plan = plan_of(DirectConfig(), previous=None)
    text = plan.model_dump_json()
    for word in ("aftercare", "dropWarm", "warmRevisions", "keepPreviousWarm"):
        assert word not in text


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"bakePeriod": "P31D"}, "config.bakePeriod"),
        ({"rollbackWindow": "-PT1S"}, "config.rollbackWindow"),
        ({"rollbackWindowRevisions": 11}, "config.rollbackWindowRevisions"),
        ({"monitorInterval": "PT0S"}, "config.monitorInterval"),
        ({"monitorInterval": 5}, "config.monitorInterval"),
    ],
)
def test_what_cannot_be_is_refused_by_name(raw: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_config("Direct", raw)
    assert [fault.field for fault in refused.value.faults] == [field]
    assert refused.value.faults[0].message


def test_the_domain_refuses_it_too() -> None:
    with pytest.raises(ValidationError, match="30 days"):
        DirectConfig(bake_period=timedelta(days=31))
