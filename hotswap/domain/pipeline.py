"""A pipeline as asked for and as it stands: one version on its way through environments, with soak times and gates.

Pure. Its statuses and their legal moves are one table with one door (`advance`), as hotswap.domain.lifecycle has it for
deployments. Neighbours: workflows.pipeline carries it out, every stage is a deployment of its own.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from hotswap.domain.base import BoundedText, Instant, Model, PluginName
from hotswap.domain.deployment import ApprovalGiven, Environment, Role, StrategyConfig, TimelineEvent
from hotswap.domain.errors import IllegalTransition
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.manifest import SemVer

LONGEST_SOAK = timedelta(days=30)


class PipelineStatus(StrEnum):
    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    AWAITING_APPROVAL = "AwaitingApproval"  # a gate of its own; approvals of a stage's deployment are that deployment's
    PAUSED = "Paused"
    COMPLETED = "Completed"
    ROLLED_BACK = "RolledBack"
    REJECTED = "Rejected"
    ABORTED = "Aborted"
    FAILED = "Failed"


ENDED = frozenset(
    {
        PipelineStatus.COMPLETED,
        PipelineStatus.ROLLED_BACK,
        PipelineStatus.REJECTED,
        PipelineStatus.ABORTED,
        PipelineStatus.FAILED,
    }
)

RETRYABLE = frozenset({PipelineStatus.ROLLED_BACK, PipelineStatus.REJECTED, PipelineStatus.FAILED})
"""Ended in a stage: `retry` begins that stage again."""


class PipelineEvent(StrEnum):
    BEGIN = "begin"
    ASK_APPROVAL = "ask-approval"
    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    ROLL_BACK = "roll-back"
    REJECT = "reject"
    ABORT = "abort"
    FAIL = "fail"
    RETRY = "retry"


_S, _E = PipelineStatus, PipelineEvent
_ENDINGS = {_E.ROLL_BACK: _S.ROLLED_BACK, _E.REJECT: _S.REJECTED, _E.ABORT: _S.ABORTED, _E.FAIL: _S.FAILED}
_MOVES: dict[tuple[PipelineStatus, PipelineEvent], PipelineStatus] = {
    (_S.PENDING, _E.BEGIN): _S.IN_PROGRESS,
    (_S.IN_PROGRESS, _E.ASK_APPROVAL): _S.AWAITING_APPROVAL,
    (_S.AWAITING_APPROVAL, _E.APPROVE): _S.IN_PROGRESS,
    (_S.IN_PROGRESS, _E.PAUSE): _S.PAUSED,
    (_S.PAUSED, _E.RESUME): _S.IN_PROGRESS,
    # A pause that comes in the last stage finds nothing left to hold.
    (_S.IN_PROGRESS, _E.COMPLETE): _S.COMPLETED,
    (_S.PAUSED, _E.COMPLETE): _S.COMPLETED,
    (_S.PENDING, _E.ABORT): _S.ABORTED,
    **{
        (status, event): ending
        for status in (_S.IN_PROGRESS, _S.AWAITING_APPROVAL, _S.PAUSED)
        for event, ending in _ENDINGS.items()
    },
    **{(status, _E.RETRY): _S.IN_PROGRESS for status in RETRYABLE},
}


def moves() -> dict[tuple[PipelineStatus, PipelineEvent], PipelineStatus]:
    """The whole table, for the docs and the test that walks every pair."""
    return dict(_MOVES)


def advance(status: PipelineStatus, event: PipelineEvent) -> PipelineStatus:
    """The status after `event`. Raises IllegalTransition (never retried) when the table has no such move."""
    try:
        return _MOVES[(status, event)]
    except KeyError:
        raise IllegalTransition(f"'{event}' makes no sense while the pipeline is {status}") from None


class StageConflict(StrEnum):
    """What a stage does when another deployment of the plugin runs in its environment."""

    WAIT = "wait"
    FAIL = "fail"


class Gate(Model):
    """`required` different people with `role` (an Admin may always), never who started the pipeline."""

    role: Role = Role.APPROVER
    required: int = Field(default=1, ge=1, le=5)


class PipelineStage(Model):
    """`gate` is asked before the stage begins; `soak` is how long it must have served before the next may begin."""

    environment: Environment
    config: StrategyConfig
    gate: Gate | None = None
    soak: timedelta = timedelta(0)

    @field_validator("soak")
    @classmethod
    def _soak_in_range(cls, value: timedelta) -> timedelta:
        if not timedelta(0) <= value <= LONGEST_SOAK:
            raise ValueError("must be zero to 30 days, e.g. PT1H")
        return value


class PipelineRequest(Model):
    """The input of a pipeline workflow, validated."""

    pipeline_id: str = Field(pattern=r"^pip_[0-9a-f]{32}$")
    plugin: PluginName
    version: SemVer
    stages: tuple[PipelineStage, ...] = Field(min_length=1, max_length=4)
    on_conflict: StageConflict = StageConflict.WAIT
    initiated_by: str = Field(min_length=1, max_length=255)
    reason: BoundedText = ""
    freeze_override_reason: BoundedText = Field(default="", description="of an Admin; goes to every stage's deployment")
    requested_at: Instant

    @model_validator(mode="after")
    def _in_order_of_promotion(self) -> Self:
        ranks = [tuple(Environment).index(stage.environment) for stage in self.stages]
        if ranks != sorted(set(ranks)):
            known = ", ".join(Environment)
            raise ValueError(f"stages: each environment once and in the order of promotion ({known})")
        if self.stages[0].gate is not None:
            raise ValueError("stages.0.gate: a gate stands between two stages; there is none before the first")
        return self


class StageState(StrEnum):
    WAITING = "Waiting"
    GATE = "Gate"
    RUNNING = "Running"
    SOAKING = "Soaking"
    DONE = "Done"
    SKIPPED = "Skipped"  # the environment serves the version already
    STOPPED = "Stopped"


class StageProgress(Model):
    """One stage as it stands. `deployment_status` is the last word of its deployment."""

    environment: Environment
    strategy: str
    state: StageState = StageState.WAITING
    attempt: int = 0
    deployment_id: str = ""
    deployment_status: DeploymentStatus | None = None
    step_title: str = ""
    gate: Gate | None = None
    gate_expires_at: Instant | None = Field(default=None, description="of a gate that was asked")
    approvals: tuple[ApprovalGiven, ...] = ()
    started_at: Instant | None = None
    completed_at: Instant | None = None
    soak_until: Instant | None = None
    detail: BoundedText = ""


class PipelineProgress(Model):
    """A pipeline as it stands: the `status` query, the row in PostgreSQL and the facade's answer alike."""

    pipeline_id: str
    plugin: PluginName
    version: SemVer
    status: PipelineStatus = PipelineStatus.PENDING
    initiated_by: str
    reason: BoundedText = ""
    stages: tuple[StageProgress, ...]
    stage_number: int = Field(default=0, description="counted from 1; 0 = not begun")
    waiting_for: BoundedText = ""
    outcome_reason: BoundedText = Field(default="", description="which stage ended it, and why")
    what_to_do: BoundedText = ""
    retry_until: Instant | None = Field(default=None, description="after it ended in a stage: how long retry is taken")
    requested_at: Instant
    started_at: Instant | None = None
    finished_at: Instant | None = None
    timeline: tuple[TimelineEvent, ...] = Field(default=(), description="the newest lines")
    sequence: int = Field(default=0, description="rises with every change; a lower one is older")

    @property
    def newest_event(self) -> int:
        return self.timeline[-1].sequence if self.timeline else 0


def pipeline_workflow_id(plugin: str, pipeline_id: str) -> str:
    return f"pipeline/{plugin}/{pipeline_id}"
