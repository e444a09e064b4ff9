"""What is worth telling, whom, and in which words: pure checks of notices, rules and templates."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.domain.deployment import DeploymentProgress, Environment, Strategy, TimelineEvent
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.notices import Notice, NoticeKind, VersionDeprecated, of_deployment, of_deprecation, of_pipeline
from hotswap.domain.notification_rules import (
    DEFAULTS,
    FIELDS,
    LONGEST_BODY,
    LONGEST_SUBJECT,
    EmailTarget,
    NotificationRule,
    delivery_id,
    message_of,
    rendered,
)
from hotswap.domain.pipeline import PipelineProgress, PipelineStatus, StageProgress

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
S = DeploymentStatus


def move(before: str, after: str, message: str = "moved", sequence: int = 7) -> TimelineEvent:
    return TimelineEvent(sequence=sequence, at=NOW, kind="status", message=message, data={"from": before, "to": after})


def progress(**changes: Any) -> DeploymentProgress:
    given = {
        "deployment_id": "dep_1",
        "plugin": "greeter",
        "environment": Environment.PRODUCTION,
        "strategy": Strategy.CANARY,
        "to_version": "2.0.0",
        "from_version": "1.0.0",
        "initiated_by": "dana",
        "requested_at": NOW,
    } | changes
    return DeploymentProgress(**given)


def rule(**changes: Any) -> NotificationRule:
    return NotificationRule(**({"rule_id": "r", "target": EmailTarget(to=("a@b.test",))} | changes))


@pytest.mark.parametrize(
    ("event", "changes", "kind"),
    [
        (move(S.PENDING, S.IN_PROGRESS), {}, NoticeKind.DEPLOYMENT_STARTED),
        (move(S.IN_PROGRESS, S.AWAITING_APPROVAL), {}, NoticeKind.APPROVAL_NEEDED),
        (move(S.AWAITING_APPROVAL, S.IN_PROGRESS), {}, None),
        (move(S.IN_PROGRESS, S.COMPLETED), {}, NoticeKind.DEPLOYMENT_COMPLETED),
        (move(S.ROLLING_BACK, S.ROLLED_BACK), {}, NoticeKind.DEPLOYMENT_ROLLED_BACK),
        (move(S.ROLLING_BACK, S.ABORTED), {}, NoticeKind.DEPLOYMENT_ABORTED),
        (move(S.ROLLING_BACK, S.SUPERSEDED), {}, None),
        (move(S.ROLLING_BACK, S.FAILED), {}, NoticeKind.DEPLOYMENT_FAILED),
        (move(S.ROLLING_BACK, S.REJECTED), {"outcome_reason": "rejected by ada: no"}, NoticeKind.DEPLOYMENT_REJECTED),
        (
            move(S.ROLLING_BACK, S.REJECTED),
            {"outcome_reason": "nobody approved within 2 days, 0:00:00"},
            NoticeKind.APPROVAL_EXPIRED,
        ),
        (
            move(S.IN_PROGRESS, S.PAUSED, "paused: waiting for a person, because the evidence is inconclusive: few"),
            {},
            NoticeKind.DEPLOYMENT_PAUSED,
        ),
        (
            move(S.IN_PROGRESS, S.PAUSED, "paused: waiting for node-3 to come back: too few nodes have switched"),
            {},
            NoticeKind.DEPLOYMENT_PAUSED,
        ),
        (
            move(S.IN_PROGRESS, S.PAUSED, "paused: waiting for resume, promote, abort or rollback"),
            {},
            None,
        ),
        (move(S.PAUSED, "SomethingNew"), {}, None),
        (TimelineEvent(sequence=7, at=NOW, kind="step", message="step 2"), {}, None),
    ],
)
def test_a_move_is_told_as_what_it_means(
    event: TimelineEvent, changes: dict[str, Any], kind: NoticeKind | None
) -> None:
    told = of_deployment(progress(**changes), [event])
    assert [notice.kind for notice in told] == ([kind] if kind else [])


def test_a_repeat_is_the_same_notice_and_another_move_is_not() -> None:
    one, again = of_deployment(progress(), [move(S.IN_PROGRESS, S.COMPLETED)] * 2)
    (other,) = of_deployment(progress(), [move(S.IN_PROGRESS, S.COMPLETED, sequence=8)])
    assert one.event_id == again.event_id != other.event_id
    assert delivery_id(one.event_id, "r") != delivery_id(one.event_id, "s")


def test_a_needed_approval_says_for_what_and_until_when() -> None:
    event = move(S.IN_PROGRESS, S.AWAITING_APPROVAL, "waiting for 2 approvals, one of them an Admin, not by dana")
    asked = progress(plan_hash="p" * 64, digest="d" * 64, approval_expires_at=NOW + timedelta(hours=48))
    message = message_of(of_deployment(asked, [event])[0], rule())
    assert message.subject == "Approval needed: greeter 2.0.0 to Production"
    for words in (
        "2 approvals, one of them an Admin, not by dana",
        "d" * 64,
        "p" * 64,
        "2026-02-02 12:00 UTC",
        "dep_1",
    ):
        assert words in message.body


def test_a_pipelines_own_gates_are_told() -> None:
    stages = tuple(
        StageProgress(environment=environment, strategy="Direct")
        for environment in (Environment.QA, Environment.STAGING)
    )
    pipeline = PipelineProgress(
        pipeline_id="pip_1",
        plugin="greeter",
        version="2.0.0",
        initiated_by="dana",
        stages=stages,
        stage_number=2,
        requested_at=NOW,
    )
    asked = move(PipelineStatus.IN_PROGRESS, PipelineStatus.AWAITING_APPROVAL, "waiting for 1 approval by Approver")
    (needed,) = of_pipeline(pipeline, [asked, move(PipelineStatus.PENDING, PipelineStatus.IN_PROGRESS)])
    assert (needed.kind, needed.environment) == (NoticeKind.APPROVAL_NEEDED, Environment.STAGING)
    assert needed.fields["deployment"] == "pip_1.2", "what `hotswap approvals approve` takes"
    ended = pipeline.model_copy(update={"outcome_reason": "nobody approved Staging within 2 days, 0:00:00"})
    rejected = move(PipelineStatus.AWAITING_APPROVAL, PipelineStatus.REJECTED)
    assert [notice.kind for notice in of_pipeline(ended, [rejected])] == [NoticeKind.APPROVAL_EXPIRED]
    assert of_pipeline(pipeline, [rejected]) == []


def test_a_deprecation_names_the_tenants_but_not_thousands() -> None:
    many = tuple(f"t{n}" for n in range(10_000))
    places = (Environment.QA, Environment.PRODUCTION)
    fact = VersionDeprecated(
        plugin="greeter", version="1.0.0", by="admin", reason="use 2", tenants=many, at=NOW, environments=places
    )
    told = of_deprecation(fact)
    assert told.fields["tenants"].endswith("t19 and 9980 more")
    assert (told.environment, told.fields["environment"]) == (None, "QA, Production")


@pytest.mark.parametrize(
    ("changes", "matches"),
    [
        ({}, True),
        ({"events": ("deployment.completed",)}, True),
        ({"events": ("deployment.failed",)}, False),
        ({"environments": ("Production",), "plugins": ("greeter", "other")}, True),
        ({"environments": ("QA",)}, False),
        ({"plugins": ("other",)}, False),
        ({"enabled": False}, False),
    ],
)
def test_a_rule_hears_of_what_it_names(changes: dict[str, Any], matches: bool) -> None:
    (notice,) = of_deployment(progress(), [move(S.IN_PROGRESS, S.COMPLETED)])
    assert rule(**changes).matches(notice) == matches


def test_what_concerns_everything_concerns_every_rule_and_a_test_its_own_alone() -> None:
    everywhere = Notice(event_id="e", kind=NoticeKind.FREEZE_MADE, happened_at=NOW)
    assert rule(environments=(Environment.QA,), plugins=("greeter",)).matches(everywhere)
    test = everywhere.model_copy(update={"only_rule": "r"})
    assert rule(enabled=False, events=(NoticeKind.TEST,)).matches(test)
    assert not rule(rule_id="other").matches(test)


def test_every_event_has_words_that_name_known_fields() -> None:
    assert set(DEFAULTS) == set(NoticeKind)
    for kind, (subject, body) in DEFAULTS.items():
        rule(subject=subject, body=body)
        notice = Notice(event_id="e", kind=kind, happened_at=NOW, fields={name: f"<{name}>" for name in FIELDS})
        message = message_of(notice, rule())
        assert message.subject
        assert "{" not in message.subject + message.body


@given(st.text(max_size=600), st.text(max_size=600))
def test_no_value_is_read_as_a_template_or_breaks_a_line(value: str, other: str) -> None:
    notice = Notice(event_id="e", kind=NoticeKind.TEST, happened_at=NOW, fields={"reason": value, "by": other})
    message = message_of(notice, rule(subject="{reason}|{by}", body="{reason}|{by}"))
    assert len(message.subject) <= LONGEST_SUBJECT
    assert len(message.body) <= LONGEST_BODY
    assert all(char.isprintable() for char in message.subject + message.body)
    assert rendered("{by}", {"by": "{reason}", "reason": "x"}) == "{reason}"
