"""The state machines of a deployment and of a version: for each one enum, one table, one door."""

from enum import StrEnum

from hotswap.domain.errors import IllegalTransition


class PluginStatus(StrEnum):
    DRAFT = "Draft"
    ACTIVE = "Active"
    DEPRECATED = "Deprecated"
    ARCHIVED = "Archived"


class VersionStatus(StrEnum):
    DRAFT = "Draft"
    PENDING_APPROVAL = "PendingApproval"
    APPROVED = "Approved"
    DEPRECATED = "Deprecated"
    ARCHIVED = "Archived"


class DeploymentStatus(StrEnum):
    PENDING = "Pending"
    AWAITING_APPROVAL = "AwaitingApproval"
    IN_PROGRESS = "InProgress"
    PAUSED = "Paused"
    ROLLING_BACK = "RollingBack"
    COMPLETED = "Completed"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    REJECTED = "Rejected"
    SUPERSEDED = "Superseded"
    FAILED = "Failed"  # needs a person: even compensation could not finish


TERMINAL = frozenset(
    {
        DeploymentStatus.COMPLETED,
        DeploymentStatus.ROLLED_BACK,
        DeploymentStatus.ABORTED,
        DeploymentStatus.REJECTED,
        DeploymentStatus.SUPERSEDED,
        DeploymentStatus.FAILED,
    }
)


class Event(StrEnum):
    """What happens to a deployment."""

    BEGIN = "begin"
    ASK_APPROVAL = "ask-approval"
    APPROVE = "approve"
    REJECT = "reject"
    PAUSE = "pause"
    RESUME = "resume"
    UNDO = "undo"
    FINISH = "finish"
    UNDONE = "undone"
    UNDONE_AFTER_ABORT = "undone-after-abort"
    UNDONE_AFTER_REJECT = "undone-after-reject"
    UNDONE_AFTER_SUPERSEDE = "undone-after-supersede"
    UNDO_FAILED = "undo-failed"
    TERMINATED = "terminated"  # the workflow was ended from outside, without its undo


_S = DeploymentStatus
_MOVES: dict[tuple[DeploymentStatus, Event], DeploymentStatus] = {
    (_S.PENDING, Event.BEGIN): _S.IN_PROGRESS,
    (_S.PENDING, Event.UNDO): _S.ROLLING_BACK,
    (_S.IN_PROGRESS, Event.ASK_APPROVAL): _S.AWAITING_APPROVAL,
    (_S.AWAITING_APPROVAL, Event.APPROVE): _S.IN_PROGRESS,
    (_S.AWAITING_APPROVAL, Event.REJECT): _S.ROLLING_BACK,
    (_S.AWAITING_APPROVAL, Event.UNDO): _S.ROLLING_BACK,
    (_S.IN_PROGRESS, Event.PAUSE): _S.PAUSED,
    (_S.PAUSED, Event.RESUME): _S.IN_PROGRESS,
    (_S.PAUSED, Event.UNDO): _S.ROLLING_BACK,
    (_S.IN_PROGRESS, Event.UNDO): _S.ROLLING_BACK,
    (_S.IN_PROGRESS, Event.FINISH): _S.COMPLETED,
    (_S.ROLLING_BACK, Event.UNDONE): _S.ROLLED_BACK,
    (_S.ROLLING_BACK, Event.UNDONE_AFTER_ABORT): _S.ABORTED,
    (_S.ROLLING_BACK, Event.UNDONE_AFTER_REJECT): _S.REJECTED,
    (_S.ROLLING_BACK, Event.UNDONE_AFTER_SUPERSEDE): _S.SUPERSEDED,
    (_S.ROLLING_BACK, Event.UNDO_FAILED): _S.FAILED,
    **{(status, Event.TERMINATED): _S.FAILED for status in _S if status not in TERMINAL},
}


def moves() -> dict[tuple[DeploymentStatus, Event], DeploymentStatus]:
    """The whole table, for the diagram in the docs and the test that walks every pair."""
    return dict(_MOVES)


def allowed(status: DeploymentStatus, event: Event) -> bool:
    return (status, event) in _MOVES


def advance(status: DeploymentStatus, event: Event) -> DeploymentStatus:
    """The status after `event`. Raises IllegalTransition (never retried) when the table has no such move."""
    try:
        return _MOVES[(status, event)]
    except KeyError:
        raise IllegalTransition(f"'{event}' makes no sense while the deployment is {status}") from None


class VersionEvent(StrEnum):
    """What people do to a version."""

    SUBMIT = "submit"
    APPROVE = "approve"
    DEPRECATE = "deprecate"
    REINSTATE = "reinstate"
    ARCHIVE = "archive"


_V = VersionStatus
_VERSION_MOVES: dict[tuple[VersionStatus, VersionEvent], VersionStatus] = {
    (_V.DRAFT, VersionEvent.SUBMIT): _V.PENDING_APPROVAL,
    (_V.DRAFT, VersionEvent.ARCHIVE): _V.ARCHIVED,
    (_V.PENDING_APPROVAL, VersionEvent.APPROVE): _V.APPROVED,
    (_V.PENDING_APPROVAL, VersionEvent.DEPRECATE): _V.DEPRECATED,
    (_V.PENDING_APPROVAL, VersionEvent.ARCHIVE): _V.ARCHIVED,
    (_V.APPROVED, VersionEvent.DEPRECATE): _V.DEPRECATED,  # never straight to Archived: its tenants are told first
    (_V.DEPRECATED, VersionEvent.REINSTATE): _V.PENDING_APPROVAL,  # and has to be approved anew
    (_V.DEPRECATED, VersionEvent.ARCHIVE): _V.ARCHIVED,
}


def version_moves() -> dict[tuple[VersionStatus, VersionEvent], VersionStatus]:
    """The whole table, for the docs and the test that walks every pair."""
    return dict(_VERSION_MOVES)


def advance_version(status: VersionStatus, event: VersionEvent) -> VersionStatus:
    """The status after `event`. Raises IllegalTransition (never retried), saying what is possible instead."""
    try:
        return _VERSION_MOVES[(status, event)]
    except KeyError:
        possible = [str(one) for (held, one) in _VERSION_MOVES if held is status]
        said = f"possible now: {', '.join(possible)}" if possible else "nothing leads out of it"
        raise IllegalTransition(f"'{event}' makes no sense while the version is {status}; {said}") from None
