"""The one state object of a pipeline workflow. Handlers change it, the workflow reads it, continue-as-new carries it.

No I/O and no waiting here: only facts and the moves the pipeline's table allows.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from hotswap.domain.base import BoundedText, Model, bounded
from hotswap.domain.deployment import ApprovalGiven, TimelineEvent
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.pipeline import (
    ENDED,
    PipelineEvent,
    PipelineProgress,
    PipelineRequest,
    PipelineStage,
    PipelineStatus,
    StageProgress,
    StageState,
    advance,
)
from workflows.messages import Command

TIMELINE_KEPT = 60
"""Lines kept in the workflow, its row and its query; the audit keeps what people did for ever."""


class Phase(StrEnum):
    """Where in a stage a pipeline is, so that continuing as new loses nothing."""

    GATE = "gate"
    DEPLOY = "deploy"
    SOAK = "soak"


class StageTold(Model):
    """What a stage's deployment tells its pipeline whenever it changes."""

    deployment_id: str
    status: DeploymentStatus
    step_title: str = ""
    waiting_for: BoundedText = ""


class PipelineStop(BaseModel):
    """Somebody (or an expired gate) wants it ended. `event` is the move that ends it."""

    event: PipelineEvent
    reason: str


class Order(BaseModel):
    """A command on its way to the running stage's deployment."""

    name: str
    command: Command


class PipelineState(BaseModel):
    request: PipelineRequest
    status: PipelineStatus = PipelineStatus.PENDING
    stages: list[StageProgress] = Field(default_factory=list)
    stage_index: int = 0
    phase: Phase = Phase.GATE
    gate_since: datetime | None = None
    running: str = ""
    """The deployment that runs now, so that commands go there too."""
    outbox: list[Order] = Field(default_factory=list)
    stop: PipelineStop | None = None

    waiting_for: str = ""
    outcome_reason: str = ""
    what_to_do: str = ""
    retry_until: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    timeline: list[TimelineEvent] = Field(default_factory=list)
    sequence: int = 0
    revision: int = 0
    recorded_sequence: int = 0
    recorded_revision: int = 0

    @classmethod
    def of(cls, request: PipelineRequest) -> "PipelineState":
        stages = [
            StageProgress(environment=stage.environment, strategy=stage.config.kind, gate=stage.gate)
            for stage in request.stages
        ]
        return cls(request=request, stages=stages)

    @property
    def stage(self) -> PipelineStage | None:
        stages = self.request.stages
        return stages[self.stage_index] if self.stage_index < len(stages) else None

    @property
    def entry(self) -> StageProgress:
        """The present stage as it stands (the last one when all are done)."""
        return self.stages[min(self.stage_index, len(self.stages) - 1)]

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def update(self, **changes: Any) -> None:
        """Change the present stage's entry."""
        changed = self.entry.model_copy(update=changes)
        if changed != self.entry:
            self.stages[min(self.stage_index, len(self.stages) - 1)] = changed
            self.touch()

    def wait_for(self, what: str) -> None:
        if self.waiting_for != what:
            self.waiting_for = bounded(what)
            self.touch()

    def note(self, at: datetime, kind: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        """Add a line to the timeline; every change that people should see goes through here."""
        self.sequence += 1
        self.touch()
        event = TimelineEvent(sequence=self.sequence, at=at, kind=kind, message=bounded(message), data=dict(data or {}))
        self.timeline = [*self.timeline[-(TIMELINE_KEPT - 1) :], event]

    def touch(self) -> None:
        self.revision += 1

    def move(self, event: PipelineEvent, at: datetime, message: str, by: str = "hotswap") -> None:
        """Go to the next status by the table and note it. Raises IllegalTransition."""
        before = self.status
        self.status = advance(self.status, event)
        self.note(at, "status", message, {"from": before, "to": self.status, "by": by})

    def end(self, event: PipelineEvent, at: datetime, reason: str, what_to_do: str = "") -> None:
        """It ends in the present stage; environments before it keep the version."""
        self.outcome_reason, self.what_to_do, self.waiting_for = bounded(reason), bounded(what_to_do), ""
        self.finished_at = at
        self.update(state=StageState.STOPPED, detail=bounded(reason))
        self.move(event, at, reason)

    def begin_again(self, at: datetime, by: str, reason: str) -> None:
        """Take the stage that ended it from the start; a gate that was refused is asked again."""
        self.outcome_reason = self.what_to_do = self.waiting_for = ""
        self.finished_at = self.retry_until = self.stop = None
        self.outbox.clear()
        again: dict[str, Any] = {"state": StageState.WAITING, "detail": "", "soak_until": None, "completed_at": None}
        if self.phase is Phase.GATE:
            again["approvals"] = ()
        else:
            self.phase = Phase.DEPLOY
        self.update(**again)
        environment = self.request.stages[self.stage_index].environment
        self.move(PipelineEvent.RETRY, at, f"{environment} tried again by {by}: {reason or 'no reason given'}", by)

    def next_stage(self) -> None:
        self.stage_index += 1
        self.phase, self.gate_since = Phase.GATE, None
        self.wait_for("")

    def approve(self, given: ApprovalGiven) -> None:
        self.update(approvals=(*self.entry.approvals, given))

    def unrecorded(self) -> tuple[TimelineEvent, ...]:
        return tuple(event for event in self.timeline if event.sequence > self.recorded_sequence)

    def progress(self) -> PipelineProgress:
        request = self.request
        return PipelineProgress(
            pipeline_id=request.pipeline_id,
            plugin=request.plugin,
            version=request.version,
            status=self.status,
            initiated_by=request.initiated_by,
            reason=request.reason,
            stages=tuple(self.stages),
            stage_number=min(self.stage_index + 1, len(self.stages)) if self.started_at else 0,
            waiting_for=self.waiting_for,
            outcome_reason=self.outcome_reason,
            what_to_do=self.what_to_do,
            retry_until=self.retry_until,
            requested_at=request.requested_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            timeline=tuple(self.timeline),
            sequence=self.revision,
        )

    def describe(self) -> str:
        """Markdown for the Web UI's details."""
        request = self.request
        lines = [f"**{request.plugin} {request.version}** through {len(self.stages)} environments: {self.status}"]
        for entry in self.stages:
            words = [f"- **{entry.environment}** by {entry.strategy}: {entry.state}"]
            if entry.deployment_id:
                words.append(f"{entry.deployment_id} {entry.deployment_status or ''} {entry.step_title}".rstrip())
            if entry.detail:
                words.append(entry.detail)
            lines.append(", ".join(words))
        if self.waiting_for:
            lines.append(f"waiting for {self.waiting_for}")
        if self.outcome_reason:
            lines.append(f"outcome: {self.outcome_reason}")
        if self.what_to_do:
            lines.append(f"**what to do: {self.what_to_do}**")
        return "\n\n".join(lines)
