"""The state machine of a deployment: every status with every event, and what must hold for all of them."""

from itertools import product

import pytest

from hotswap.domain.errors import IllegalTransition
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus, Event, advance, allowed, moves

S = DeploymentStatus

EXPECTED = {
    S.PENDING: {Event.BEGIN: S.IN_PROGRESS, Event.UNDO: S.ROLLING_BACK},
    S.IN_PROGRESS: {
        Event.ASK_APPROVAL: S.AWAITING_APPROVAL,
        Event.PAUSE: S.PAUSED,
        Event.UNDO: S.ROLLING_BACK,
        Event.FINISH: S.COMPLETED,
    },
    S.AWAITING_APPROVAL: {
        Event.APPROVE: S.IN_PROGRESS,
        Event.REJECT: S.ROLLING_BACK,
        Event.UNDO: S.ROLLING_BACK,
    },
    S.PAUSED: {Event.RESUME: S.IN_PROGRESS, Event.UNDO: S.ROLLING_BACK},
    S.ROLLING_BACK: {
        Event.UNDONE: S.ROLLED_BACK,
        Event.UNDONE_AFTER_ABORT: S.ABORTED,
        Event.UNDONE_AFTER_REJECT: S.REJECTED,
        Event.UNDONE_AFTER_SUPERSEDE: S.SUPERSEDED,
        Event.UNDO_FAILED: S.FAILED,
    },
}
for _running in EXPECTED.values():
    _running[Event.TERMINATED] = S.FAILED


@pytest.mark.parametrize(("status", "event"), list(product(DeploymentStatus, Event)))
def test_every_status_and_event(status: DeploymentStatus, event: Event) -> None:
    after = EXPECTED.get(status, {}).get(event)
    assert allowed(status, event) is (after is not None)
    assert moves().get((status, event)) == after
    if after is None:
        with pytest.raises(IllegalTransition, match=f"'{event}' makes no sense while the deployment is {status}"):
            advance(status, event)
    else:
        assert advance(status, event) is after


def reachable(start: DeploymentStatus) -> set[DeploymentStatus]:
    seen = {start}
    while more := {after for (status, _), after in moves().items() if status in seen} - seen:
        seen |= more
    return seen


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_nothing_leaves_a_terminal_status(status: DeploymentStatus) -> None:
    assert reachable(status) == {status}


@pytest.mark.parametrize("status", [status for status in DeploymentStatus if status not in TERMINAL])
def test_every_running_status_can_end_and_can_be_undone(status: DeploymentStatus) -> None:
    assert reachable(status) & TERMINAL
    if status is not S.ROLLING_BACK:
        assert advance(status, Event.UNDO) is S.ROLLING_BACK
    undone = {S.ROLLED_BACK, S.ABORTED, S.FAILED}
    assert undone <= reachable(status)


def test_every_status_can_be_reached_from_the_first() -> None:
    assert reachable(S.PENDING) == set(DeploymentStatus)


def test_a_rollback_never_goes_forward_again() -> None:
    assert reachable(S.ROLLING_BACK) == {
        S.ROLLING_BACK,
        S.ROLLED_BACK,
        S.ABORTED,
        S.REJECTED,
        S.SUPERSEDED,
        S.FAILED,
    }


def test_completion_is_only_reached_from_in_progress() -> None:
    assert [status for (status, _), after in moves().items() if after is S.COMPLETED] == [S.IN_PROGRESS]


def test_the_table_handed_out_is_a_copy() -> None:
    moves().clear()
    assert advance(S.PENDING, Event.BEGIN) is S.IN_PROGRESS
