"""A plan is data: a list of tagged steps that the workflow interprets and never recomputes (design invariant 1)."""

import hashlib
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from hotswap.domain.aftercare import Aftercare
from hotswap.domain.analysis import DecisionMetric, InconclusivePolicy, Thresholds
from hotswap.domain.base import Model, PluginName
from hotswap.domain.manifest import SemVer
from hotswap.domain.metrics import ExpectedSample, MetricSpec
from hotswap.domain.routes import ArtifactRef


class VerifyArtifact(Model):
    """Fetch the artifact and compare its SHA-256 with the registry's."""

    kind: Literal["verify-artifact"] = "verify-artifact"


class RunTrial(Model):
    """Run the manifest's smoke tests in the sandbox, before any node hears of the version."""

    kind: Literal["run-trial"] = "run-trial"
    timeout: timedelta


class AwaitApproval(Model):
    """Wait for `required` different people, none of them the initiator; one an Admin if `require_admin`."""

    kind: Literal["await-approval"] = "await-approval"
    required: int = Field(ge=1)
    require_admin: bool
    expires_after: timedelta


class StageVersion(Model):
    """Load the version beside the old one on every live node, at weight 0, and probe it there."""

    kind: Literal["stage-version"] = "stage-version"
    timeout: timedelta


class ShiftTenants(Model):
    """Set the share of tenants that the new version serves; complete when every live node has acknowledged."""

    kind: Literal["shift-tenants"] = "shift-tenants"
    weight_percent: int = Field(ge=0, le=100)


class Observe(Model):
    """Watch probes and figures for `period`, judging every `interval`; a Fail ends it at once."""

    kind: Literal["observe"] = "observe"
    weight_percent: int = Field(ge=0, le=100)
    period: timedelta
    interval: timedelta
    thresholds: Thresholds
    on_inconclusive: InconclusivePolicy
    max_extensions: int = Field(default=2, ge=0)
    auto_rollback: bool = True
    # Left out while empty, so that a plan recorded before there were any keeps its hash.
    expected_sample: tuple[ExpectedSample, ...] = Field(default=(), exclude_if=lambda value: not value)


class SwitchNodes(Model):
    """Let the new version serve ALL tenants node by node, `batch_size` (or `batch_percent` of the nodes) at a time.

    A batch is done when each of its nodes has switched and is healthy (within `health_check_timeout`) and was watched for
    `wait_between_batches`. A batch that takes longer than `progress_deadline` to switch and be healthy, pauses not counted,
    is undone.
    """

    kind: Literal["switch-nodes"] = "switch-nodes"
    batch_size: int | None = Field(default=None, ge=1)
    batch_percent: int | None = Field(default=None, ge=1, le=100)
    wait_between_batches: timedelta
    health_check_timeout: timedelta
    progress_deadline: timedelta
    interval: timedelta
    thresholds: Thresholds
    on_inconclusive: InconclusivePolicy
    max_extensions: int = Field(default=2, ge=0)
    auto_rollback: bool = True

    def batch_of(self, nodes: int) -> int:
        """How many of `nodes` switch at a time: at least one; a percentage is rounded down, the careful way."""
        if self.batch_size is not None:
            return self.batch_size
        return max(1, nodes * (self.batch_percent or 1) // 100)


class WarmUp(Model):
    """Keep the new version loaded without tenants for `period`: its hosts must neither crash nor fail their probes."""

    kind: Literal["warm-up"] = "warm-up"
    period: timedelta
    interval: timedelta
    thresholds: Thresholds = Field(default_factory=Thresholds)
    auto_rollback: bool = True


class SmokeNodes(Model):
    """Run the manifest's smoke tests on the idle version's host on every node; `timeout` for all tests of one node."""

    kind: Literal["smoke-nodes"] = "smoke-nodes"
    timeout: timedelta


class Experiment(Model):
    """Serve both versions for `duration` and let the evidence say which one is better; guards run all the time.

    Goes on to the next step only with a winner B (the new version), and without a person only if `auto_promote`.
    """

    kind: Literal["experiment"] = "experiment"
    split_percent: int = Field(ge=1, le=99, description="share of tenants that B serves")
    duration: timedelta
    interval: timedelta
    decision_metrics: tuple[DecisionMetric, ...] = Field(min_length=1)
    min_difference: float = Field(ge=0, lt=1, description="absolute, of a decision metric's share; less does not count")
    auto_promote: bool
    thresholds: Thresholds
    auto_rollback: bool = True


class PromoteVersion(Model):
    """Make the new version the stable one for all tenants; the one before may stay loaded, to go back without loading."""

    kind: Literal["promote-version"] = "promote-version"
    keep_previous_warm: bool = Field(default=False, exclude_if=lambda keep: not keep)
    warm_revisions: int = Field(default=1, ge=1, description="how many earlier versions", exclude_if=lambda n: n == 1)


class Bake(Model):
    """Guard the promoted version for `period` while the one before stays warm; a Fail goes back to it."""

    kind: Literal["bake"] = "bake"
    period: timedelta
    interval: timedelta
    thresholds: Thresholds
    on_inconclusive: InconclusivePolicy
    max_extensions: int = Field(default=2, ge=0)
    auto_rollback: bool = True


class RetireVersion(Model):
    """Drain and unload every version that the routes no longer name. Warm ones stay, unless `drop_warm` (after a bake)."""

    kind: Literal["retire-version"] = "retire-version"
    drain_grace: timedelta
    drop_warm: bool = Field(default=False, exclude_if=lambda drop: not drop)


Step = Annotated[
    VerifyArtifact
    | RunTrial
    | AwaitApproval
    | StageVersion
    | ShiftTenants
    | Observe
    | SwitchNodes
    | WarmUp
    | SmokeNodes
    | Experiment
    | PromoteVersion
    | Bake
    | RetireVersion,
    Field(discriminator="kind"),
]


class Plan(Model):
    """What will happen, whole. `plan_hash` binds approvals to it: another plan, another hash."""

    plugin: PluginName
    environment: str
    strategy: str
    target: ArtifactRef
    previous: ArtifactRef | None
    cohort_seed: str
    steps: tuple[Step, ...]
    node_quorum: float = Field(
        default=0.5, ge=0, lt=1, description="more than this share of live nodes must follow a wave"
    )
    aftercare: Aftercare | None = Field(
        default=None, description="what watches the version once it is Completed", exclude_if=lambda care: care is None
    )

    freezes: bool = Field(
        default=False, description="a freeze holds it; undoing is never held", exclude_if=lambda freezes: not freezes
    )
    hotfix: bool = Field(
        default=False, description="observations end as soon as enough was seen", exclude_if=lambda hotfix: not hotfix
    )
    metrics: tuple[MetricSpec, ...] = Field(
        default=(), exclude_if=lambda metrics: not metrics, description="own metrics, asked at every look of every step"
    )

    @property
    def plan_hash(self) -> str:
        """SHA-256 over the plan's canonical JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def to_version(self) -> SemVer:
        return self.target.version

    @property
    def from_version(self) -> SemVer | None:
        return self.previous.version if self.previous else None


def guard_of(step: Step) -> Observe | None:
    """What guards the new version's traffic while this step lasts, as an observation; None for a step that only acts."""
    match step:
        case Observe():
            return step
        case SwitchNodes():
            return Observe(
                weight_percent=100,
                period=step.wait_between_batches,
                interval=step.interval,
                thresholds=step.thresholds,
                on_inconclusive=step.on_inconclusive,
                max_extensions=step.max_extensions,
                auto_rollback=step.auto_rollback,
            )
        case Bake():
            return Observe(
                weight_percent=100,
                period=step.period,
                interval=step.interval,
                thresholds=step.thresholds,
                on_inconclusive=step.on_inconclusive,
                max_extensions=step.max_extensions,
                auto_rollback=step.auto_rollback,
            )
        case Experiment():
            return Observe(
                weight_percent=step.split_percent,
                period=step.duration,
                interval=step.interval,
                thresholds=step.thresholds,
                on_inconclusive=InconclusivePolicy.CONTINUE,  # what the evidence says decides, not the guards' silence
                auto_rollback=step.auto_rollback,
            )
        case _:
            return None


def step_title(step: Step) -> str:
    """A step in a person's words, for the Web UI, the CLI and the timeline."""
    match step:
        case VerifyArtifact():
            return "verify the artifact"
        case RunTrial():
            return "trial in the sandbox"
        case AwaitApproval(required=required):
            return f"wait for {required} approval{'s' if required > 1 else ''}"
        case StageVersion():
            return "load beside the old version on every node"
        case ShiftTenants(weight_percent=weight):
            return f"shift {weight} % of tenants"
        case Observe(weight_percent=weight):
            return f"observe at {weight} %"
        case SwitchNodes(batch_size=size, batch_percent=percent):
            batch = f"{size} at a time" if size else f"{percent} % at a time"
            return f"switch the nodes, {batch}"
        case WarmUp():
            return "warm up the idle version"
        case SmokeNodes():
            return "smoke tests on every node"
        case Experiment(split_percent=split):
            return f"compare both versions, {split} % on the new one"
        case PromoteVersion():
            return "promote"
        case Bake():
            return "bake"
        case RetireVersion():
            return "retire the old version"
