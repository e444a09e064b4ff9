"""Which command makes sense when, and what it changes: pure checks and changes on the state.

TABLE holds every command; workflows.handlers opens an update with a validator and a signal for each row, so both doors
agree. A check returns None (fine) or the error why not; a repeat of a command already obeyed is fine and changes nothing.
docs/commands.md is generated from here (tests.workflow.command_table).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from hotswap.domain.deployment import ApprovalGiven, Role
from hotswap.domain.errors import Conflict, FieldFault, Forbidden, HotSwapError, InvalidInput
from hotswap.domain.lifecycle import DeploymentStatus, Event
from hotswap.domain.plan import AwaitApproval
from workflows.messages import ApproveCommand, Command, SupersedeCommand, WorkflowNames
from workflows.state import DeploymentState, Stop

C = TypeVar("C", bound=Command)


@dataclass(frozen=True)
class Rule(Generic[C]):
    """One command: what it takes, when it makes sense, what it changes (and the answer to who gave it)."""

    takes: type[C]
    check: Callable[[DeploymentState, C], HotSwapError | None]
    change: Callable[[DeploymentState, C, datetime], str]


def check_approve(state: DeploymentState, command: ApproveCommand) -> HotSwapError | None:
    if command.by in state.approvals:
        return None
    if fault := _check_approver(state, command, "approved"):
        return fault
    if command.plan_hash and command.plan_hash != state.plan.plan_hash:
        return Conflict(
            f"the plan is {state.plan.plan_hash[:12]}, not {command.plan_hash[:12]}: read the plan again and approve that"
        )
    return None


def approve(state: DeploymentState, command: ApproveCommand, at: datetime) -> str:
    if command.by in state.approvals:
        return f"{command.by} approved already"
    given = ApprovalGiven(approver=command.by, roles=command.roles, comment=command.reason, at=at)
    state.approvals[command.by] = given
    state.note(at, "approval", f"approved by {command.by}", {"by": command.by, "comment": command.reason})
    return "approved" if approved(state) else "approved; more approvals are needed"


def approved(state: DeploymentState) -> bool:
    """Enough different people, one of them an Admin if the plan says so."""
    gate = state.step
    if not isinstance(gate, AwaitApproval):
        return True
    enough = len(state.approvals) >= gate.required
    admin = any(Role.ADMIN in given.roles for given in state.approvals.values())
    return enough and (admin or not gate.require_admin)


def check_reject(state: DeploymentState, command: Command) -> HotSwapError | None:
    if state.rejections and state.rejections[-1].approver == command.by:
        return None
    return _check_reason(command, "reject") or _check_approver(state, command, "rejected")


def reject(state: DeploymentState, command: Command, at: datetime) -> str:
    if state.rejections:
        return f"{state.rejections[-1].approver} rejected it already"
    state.rejections.append(ApprovalGiven(approver=command.by, roles=command.roles, comment=command.reason, at=at))
    state.note(at, "approval", f"rejected by {command.by}: {command.reason}", {"by": command.by})
    _stop(state, Event.UNDONE_AFTER_REJECT, f"rejected by {command.by}: {command.reason}")
    return "rejected"


def check_abort(state: DeploymentState, command: Command) -> HotSwapError | None:
    return _check_reason(command, "abort") or _check_running(state, "aborted")


def abort(state: DeploymentState, command: Command, at: datetime) -> str:
    return _order_undo(state, Event.UNDONE_AFTER_ABORT, "aborted", command, at)


def check_rollback(state: DeploymentState, command: Command) -> HotSwapError | None:
    return _check_reason(command, "rollback") or _check_running(state, "rolled back")


def rollback(state: DeploymentState, command: Command, at: datetime) -> str:
    return _order_undo(state, Event.UNDONE, "rolled back", command, at)


def check_pause(state: DeploymentState, command: Command) -> HotSwapError | None:
    if state.status in (DeploymentStatus.IN_PROGRESS, DeploymentStatus.PAUSED):
        return None
    return Conflict(f"only a deployment in progress can be paused; this one is {state.status}")


def pause(state: DeploymentState, command: Command, at: datetime) -> str:
    if state.pause_wanted:
        return "paused already"
    state.pause_wanted = True
    state.note(
        at, "command", f"pause ordered by {command.by}: {command.reason or 'no reason given'}", {"by": command.by}
    )
    return "pausing"


def check_resume(state: DeploymentState, command: Command) -> HotSwapError | None:
    if state.pause_wanted or state.status == DeploymentStatus.PAUSED:
        return None
    if state.status == DeploymentStatus.IN_PROGRESS:
        return None  # a repeat
    return Conflict(f"only a paused deployment can be resumed; this one is {state.status}")


def resume(state: DeploymentState, command: Command, at: datetime) -> str:
    if not state.pause_wanted:
        return "not paused"
    state.pause_wanted = False
    state.note(at, "command", f"resumed by {command.by}", {"by": command.by})
    return "resuming"


def check_promote(state: DeploymentState, command: Command) -> HotSwapError | None:
    if state.status in (DeploymentStatus.IN_PROGRESS, DeploymentStatus.PAUSED) and state.watch is not None:
        return None
    return Conflict(
        f"there is no observation to end now (status {state.status}); promote ends the wait of a running step"
    )


def promote(state: DeploymentState, command: Command, at: datetime) -> str:
    if state.promote_wanted:
        return "promoted already"
    state.promote_wanted = True
    state.pause_wanted = False
    state.note(
        at, "command", f"step ended early by {command.by}: {command.reason or 'no reason given'}", {"by": command.by}
    )
    return "going on to the next step"


def check_promote_full(state: DeploymentState, command: Command) -> HotSwapError | None:
    if not state.terminal and state.status is not DeploymentStatus.ROLLING_BACK and state.stop is None:
        return None
    return Conflict(f"there is no wait left to skip: the deployment is {state.status}")


def promote_full(state: DeploymentState, command: Command, at: datetime) -> str:
    """Approvals stay, and so do guards: each observation still takes one look, and a Fail undoes or holds as planned."""
    state.pause_wanted = False
    if state.promote_full:
        return "all waits are being skipped already"
    state.promote_full = True
    why = command.reason or "no reason given"
    state.note(at, "command", f"all remaining waits skipped by {command.by}: {why}", {"by": command.by})
    return "skipping every wait that is left; guards and approvals stay"


def check_supersede(state: DeploymentState, command: SupersedeCommand) -> HotSwapError | None:
    if command.deployment_id and command.deployment_id != state.request.deployment_id:
        return Conflict(f"{command.deployment_id} was meant, which is over")
    if state.request.rollback_of is not None and not state.terminal:
        return Conflict(f"it takes back {state.request.rollback_of}, which nothing may interrupt; wait for its end")
    return _check_reason(command, "supersede") or _check_running(state, "superseded")


def supersede(state: DeploymentState, command: SupersedeCommand, at: datetime) -> str:
    return _order_undo(state, Event.UNDONE_AFTER_SUPERSEDE, "superseded", command, at)


def check_override_freeze(state: DeploymentState, command: Command) -> HotSwapError | None:
    if Role.ADMIN not in command.roles:
        return Forbidden(f"{command.by} is no Admin; overriding a freeze takes one")
    if state.status is DeploymentStatus.ROLLING_BACK:
        return Conflict("it is being undone, which no freeze holds")
    return _check_reason(command, "override a freeze of") or _check_running(state, "let through a freeze")


def override_freeze(state: DeploymentState, command: Command, at: datetime) -> str:
    """For the rest of this deployment. The stop switch is passed by nobody."""
    if state.freeze_override is not None:
        return f"{state.freeze_override.by} has overridden freezes for it already"
    state.freeze_override = command
    state.freeze_news += 1
    state.note(at, "command", f"freezes overridden by {command.by}: {command.reason}", {"by": command.by})
    return "no freeze holds it any more; the stop switch still does"


def _order_undo(state: DeploymentState, event: Event, word: str, command: Command, at: datetime) -> str:
    if state.stop is not None:
        return f"it is being undone already: {state.stop.reason}"
    reason = f"{word} by {command.by}: {command.reason}"
    state.note(at, "command", reason, {"by": command.by})
    _stop(state, event, reason)
    return "undoing: traffic goes back to the version in place"


def _stop(state: DeploymentState, event: Event, reason: str) -> None:
    if state.stop is None:
        state.stop = Stop(event=event, reason=reason)


def _check_reason(command: Command, word: str) -> HotSwapError | None:
    if command.reason.strip():
        return None
    fault = FieldFault("reason", f"is required to {word} a deployment; say why")
    return InvalidInput(f"{fault.field} {fault.message}", [fault])


def _check_running(state: DeploymentState, word: str) -> HotSwapError | None:
    return Conflict(f"the deployment is {state.status} and cannot be {word} any more") if state.terminal else None


def _check_approver(state: DeploymentState, command: Command, word: str) -> HotSwapError | None:
    if state.status != DeploymentStatus.AWAITING_APPROVAL:
        return Conflict(f"only a deployment that awaits approval can be {word}; this one is {state.status}")
    if word == "approved" and command.by == state.request.initiated_by:
        return Forbidden(f"{command.by} started this deployment and cannot approve it; another person must")
    if not {Role.APPROVER, Role.ADMIN} & set(command.roles):
        return Forbidden(f"{command.by} is neither Approver nor Admin")
    return None


TABLE: Mapping[str, Rule[Any]] = {
    WorkflowNames.APPROVE: Rule(ApproveCommand, check_approve, approve),
    WorkflowNames.REJECT: Rule(Command, check_reject, reject),
    WorkflowNames.PAUSE: Rule(Command, check_pause, pause),
    WorkflowNames.RESUME: Rule(Command, check_resume, resume),
    WorkflowNames.PROMOTE: Rule(Command, check_promote, promote),
    WorkflowNames.PROMOTE_FULL: Rule(Command, check_promote_full, promote_full),
    WorkflowNames.ABORT: Rule(Command, check_abort, abort),
    WorkflowNames.ROLLBACK: Rule(Command, check_rollback, rollback),
    WorkflowNames.SUPERSEDE: Rule(SupersedeCommand, check_supersede, supersede),
    WorkflowNames.OVERRIDE_FREEZE: Rule(Command, check_override_freeze, override_freeze),
}
