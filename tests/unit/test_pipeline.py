"""Pipelines, pure: which request is one, which status follows which, which command makes sense when."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hotswap.domain.deployment import DirectConfig, Environment, Role
from hotswap.domain.errors import IllegalTransition
from hotswap.domain.pipeline import (
    ENDED,
    RETRYABLE,
    Gate,
    PipelineEvent,
    PipelineRequest,
    PipelineStage,
    PipelineStatus,
    StageState,
    advance,
    moves,
)
from workflows.messages import Command
from workflows.pipeline_commands import TABLE
from workflows.pipeline_state import Phase, PipelineState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEV, QA, STAGING = Environment.DEVELOPMENT, Environment.QA, Environment.STAGING


def stage(environment: Environment, **more: Any) -> PipelineStage:
    return PipelineStage(environment=environment, config=DirectConfig(), **more)


def request(*stages: PipelineStage) -> PipelineRequest:
    return PipelineRequest(
        pipeline_id="pip_" + "0" * 32,
        plugin="p",
        version="1.0.0",
        stages=stages,
        initiated_by="dana",
        requested_at=NOW,
    )


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ((), "stages"),
        ((stage(QA), stage(DEV)), "order of promotion"),
        ((stage(QA), stage(QA)), "order of promotion"),
        ((stage(DEV, gate=Gate()),), "none before the first"),
    ],
)
def test_what_is_no_pipeline_is_refused(stages: tuple[PipelineStage, ...], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        request(*stages)


def test_any_ordered_subset_is_a_pipeline() -> None:
    assert [one.environment for one in request(stage(DEV), stage(STAGING, gate=Gate())).stages] == [DEV, STAGING]
    with pytest.raises(ValidationError, match="30 days"):
        stage(DEV, soak=timedelta(days=31))


def test_every_pair_of_status_and_event_moves_by_the_table_or_is_refused() -> None:
    for status in PipelineStatus:
        for event in PipelineEvent:
            if (status, event) in moves():
                assert advance(status, event) is moves()[(status, event)]
            else:
                with pytest.raises(IllegalTransition):
                    advance(status, event)


def test_every_status_can_be_reached_and_left_and_only_what_a_stage_ended_is_retried() -> None:
    reached = {PipelineStatus.PENDING, *moves().values()}
    assert reached == set(PipelineStatus)
    leaves = {status for status, _ in moves()}
    assert set(PipelineStatus) - leaves == ENDED - RETRYABLE
    assert {status for status, event in moves() if event is PipelineEvent.RETRY} == RETRYABLE


def in_status(status: PipelineStatus) -> PipelineState:
    state = PipelineState.of(request(stage(DEV), stage(QA, gate=Gate())))
    state.status, state.started_at, state.stage_index = status, NOW, 1
    if status in RETRYABLE:
        state.retry_until = NOW + timedelta(hours=1)
    return state


orders = st.tuples(
    st.sampled_from(sorted(TABLE)),
    st.builds(
        Command,
        by=st.sampled_from(["dana", "ada", "bob"]),
        roles=st.sampled_from([(Role.ADMIN,), (Role.APPROVER,), (Role.VIEWER,)]),
        reason=st.sampled_from(["", "because"]),
    ),
)


@given(st.sampled_from(PipelineStatus), st.lists(orders, max_size=6))
def test_no_sequence_of_commands_breaks_the_state(status: PipelineStatus, given_orders: list[Any]) -> None:
    """What is accepted changes the state by the table; what is refused changes nothing; an end is left by retry alone."""
    state = in_status(status)
    for name, command in given_orders:
        before = state.model_copy(deep=True)
        rule = TABLE[name]
        if rule.check(state, command) is not None:
            assert state == before
            continue
        assert rule.change(state, command, NOW)
        if before.status in ENDED:
            assert name == "retry"
            assert state.status is PipelineStatus.IN_PROGRESS
        assert all(given.approver != "dana" for given in state.entry.approvals)
        approvers = [given.approver for given in state.entry.approvals]
        assert len(approvers) == len(set(approvers))
        assert PipelineState.model_validate_json(state.model_dump_json()) == state


def test_retry_takes_the_stage_from_its_start_but_asks_a_passed_gate_no_more() -> None:
    state = in_status(PipelineStatus.ROLLED_BACK)
    state.phase = Phase.SOAK
    state.update(state=StageState.STOPPED, attempt=1, deployment_id="dep_1", soak_until=NOW)
    TABLE["retry"].change(state, Command(by="dana"), NOW)
    assert (state.phase, state.entry.state, state.entry.soak_until) == (Phase.DEPLOY, StageState.WAITING, None)
    assert (state.entry.attempt, state.entry.deployment_id) == (1, "dep_1")
    assert (state.outcome_reason, state.finished_at, state.retry_until) == ("", None, None)


def test_a_retry_that_comes_too_late_says_so() -> None:
    state = in_status(PipelineStatus.FAILED)
    state.retry_until = None
    fault = TABLE["retry"].check(state, Command(by="dana"))
    assert fault is not None
    assert "too long ago" in fault.message


def test_commands_go_on_to_the_deployment_that_runs_and_to_no_other() -> None:
    state = in_status(PipelineStatus.IN_PROGRESS)
    TABLE["pause"].change(state, Command(by="ada"), NOW)
    assert state.outbox == []
    state = in_status(PipelineStatus.IN_PROGRESS)
    state.running = "dep_1"
    for name in ("pause", "resume", "abort", "abort"):
        TABLE[name].change(state, Command(by="ada", reason="x"), NOW)
    assert [order.name for order in state.outbox] == ["pause", "resume", "abort"]
