"""The one state object of a deployment workflow. Handlers change it, the machinery reads it, continue-as-new carries it.

No I/O and no waiting here: only facts and the moves the lifecycle table allows.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field

from activities.planning import Planned
from hotswap.analysis.windows import limits_of_window
from hotswap.domain.analysis import ArmCounts, ExperimentVerdict, Verdict
from hotswap.domain.base import bounded
from hotswap.domain.deployment import (
    ApprovalGiven,
    DeploymentProgress,
    DeploymentRequest,
    NodeProgress,
    TimelineEvent,
)
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus, Event, advance
from hotswap.domain.metrics import MetricCounts, Ruling
from hotswap.domain.plan import AwaitApproval, Experiment, Observe, Plan, Step, SwitchNodes, guard_of, step_title
from hotswap.domain.registry import Approval
from hotswap.domain.routes import RouteState
from workflows.messages import Command

TIMELINE_KEPT = 200
"""Events kept in the workflow for its query and for continue-as-new; PostgreSQL keeps all."""


class Stop(BaseModel):
    """Somebody (or an expired gate) wants the deployment undone. `event` is the move that ends it."""

    event: Event
    reason: str


class Watch(BaseModel):
    """How far an observation is, so that a pause or continue-as-new does not lose it."""

    since: datetime
    remaining: timedelta
    extensions: int = 0


class RollingProgress(BaseModel):
    """How far the nodes are switched. `done` have switched and are healthy, in that order; `lost` took no order."""

    done: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    left: timedelta
    """Of the progress deadline of the present batch. Pauses and watching do not eat it."""


class ArmsProgress(BaseModel):
    """An A/B test's counts of the chapters that are closed, and since when the present one counts."""

    a: ArmCounts = Field(default_factory=ArmCounts)
    b: ArmCounts = Field(default_factory=ArmCounts)
    counted_since: datetime
    asking: bool = False
    """B has won and a person was asked; when the run goes on after that, the answer is there."""


class DeploymentState(BaseModel):
    request: DeploymentRequest
    status: DeploymentStatus = DeploymentStatus.PENDING
    planned: Planned | None = None
    step_index: int = 0
    generation: int = 0
    route: RouteState = Field(default_factory=RouteState)
    routed: bool = False
    set_weight_percent: int = 0
    weight_since: datetime | None = None
    waiting_for: str = ""
    nodes: dict[str, NodeProgress] = Field(default_factory=dict)
    verdict: Verdict | None = None
    watch: Watch | None = None
    window: int = 1
    """Which window of a step that has many (batches of nodes, chapters of a test) is watched; from 1."""
    rolling: RollingProgress | None = None
    arms: ArmsProgress | None = None
    experiment: ExperimentVerdict | None = None
    counts: tuple[MetricCounts, ...] = ()
    ruling: Ruling | None = None
    """Of the own metrics: how they went in this step, and what follows from the last look."""

    approvals: dict[str, ApprovalGiven] = Field(default_factory=dict)
    rejections: list[ApprovalGiven] = Field(default_factory=list)
    approval_expires_at: datetime | None = None
    stop: Stop | None = None
    pause_wanted: bool = False
    promote_wanted: bool = False
    promote_full: bool = False
    """Somebody wants every wait that is left skipped; see workflows.haste."""
    freeze_news: int = 0
    """Rises when freezes changed or are overridden; see workflows.freezes."""
    held_by: str = ""
    """The freeze that holds it now."""
    freeze_override: Command | None = None
    freezes_passed: list[str] = Field(default_factory=list)
    waiters: list[str] = Field(default_factory=list)
    """Workflow ids of queued deployments to tell when this one is over."""

    outcome_reason: str = ""
    what_to_do: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    rolled_back_at: datetime | None = None

    timeline: list[TimelineEvent] = Field(default_factory=list)
    sequence: int = 0
    revision: int = 0
    recorded_sequence: int = 0
    recorded_revision: int = 0

    @property
    def plan(self) -> Plan:
        """The recorded plan. Only asked for after planning."""
        if self.planned is None:
            raise RuntimeError("the deployment is not planned yet")
        return self.planned.plan

    @property
    def step(self) -> Step | None:
        if self.planned is None or self.step_index >= len(self.plan.steps):
            return None
        return self.plan.steps[self.step_index]

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    def note(self, at: datetime, kind: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        """Add a line to the timeline; every change that people should see goes through here."""
        self.sequence += 1
        self.touch()
        event = TimelineEvent(sequence=self.sequence, at=at, kind=kind, message=bounded(message), data=dict(data or {}))
        self.timeline = [*self.timeline[-(TIMELINE_KEPT - 1) :], event]

    def touch(self) -> None:
        """Something that people see changed without a line of its own (a verdict's figures, a node's hosts)."""
        self.revision += 1

    def move(self, event: Event, at: datetime, message: str, by: str = "hotswap") -> None:
        """Go to the next status by the lifecycle table and note it. Raises IllegalTransition."""
        before = self.status
        self.status = advance(self.status, event)
        self.note(at, "status", message, {"from": before, "to": self.status, "by": by})

    def unrecorded(self) -> tuple[TimelineEvent, ...]:
        return tuple(event for event in self.timeline if event.sequence > self.recorded_sequence)

    def decisions(self) -> tuple[Approval, ...]:
        """Approvals and rejections as rows, bound to the digest and the plan they were given for."""
        if self.planned is None:
            return ()
        rows = [(given, "Approved") for given in self.approvals.values()]
        rows += [(given, "Rejected") for given in self.rejections]
        return tuple(
            Approval(
                deployment_id=self.request.deployment_id,
                approver=given.approver,
                roles=given.roles,
                decision=decision,
                comment=given.comment,
                digest=self.plan.target.digest,
                plan_hash=self.plan.plan_hash,
                decided_at=given.at,
            )
            for given, decision in rows
        )

    def progress(self) -> DeploymentProgress:
        """The deployment as people see it."""
        request, plan, step = self.request, self.planned.plan if self.planned else None, self.step
        gate = next((one for one in plan.steps if isinstance(one, AwaitApproval)), None) if plan else None
        awaited = self.status is DeploymentStatus.AWAITING_APPROVAL
        return DeploymentProgress(
            deployment_id=request.deployment_id,
            plugin=request.plugin,
            environment=request.environment,
            strategy=request.strategy,
            to_version=request.version,
            from_version=plan.from_version if plan else None,
            status=self.status,
            initiated_by=request.initiated_by,
            reason=request.reason,
            step_number=self._step_number(plan),
            step_count=len(plan.steps) if plan else 0,
            step_title=step_title(step) if step and not self.terminal else "",
            set_weight_percent=self.set_weight_percent,
            route_generation=self.generation,
            waiting_for=self.waiting_for,
            nodes=tuple(self.nodes[node_id] for node_id in sorted(self.nodes)),
            verdict=self.verdict,
            experiment=self.experiment,
            approvals=tuple(self.approvals.values()),
            approvals_required=gate.required if gate else 0,
            approval_needs_admin=gate.require_admin if gate else False,
            approval_expires_at=self.approval_expires_at if awaited else None,
            plan_hash=plan.plan_hash if plan else "",
            digest=plan.target.digest if plan else "",
            outcome_reason=self.outcome_reason,
            what_to_do=self.what_to_do,
            requested_at=request.requested_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            rolled_back_at=self.rolled_back_at,
            retry_of=request.retry_of,
            rollback_of=request.rollback_of,
            on_conflict=request.on_conflict,
            hotfix=request.hotfix,
            held_by=self.held_by if self.status in (DeploymentStatus.IN_PROGRESS, DeploymentStatus.PAUSED) else "",
            sequence=self.revision,
        )

    def _step_number(self, plan: Plan | None) -> int:
        """Counted from 1; 0 before the plan; after the last step, the last."""
        return min(self.step_index + 1, len(plan.steps)) if plan else 0

    def in_traffic(self) -> bool:
        """The new version serves somebody now, so guards must watch it."""
        return self.set_weight_percent > 0

    def guard(self) -> Observe | None:
        """The thresholds to watch by while waiting: those of the next (or last) observation of the plan."""
        if self.planned is None:
            return None
        watches = [
            (index, guard) for index, step in enumerate(self.plan.steps) if (guard := self.guard_in_window(step))
        ]
        later = [guard for index, guard in watches if index >= self.step_index]
        return later[0] if later else (watches[-1][1] if watches else None)

    def guard_in_window(self, step: Step) -> Observe | None:
        """What guards a step, with its part of alpha when the step has many windows."""
        guard = guard_of(step)
        if guard is None or not isinstance(step, SwitchNodes | Experiment):
            return guard
        return guard.model_copy(update={"thresholds": limits_of_window(guard.thresholds, self.window)})

    def describe(self) -> str:
        """Markdown for the Web UI's details."""
        request = self.request
        lines = [
            f"**{request.plugin} {request.version} -> {request.environment}** by {request.strategy}: {self.status}"
        ]
        if self.step is not None and not self.terminal:
            lines.append(f"step {self._step_number(self.plan)}/{len(self.plan.steps)}: {step_title(self.step)}")
        lines.append(f"set weight {self.set_weight_percent} %, routes at generation {self.generation}")
        if self.waiting_for:
            lines.append(f"waiting for {self.waiting_for}")
        if self.verdict is not None:
            lines.append(f"verdict: {self.verdict.outcome} - {self.verdict.reason}")
        if self.experiment is not None:
            lines.append(f"A/B test: winner {self.experiment.winner} - {self.experiment.reason}")
        if self.outcome_reason:
            lines.append(f"outcome: {self.outcome_reason}")
        if self.what_to_do:
            lines.append(f"**what to do: {self.what_to_do}**")
        return "\n\n".join(lines)
