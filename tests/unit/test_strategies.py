"""Plans as tables and as properties: what each strategy does, in which order, for every configuration."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.domain.analysis import InconclusivePolicy, Thresholds
from hotswap.domain.deployment import (
    CanaryConfig,
    DeploymentRequest,
    DirectConfig,
    Environment,
    Strategy,
    StrategyConfig,
)
from hotswap.domain.errors import Conflict
from hotswap.domain.plan import AwaitApproval, Observe, Plan, RetireVersion, RunTrial, ShiftTenants, StageVersion
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.domain.routes import ArtifactRef
from hotswap.strategies.common import judging_interval
from hotswap.strategies.registry import make_plan

OLD = ArtifactRef(plugin="phone", version="1.0.0", digest="a" * 64, size_bytes=10)
NEW = ArtifactRef(plugin="phone", version="2.0.0", digest="b" * 64, size_bytes=11)
FREE = EnvironmentPolicy(name=Environment.DEVELOPMENT, rank=0, default_strategy=Strategy.DIRECT, required_approvals=0)
GUARDED = EnvironmentPolicy(
    name=Environment.PRODUCTION,
    rank=3,
    default_strategy=Strategy.CANARY,
    required_approvals=2,
    require_admin_approval=True,
)


def request(config: StrategyConfig, *, rollback_of: str | None = None) -> DeploymentRequest:
    return DeploymentRequest(
        deployment_id="dep_1",
        plugin="phone",
        version="2.0.0",
        environment=Environment.STAGING,
        config=config,
        initiated_by="ada",
        requested_at=datetime(2026, 1, 1, tzinfo=UTC),
        rollback_of=rollback_of,
    )


def plan(
    config: StrategyConfig,
    policy: EnvironmentPolicy = FREE,
    previous: ArtifactRef | None = OLD,
    rollback_of: str | None = None,
) -> Plan:
    return make_plan(request(config, rollback_of=rollback_of), policy, NEW, previous)


def shape(made: Plan) -> list[str]:
    return [
        f"{step.kind} {step.weight_percent}" if isinstance(step, ShiftTenants | Observe) else step.kind
        for step in made.steps
    ]


def weights(made: Plan) -> list[int]:
    return [step.weight_percent for step in made.steps if isinstance(step, ShiftTenants)]


BEFORE, AFTER = ["verify-artifact", "run-trial", "stage-version"], ["promote-version", "retire-version"]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(plan(DirectConfig()), BEFORE + AFTER, id="direct"),
        pytest.param(
            plan(DirectConfig(monitoring_period=timedelta(minutes=5))),
            [*BEFORE, "shift-tenants 100", "observe 100", *AFTER],
            id="direct-watched",
        ),
        pytest.param(
            plan(DirectConfig(), GUARDED),
            ["verify-artifact", "run-trial", "await-approval", "stage-version", *AFTER],
            id="direct-approved",
        ),
        pytest.param(
            plan(CanaryConfig(steps=(25, 100)), GUARDED),
            [
                "verify-artifact",
                "run-trial",
                "await-approval",
                "stage-version",
                "shift-tenants 25",
                "observe 25",
                "shift-tenants 100",
                "observe 100",
                *AFTER,
            ],
            id="canary-approved",
        ),
        pytest.param(
            plan(CanaryConfig(steps=(50, 100)), previous=None),
            [*BEFORE, "shift-tenants 50", "observe 50", "shift-tenants 100", "observe 100", *AFTER],
            id="first-deployment",
        ),
        pytest.param(
            plan(DirectConfig(), GUARDED, rollback_of="dep_0"),
            ["verify-artifact", "stage-version", *AFTER],
            id="taking-back-waits-for-nobody",
        ),
        pytest.param(
            plan(CanaryConfig(steps=(100,)), GUARDED, rollback_of="dep_0"),
            ["verify-artifact", "stage-version", "shift-tenants 100", "observe 100", *AFTER],
            id="canary-taking-back",
        ),
    ],
)
def test_plan_has_the_steps_of_its_strategy_in_order(made: Plan, expected: list[str]) -> None:
    assert shape(made) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CanaryConfig(), [10, 30, 50, 100]),
        (CanaryConfig(steps=(1, 2, 100)), [1, 2, 100]),
        (CanaryConfig(initial_percentage=10, increment_percentage=30), [10, 40, 70, 100]),
        (CanaryConfig(initial_percentage=25), [25, 45, 65, 85, 100]),
        (CanaryConfig(increment_percentage=45), [10, 55, 100]),
        (CanaryConfig(increment_percentage=40), [10, 50, 90, 100]),
        (CanaryConfig(initial_percentage=100), [100]),
        (CanaryConfig(initial_percentage=99, increment_percentage=100), [99, 100]),
    ],
)
def test_canary_climbs_as_configured_and_ends_at_100(config: CanaryConfig, expected: list[int]) -> None:
    assert weights(plan(config)) == expected


def test_plan_carries_what_was_configured() -> None:
    limits = Thresholds(max_error_rate=0.2, alpha=0.04)
    made = plan(
        CanaryConfig(
            steps=(50, 100),
            evaluation_period=timedelta(seconds=40),
            thresholds=limits,
            on_inconclusive=InconclusivePolicy.ROLLBACK,
            auto_rollback=False,
            trial_timeout=timedelta(seconds=7),
            stage_timeout=timedelta(seconds=8),
            drain_grace=timedelta(seconds=9),
        ),
        GUARDED,
    )
    by_type = {type(step): step for step in made.steps}
    observe = by_type[Observe]
    assert isinstance(observe, Observe)
    assert (observe.period, observe.interval) == (timedelta(seconds=40), timedelta(seconds=4))
    assert (observe.on_inconclusive, observe.auto_rollback) == (InconclusivePolicy.ROLLBACK, False)
    assert observe.thresholds == limits.model_copy(update={"alpha": 0.02})
    assert by_type[RunTrial] == RunTrial(timeout=timedelta(seconds=7))
    assert by_type[StageVersion] == StageVersion(timeout=timedelta(seconds=8))
    assert by_type[RetireVersion] == RetireVersion(drain_grace=timedelta(seconds=9))
    assert by_type[AwaitApproval] == AwaitApproval(required=2, require_admin=True, expires_after=timedelta(hours=48))
    assert (made.cohort_seed, made.strategy, made.environment) == ("phone:2.0.0", "Canary", "Staging")
    assert (made.target, made.previous, made.plugin) == (NEW, OLD, "phone")


@pytest.mark.parametrize(
    ("period", "asked", "expected"),
    [
        (600, None, 30),
        (100, None, 10),
        (5, None, 1),
        (0.4, None, 0.4),
        (86_400, None, 30),
        (100, 3, 3),
        (100, 200, 100),
        (100, 0.01, 0.01),
    ],
)
def test_judging_interval_is_a_tenth_within_1_to_30_s_and_never_over_the_period(
    period: float, asked: float | None, expected: float
) -> None:
    interval = judging_interval(timedelta(seconds=period), None if asked is None else timedelta(seconds=asked))
    assert interval == timedelta(seconds=expected)


def test_version_already_in_place_is_a_conflict_that_says_so() -> None:
    with pytest.raises(Conflict, match=r"^2\.0\.0 is already what Staging serves$"):
        make_plan(request(DirectConfig()), FREE, NEW, NEW)


periods = st.integers(10, 10**6).map(lambda ms: timedelta(milliseconds=ms))
configs: st.SearchStrategy[StrategyConfig] = st.one_of(
    st.builds(DirectConfig, monitoring_period=st.one_of(st.just(timedelta(0)), periods)),
    st.builds(
        CanaryConfig,
        steps=st.sets(st.integers(1, 99)).map(lambda some: (*sorted(some), 100)),
        evaluation_period=periods,
        evaluation_interval=st.one_of(st.none(), periods),
    ),
    st.builds(
        CanaryConfig,
        initial_percentage=st.one_of(st.none(), st.integers(1, 100)),
        increment_percentage=st.one_of(st.none(), st.integers(1, 100)),
        evaluation_period=periods,
    ),
)
plans = st.builds(
    plan, configs, st.sampled_from([FREE, GUARDED]), st.sampled_from([OLD, None]), st.sampled_from([None, "dep_0"])
)


@given(plans)
@settings(deadline=None)
def test_every_plan_keeps_the_order_that_safety_needs(made: Plan) -> None:
    kinds = [step.kind for step in made.steps]
    climbed = weights(made)
    assert kinds[0] == "verify-artifact"
    assert kinds[-2:] == ["promote-version", "retire-version"]
    assert [kinds.count(once) for once in ("stage-version", "promote-version", "retire-version")] == [1, 1, 1]
    assert all(earlier < later for earlier, later in pairwise(climbed))
    assert not climbed or climbed[-1] == 100
    if climbed:
        assert kinds.index("stage-version") < kinds.index("shift-tenants")
    for waiting in ("run-trial", "await-approval"):
        if waiting in kinds:
            assert kinds.index(waiting) < kinds.index("stage-version")
    for step, following in pairwise(made.steps):
        if isinstance(step, ShiftTenants):
            assert isinstance(following, Observe)
            assert following.weight_percent == step.weight_percent
    for step in made.steps:
        if isinstance(step, Observe):
            assert timedelta(0) < step.interval <= step.period
    spent = sum(step.thresholds.alpha for step in made.steps if isinstance(step, Observe))
    assert spent == pytest.approx(Thresholds().alpha if climbed else 0)


@given(plans)
@settings(deadline=None)
def test_planning_twice_gives_the_same_plan_and_json_keeps_every_step_kind(made: Plan) -> None:
    back = Plan.model_validate_json(made.model_dump_json())
    assert back == made
    assert [type(step) for step in back.steps] == [type(step) for step in made.steps]
    assert back.plan_hash == made.plan_hash
