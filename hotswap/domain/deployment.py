"""A deployment as asked for (request and strategy configuration) and as it stands (progress, events)."""

import itertools
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hotswap.domain.aftercare import AftercareConfig
from hotswap.domain.analysis import (
    DecisionMetric,
    ExperimentVerdict,
    HostReport,
    InconclusivePolicy,
    Thresholds,
    Verdict,
)
from hotswap.domain.base import BoundedText, Instant, Model, PluginName
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.manifest import SemVer
from hotswap.domain.metrics import MetricSpec, Regression, unique_metrics


class Environment(StrEnum):
    DEVELOPMENT = "Development"
    QA = "QA"
    STAGING = "Staging"
    PRODUCTION = "Production"


class Strategy(StrEnum):
    DIRECT = "Direct"
    ROLLING = "Rolling"
    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    AB_TESTING = "ABTesting"


class Role(StrEnum):
    ADMIN = "Admin"
    DEVELOPER = "Developer"
    TENANT_OWNER = "TenantOwner"
    APPROVER = "Approver"
    VIEWER = "Viewer"


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero, e.g. PT10S")
    if value < timedelta(milliseconds=10):  # a busy loop of judgements; Temporal's own timers are no finer
        raise ValueError("must be at least 10 ms (PT0.01S)")
    if value > timedelta(days=30):
        raise ValueError("must be at most 30 days (P30D)")
    return value


def _climbing(steps: tuple[int, ...]) -> tuple[int, ...]:
    if not steps or len(steps) > 100:
        raise ValueError("must hold 1 to 100 percentages, e.g. [10, 30, 50, 100]")
    for step in steps:
        if not 1 <= step <= 100:
            raise ValueError(f"{step} is outside 1 to 100")
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError(f"must rise strictly, but got {list(steps)}")
    if steps[-1] != 100:
        raise ValueError(f"must end at 100, but ends at {steps[-1]}")
    return steps


class CommonConfig(AftercareConfig):
    """What every strategy takes."""

    trial_timeout: timedelta = timedelta(minutes=5)
    stage_timeout: timedelta = timedelta(minutes=2)
    drain_grace: timedelta = timedelta(seconds=30)
    thresholds: Thresholds = Field(default_factory=Thresholds)
    on_inconclusive: InconclusivePolicy = InconclusivePolicy.PAUSE
    auto_rollback: bool = True
    metrics: tuple[MetricSpec, ...] = Field(default=(), description="own metrics, beside what thresholds judge")
    regression: Regression = Field(
        default_factory=Regression, description="size of fault that the plan names a sample for"
    )

    @field_validator("metrics")
    @classmethod
    def _metrics_differ(cls, metrics: tuple[MetricSpec, ...]) -> tuple[MetricSpec, ...]:
        return unique_metrics(metrics)

    @field_validator("trial_timeout", "stage_timeout", "drain_grace")
    @classmethod
    def _durations_positive(cls, value: timedelta) -> timedelta:
        return _positive(value)


class DirectConfig(CommonConfig):
    """All traffic at once, after all nodes are ready; watched for `monitoring_period` when that is not zero."""

    kind: Literal["Direct"] = "Direct"
    monitoring_period: timedelta = Field(default=timedelta(0), ge=timedelta(0), le=timedelta(days=30))


class CanaryConfig(CommonConfig):
    """Percentages of TENANTS. `steps` (strictly increasing, 1 to 100, ending at 100) or initial + increment."""

    kind: Literal["Canary"] = "Canary"
    # Low traffic needs time, not a person (ADR 18): the step is repeated up to twice, then it pauses.
    on_inconclusive: InconclusivePolicy = InconclusivePolicy.EXTEND
    steps: tuple[int, ...] | None = None
    initial_percentage: int | None = Field(default=None, ge=1, le=100)
    increment_percentage: int | None = Field(default=None, ge=1, le=100)
    evaluation_period: timedelta = timedelta(minutes=10)
    evaluation_interval: timedelta | None = Field(
        default=None, description="default: a tenth of the period, 1 s to 30 s"
    )

    @field_validator("evaluation_period", "evaluation_interval")
    @classmethod
    def _periods_positive(cls, value: timedelta | None) -> timedelta | None:
        return None if value is None else _positive(value)

    @field_validator("steps")
    @classmethod
    def _steps_climb(cls, steps: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if steps is None else _climbing(steps)

    @model_validator(mode="after")
    def _one_form(self) -> "CanaryConfig":
        increments = self.initial_percentage is not None or self.increment_percentage is not None
        if self.steps is not None and increments:
            raise ValueError("steps: give either steps or initialPercentage and incrementPercentage, not both")
        return self


class RollingConfig(CommonConfig):
    """Node by node: `batch_size` nodes (default 1) or `batch_percent` of them at a time, each batch watched.

    Health checks gate each batch, so figures too few to tell do not stop it by default; a Fail still undoes all.
    """

    kind: Literal["Rolling"] = "Rolling"
    batch_size: int | None = Field(default=None, ge=1, le=10_000)
    batch_percent: int | None = Field(default=None, ge=1, le=100)
    wait_between_batches: timedelta = timedelta(seconds=30)
    health_check_timeout: timedelta = timedelta(seconds=30)
    progress_deadline: timedelta = Field(
        default=timedelta(minutes=10), description="for one batch to switch and be healthy; paused time not counted"
    )
    on_inconclusive: InconclusivePolicy = InconclusivePolicy.CONTINUE

    @field_validator("wait_between_batches", "health_check_timeout", "progress_deadline")
    @classmethod
    def _waits_positive(cls, value: timedelta) -> timedelta:
        return _positive(value)

    @model_validator(mode="after")
    def _one_batch_form(self) -> "RollingConfig":
        if self.batch_size is not None and self.batch_percent is not None:
            raise ValueError("batchSize: give either batchSize or batchPercent, not both")
        return self


class Switchover(StrEnum):
    INSTANT = "Instant"
    GRADUAL = "Gradual"


class BlueGreenConfig(CommonConfig):
    """Two colours: the new one is warmed and tested without tenants, then takes them all; the old one stays loaded."""

    kind: Literal["BlueGreen"] = "BlueGreen"
    warmup_period: timedelta = Field(
        default=timedelta(minutes=2), ge=timedelta(0), le=timedelta(days=30), description="PT0S: none"
    )
    smoke_timeout: timedelta = Field(default=timedelta(minutes=1), description="for all smoke tests on one node")
    switchover: Switchover = Switchover.INSTANT
    gradual_steps: tuple[int, ...] | None = Field(
        default=None, description="percentages of tenants when Gradual; default 25, 50, 75, 100"
    )
    monitoring_period: timedelta = Field(default=timedelta(minutes=5), description="after each change of weight")
    keep_previous_environment: bool = Field(
        default=True, description="the old version stays loaded: switch back < 10 s"
    )

    @field_validator("smoke_timeout", "monitoring_period")
    @classmethod
    def _colour_periods_positive(cls, value: timedelta) -> timedelta:
        return _positive(value)

    @field_validator("gradual_steps")
    @classmethod
    def _gradual_steps_climb(cls, steps: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if steps is None else _climbing(steps)

    @model_validator(mode="after")
    def _steps_are_gradual(self) -> "BlueGreenConfig":
        if self.gradual_steps is not None and self.switchover is Switchover.INSTANT:
            raise ValueError("gradualSteps: belongs to switchover Gradual")
        return self


class ABTestConfig(CommonConfig):
    """Both versions serve, each its own tenants, until the evidence says which is better. Without evidence A stays.

    `variant_a` is the version in place and `variant_b` the one deployed; given, they are checked.
    """

    kind: Literal["ABTesting"] = "ABTesting"
    variant_a: SemVer | None = None
    variant_b: SemVer | None = None
    traffic_split: int = Field(default=50, ge=1, le=99, description="percent of tenants that B serves")
    test_duration: timedelta = timedelta(hours=24)
    evaluation_interval: timedelta | None = Field(
        default=None, description="between two looks of the guards; default: a tenth of the duration, 1 s to 30 s"
    )
    decision_metrics: tuple[DecisionMetric, ...] = Field(
        default=(DecisionMetric.ERROR_RATE, DecisionMetric.LATENCY_P99)
    )
    min_difference: float = Field(
        default=0.0, ge=0, lt=1, description="of a decision metric's share of requests, absolute; less does not count"
    )
    auto_promote: bool = Field(default=False, description="make a winning B stable without asking a person")

    @field_validator("test_duration", "evaluation_interval")
    @classmethod
    def _durations_of_test_positive(cls, value: timedelta | None) -> timedelta | None:
        return None if value is None else _positive(value)

    @field_validator("decision_metrics")
    @classmethod
    def _decision_metrics_differ(cls, metrics: tuple[DecisionMetric, ...]) -> tuple[DecisionMetric, ...]:
        if not metrics:
            raise ValueError(f"must name at least one of {', '.join(DecisionMetric)}")
        if len(set(metrics)) != len(metrics):
            raise ValueError("names a metric twice")
        return metrics


StrategyConfig = Annotated[
    DirectConfig | CanaryConfig | RollingConfig | BlueGreenConfig | ABTestConfig, Field(discriminator="kind")
]


class OnConflict(StrEnum):
    """What a start does when another deployment holds its (environment, plugin)."""

    REJECT = "reject"
    QUEUE = "queue"
    SUPERSEDE = "supersede"


class DeploymentRequest(Model):
    """The input of a deployment workflow: what somebody asked for, validated, before it is planned."""

    deployment_id: str
    plugin: PluginName
    version: SemVer
    environment: Environment
    config: StrategyConfig
    initiated_by: str = Field(min_length=1, max_length=255)
    reason: BoundedText = ""
    requested_at: Instant
    rollback_of: str | None = Field(
        default=None, description="the completed deployment this one takes back: no approval and no trial are asked"
    )
    retry_of: str | None = Field(default=None, description="the deployment that ended badly and is tried again by this")
    on_conflict: OnConflict = OnConflict.REJECT
    hotfix: bool = Field(default=False, description="observations end as soon as enough was seen; guards stay")
    freeze_override_reason: BoundedText = Field(
        default="", description="why freezes must not hold it (an Admin's word); the stop switch holds it all the same"
    )
    override_hold: BoundedText = Field(
        default="", description="why a version that was taken back here may come again; lifts its hold"
    )
    allow_deprecated: bool = Field(
        default=False, exclude_if=lambda allow: not allow, description="a Deprecated version is meant"
    )

    @property
    def strategy(self) -> Strategy:
        return Strategy(self.config.kind)


class NodeProgress(Model):
    """One node as the deployment sees it."""

    node_id: str
    state: str = Field(description="Ready, Lost or Failed")
    generation: int = 0
    hosts: tuple[HostReport, ...] = ()
    detail: BoundedText = ""


class ApprovalGiven(Model):
    approver: str
    roles: tuple[Role, ...]
    comment: BoundedText = ""
    at: Instant


class DeploymentProgress(Model):
    """A deployment as it stands: the `status` query, the projection in PostgreSQL and the facade's answer alike.

    `step_number` counts from 1 (0 = not begun). `set_weight_percent` is what was ordered; the verdict's
    `actual_weight_percent` is what requests really did.
    """

    deployment_id: str
    plugin: PluginName
    environment: Environment
    strategy: Strategy
    to_version: SemVer
    from_version: SemVer | None = None
    status: DeploymentStatus = DeploymentStatus.PENDING
    initiated_by: str
    reason: BoundedText = ""
    step_number: int = 0
    step_count: int = 0
    step_title: str = ""
    set_weight_percent: int = 0
    route_generation: int = 0
    waiting_for: BoundedText = ""
    nodes: tuple[NodeProgress, ...] = ()
    verdict: Verdict | None = None
    experiment: ExperimentVerdict | None = Field(default=None, description="an A/B test's evidence so far")
    approvals: tuple[ApprovalGiven, ...] = ()
    approvals_required: int = 0
    approval_needs_admin: bool = Field(default=False, description="one of the approvers must be an Admin")
    approval_expires_at: Instant | None = Field(default=None, description="while it awaits approval")
    plan_hash: str = ""
    digest: str = ""
    outcome_reason: BoundedText = Field(default="", description="why it was undone, rejected, aborted or failed")
    what_to_do: BoundedText = Field(default="", description="for a person, when one must act")
    requested_at: Instant
    started_at: Instant | None = None
    finished_at: Instant | None = None
    rolled_back_at: Instant | None = None
    retry_of: str | None = None
    rollback_of: str | None = None
    on_conflict: OnConflict = OnConflict.REJECT
    hotfix: bool = False
    held_by: str = Field(default="", description="the freeze that holds it at its step")
    sequence: int = Field(default=0, description="rises with every change; a lower one is older")

    @property
    def progress_percent(self) -> int:
        return round(100 * self.step_number / self.step_count) if self.step_count else 0


class TimelineEvent(Model):
    """One line of a deployment's history, as people read it. `sequence` counts from 1 within the deployment."""

    sequence: int = Field(ge=1)
    at: Instant
    kind: str
    message: BoundedText
    data: dict[str, Any] = Field(default_factory=dict)
