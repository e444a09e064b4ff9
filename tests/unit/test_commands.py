"""Which command makes sense when: the pure checks behind validators and signals."""

from datetime import UTC, datetime, timedelta

import pytest

from activities.planning import Planned
from hotswap.domain.deployment import DeploymentRequest, DirectConfig, Environment, Role
from hotswap.domain.errors import Conflict, Forbidden, InvalidInput
from hotswap.domain.lifecycle import DeploymentStatus, Event
from hotswap.domain.plan import AwaitApproval, Plan, RetireVersion
from hotswap.domain.routes import ArtifactRef, RouteState
from workflows import commands
from workflows.messages import ApproveCommand, Command, SupersedeCommand
from workflows.state import DeploymentState, Watch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REF = ArtifactRef(plugin="p", version="1.0.0", digest="a" * 64, size_bytes=1)


def state(status: DeploymentStatus, *, required: int = 1, require_admin: bool = False) -> DeploymentState:
    gate = AwaitApproval(required=required, require_admin=require_admin, expires_after=timedelta(hours=48))
    plan = Plan(
        plugin="p",
        environment="Staging",
        strategy="Direct",
        target=REF,
        previous=None,
        cohort_seed="s",
        steps=(gate, RetireVersion(drain_grace=timedelta(seconds=1))),
    )
    request = DeploymentRequest(
        deployment_id="dep_1",
        plugin="p",
        version="1.0.0",
        environment=Environment.STAGING,
        config=DirectConfig(),
        initiated_by="dana",
        requested_at=NOW,
    )
    planned = Planned(plan=plan, previous_state=RouteState(), generation=0)
    return DeploymentState(request=request, planned=planned, status=status)


def by(name: str = "ada", role: Role = Role.APPROVER, reason: str = "because", plan_hash: str = "") -> ApproveCommand:
    return ApproveCommand(by=name, roles=(role,), reason=reason, plan_hash=plan_hash)


def test_initiator_cannot_approve_own_deployment() -> None:
    fault = commands.check_approve(state(DeploymentStatus.AWAITING_APPROVAL), by("dana", Role.ADMIN))
    assert isinstance(fault, Forbidden)
    assert fault.message == "dana started this deployment and cannot approve it; another person must"


def test_viewer_cannot_approve() -> None:
    fault = commands.check_approve(state(DeploymentStatus.AWAITING_APPROVAL), by(role=Role.VIEWER))
    assert isinstance(fault, Forbidden)
    assert fault.message == "ada is neither Approver nor Admin"


def test_approval_of_another_plan_is_void() -> None:
    fault = commands.check_approve(state(DeploymentStatus.AWAITING_APPROVAL), by(plan_hash="f" * 64))
    assert isinstance(fault, Conflict)
    assert "read the plan again" in fault.message


@pytest.mark.parametrize("status", sorted(set(DeploymentStatus) - {DeploymentStatus.AWAITING_APPROVAL}))
def test_approve_and_reject_need_a_waiting_deployment(status: DeploymentStatus) -> None:
    assert commands.check_approve(state(status), by()) is not None
    assert commands.check_reject(state(status), by()) is not None


def test_repeated_approval_is_the_same_approval() -> None:
    waiting = state(DeploymentStatus.AWAITING_APPROVAL, required=2)
    commands.approve(waiting, by(), NOW)
    assert commands.check_approve(waiting, by()) is None
    commands.approve(waiting, by(), NOW)
    assert len(waiting.approvals) == 1
    assert not commands.approved(waiting)


def test_two_approvers_without_the_required_admin_are_not_enough() -> None:
    waiting = state(DeploymentStatus.AWAITING_APPROVAL, required=2, require_admin=True)
    commands.approve(waiting, by("ada"), NOW)
    commands.approve(waiting, by("bob"), NOW)
    assert not commands.approved(waiting)
    commands.approve(waiting, by("root", Role.ADMIN), NOW)
    assert commands.approved(waiting)


@pytest.mark.parametrize("check", [commands.check_reject, commands.check_abort, commands.check_rollback])
def test_undoing_commands_need_a_reason(check) -> None:
    fault = check(state(DeploymentStatus.AWAITING_APPROVAL), Command(by="ada", roles=(Role.ADMIN,), reason="  "))
    assert isinstance(fault, InvalidInput)
    assert [item.field for item in fault.faults] == ["reason"]


def test_first_stop_decides_how_it_ends() -> None:
    running = state(DeploymentStatus.IN_PROGRESS)
    commands.abort(running, by(), NOW)
    commands.rollback(running, by("bob"), NOW)
    assert running.stop is not None
    assert running.stop.event is Event.UNDONE_AFTER_ABORT


def test_promote_makes_sense_only_while_a_step_is_observed() -> None:
    running = state(DeploymentStatus.IN_PROGRESS)
    assert commands.check_promote(running, by()) is not None
    running.watch = Watch(since=NOW, remaining=timedelta(seconds=1))
    assert commands.check_promote(running, by()) is None


@pytest.mark.parametrize("status", [s for s in DeploymentStatus if state(s).terminal])
def test_nothing_can_be_commanded_after_the_end(status: DeploymentStatus) -> None:
    ended = state(status)
    for check in (
        commands.check_abort,
        commands.check_rollback,
        commands.check_pause,
        commands.check_resume,
        commands.check_promote,
    ):
        assert check(ended, by()) is not None


def test_promote_full_is_for_every_deployment_that_may_still_go_on() -> None:
    for status in DeploymentStatus:
        ok = commands.check_promote_full(state(status), by()) is None
        assert ok == (not state(status).terminal and status is not DeploymentStatus.ROLLING_BACK), status


def test_promote_full_ends_a_pause_and_a_repeat_changes_nothing_more() -> None:
    running = state(DeploymentStatus.IN_PROGRESS)
    commands.pause(running, by(), NOW)
    commands.promote_full(running, by(), NOW)
    assert running.promote_full
    assert not running.pause_wanted
    lines = running.sequence
    commands.promote_full(running, by("bob"), NOW)
    assert running.sequence == lines


def test_a_stopped_deployment_has_no_wait_to_skip() -> None:
    running = state(DeploymentStatus.IN_PROGRESS)
    commands.abort(running, by(), NOW)
    assert isinstance(commands.check_promote_full(running, by()), Conflict)


def test_superseding_is_for_the_deployment_that_was_meant() -> None:
    running = state(DeploymentStatus.IN_PROGRESS)
    order = SupersedeCommand(by="dana", reason="dep_2 takes its place", deployment_id="dep_other")
    assert isinstance(commands.check_supersede(running, order), Conflict)
    meant = order.model_copy(update={"deployment_id": "dep_1"})
    assert commands.check_supersede(running, meant) is None
    commands.supersede(running, meant, NOW)
    assert running.stop is not None
    assert running.stop.event is Event.UNDONE_AFTER_SUPERSEDE
    assert running.stop.reason == "superseded by dana: dep_2 takes its place"


def test_a_rollback_is_never_superseded() -> None:
    running = state(DeploymentStatus.IN_PROGRESS)
    running.request = running.request.model_copy(update={"rollback_of": "dep_0"})
    fault = commands.check_supersede(running, SupersedeCommand(by="dana", reason="x"))
    assert isinstance(fault, Conflict)
    assert "dep_0" in fault.message


@pytest.mark.parametrize("name", sorted(commands.TABLE))
@pytest.mark.parametrize("status", sorted(DeploymentStatus))
def test_a_command_that_is_given_twice_is_given_once(name: str, status: DeploymentStatus) -> None:
    """The second either changes nothing or is refused; never does it do more."""
    rule, subject = commands.TABLE[name], state(status)
    subject.watch = Watch(since=NOW, remaining=timedelta(seconds=1))
    order = rule.takes(by="ada", roles=(Role.ADMIN,), reason="because")
    if rule.check(subject, order) is not None:
        return
    rule.change(subject, order, NOW)
    once = subject.model_copy(deep=True)
    if rule.check(subject, order) is None:
        rule.change(subject, order, NOW)
    assert subject == once
