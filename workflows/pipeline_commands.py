"""Which command makes sense to a pipeline when, and what it changes: pure checks and changes on its state.

TABLE holds them all; workflows.pipeline_handlers opens a signal and a validated update for each row. A check returns None
(fine) or the error why not; a repeat of a command already obeyed is fine and changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from hotswap.domain.deployment import ApprovalGiven, Role
from hotswap.domain.errors import Conflict, FieldFault, Forbidden, HotSwapError, InvalidInput
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.pipeline import RETRYABLE, PipelineEvent, PipelineStatus
from workflows.messages import Command, WorkflowNames
from workflows.pipeline_state import Order, PipelineState, PipelineStop

RETRY = "retry"


@dataclass(frozen=True)
class PipelineRule:
    """One command: when it makes sense, what it changes (and the answer to who gave it)."""

    check: Callable[[PipelineState, Command], HotSwapError | None]
    change: Callable[[PipelineState, Command, datetime], str]


def check_approve(state: PipelineState, command: Command) -> HotSwapError | None:
    if _approved_by(state, command.by):
        return None
    return _check_gate(state, command, "approved")


def approve(state: PipelineState, command: Command, at: datetime) -> str:
    if _approved_by(state, command.by):
        return f"{command.by} approved already"
    state.approve(ApprovalGiven(approver=command.by, roles=command.roles, comment=command.reason, at=at))
    before = f"before {state.entry.environment}"
    state.note(at, "approval", f"approved by {command.by} {before}", {"by": command.by, "comment": command.reason})
    return "approved" if gate_open(state) else "approved; more approvals are needed"


def gate_open(state: PipelineState) -> bool:
    """Enough different people have approved the present stage."""
    stage = state.stage
    return stage is None or stage.gate is None or len(state.entry.approvals) >= stage.gate.required


def check_reject(state: PipelineState, command: Command) -> HotSwapError | None:
    return _check_reason(command, "reject") or _check_gate(state, command, "rejected")


def reject(state: PipelineState, command: Command, at: datetime) -> str:
    reason = f"rejected by {command.by} before {state.entry.environment}: {command.reason}"
    state.note(at, "approval", reason, {"by": command.by})
    _stop(state, PipelineEvent.REJECT, reason)
    return "rejected"


def check_pause(state: PipelineState, command: Command) -> HotSwapError | None:
    if state.status in (PipelineStatus.IN_PROGRESS, PipelineStatus.PAUSED):
        return None
    return Conflict(f"only a pipeline in progress can be paused; this one is {state.status}")


def pause(state: PipelineState, command: Command, at: datetime) -> str:
    if state.status is PipelineStatus.PAUSED:
        return "paused already"
    why = command.reason or "no reason given"
    state.move(PipelineEvent.PAUSE, at, f"paused by {command.by}: {why}", command.by)
    _forward(state, WorkflowNames.PAUSE, command)
    return "paused, and its running stage with it" if state.running else "paused before the next stage"


def check_resume(state: PipelineState, command: Command) -> HotSwapError | None:
    if state.status in (PipelineStatus.IN_PROGRESS, PipelineStatus.PAUSED):
        return None
    return Conflict(f"only a paused pipeline can be resumed; this one is {state.status}")


def resume(state: PipelineState, command: Command, at: datetime) -> str:
    if state.status is not PipelineStatus.PAUSED:
        return "not paused"
    state.move(PipelineEvent.RESUME, at, f"resumed by {command.by}", command.by)
    _forward(state, WorkflowNames.RESUME, command)
    return "resuming"


def check_abort(state: PipelineState, command: Command) -> HotSwapError | None:
    if fault := _check_reason(command, "abort"):
        return fault
    return Conflict(f"the pipeline is {state.status} and cannot be aborted any more") if state.ended else None


def abort(state: PipelineState, command: Command, at: datetime) -> str:
    if state.stop is not None:
        return f"it is being ended already: {state.stop.reason}"
    reason = f"aborted by {command.by}: {command.reason}"
    state.note(at, "command", reason, {"by": command.by})
    _stop(state, PipelineEvent.ABORT, reason)
    _forward(state, WorkflowNames.ABORT, command)
    return "aborting: the running stage is undone, environments before it keep the version"


def check_retry(state: PipelineState, command: Command) -> HotSwapError | None:
    if state.status not in RETRYABLE:
        return Conflict(f"only a pipeline that ended in a stage can be retried; this one is {state.status}")
    if state.retry_until is None:
        return Conflict("it ended too long ago to be retried; start a new pipeline from that environment on")
    return None


def retry(state: PipelineState, command: Command, at: datetime) -> str:
    """The stage that ended it begins again; its gate is not asked again unless it was refused."""
    state.begin_again(at, command.by, command.reason)
    return f"{state.entry.environment} begins again"


def _approved_by(state: PipelineState, person: str) -> bool:
    return any(given.approver == person for given in state.entry.approvals)


def _check_gate(state: PipelineState, command: Command, word: str) -> HotSwapError | None:
    stage = state.stage
    if state.status is not PipelineStatus.AWAITING_APPROVAL or stage is None or stage.gate is None:
        if state.entry.deployment_status is DeploymentStatus.AWAITING_APPROVAL and state.running:
            return Conflict(
                f"the approvals of {state.entry.environment} are given to its deployment {state.running}, not here"
            )
        return Conflict(f"only a pipeline that waits at a gate can be {word}; this one is {state.status}")
    if word == "approved" and command.by == state.request.initiated_by:
        return Forbidden(f"{command.by} started this pipeline and cannot approve it; another person must")
    if not {stage.gate.role, Role.ADMIN} & set(command.roles):
        return Forbidden(f"this gate takes one of: {stage.gate.role}, {Role.ADMIN}; {command.by} is neither")
    return None


def _check_reason(command: Command, word: str) -> HotSwapError | None:
    if command.reason.strip():
        return None
    fault = FieldFault("reason", f"is required to {word} a pipeline; say why")
    return InvalidInput(f"{fault.field} {fault.message}", [fault])


def _stop(state: PipelineState, event: PipelineEvent, reason: str) -> None:
    if state.stop is None:
        state.stop = PipelineStop(event=event, reason=reason)


def _forward(state: PipelineState, name: str, command: Command) -> None:
    if state.running:
        state.outbox.append(Order(name=name, command=command))


TABLE: Mapping[str, PipelineRule] = {
    WorkflowNames.APPROVE: PipelineRule(check_approve, approve),
    WorkflowNames.REJECT: PipelineRule(check_reject, reject),
    WorkflowNames.PAUSE: PipelineRule(check_pause, pause),
    WorkflowNames.RESUME: PipelineRule(check_resume, resume),
    WorkflowNames.ABORT: PipelineRule(check_abort, abort),
    RETRY: PipelineRule(check_retry, retry),
}
