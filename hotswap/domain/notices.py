"""What people are told about: one notice for each thing that happened, drawn from what was recorded. Pure.

A notice's id derives from what it is about, so that a repeat is the same notice. Neighbours: hotswap.domain.notification_rules
says who hears of it and in which words, hotswap.ports.notifications keeps it until it is routed.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from hotswap.domain.base import BoundedText, Instant, Model, PluginName, bounded
from hotswap.domain.deployment import DeploymentProgress, Environment, TimelineEvent
from hotswap.domain.freeze import Freeze
from hotswap.domain.ids import derived_id
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.manifest import SemVer
from hotswap.domain.pipeline import PipelineProgress, PipelineStatus

APPROVAL_EXPIRED = "nobody approved"
"""How the outcome of a gate that expired begins; workflows.gates and workflows.pipeline word it so."""

PAUSED_BY_PERSON = "resume, promote, abort or rollback"
"""What a rollout waits for that a person has paused; paused by anything else, it waits for something it names (workflows.gates)."""


class NoticeKind(StrEnum):
    APPROVAL_NEEDED = "approval.needed"
    APPROVAL_EXPIRED = "approval.expired"
    DEPLOYMENT_STARTED = "deployment.started"
    DEPLOYMENT_COMPLETED = "deployment.completed"
    DEPLOYMENT_ROLLED_BACK = "deployment.rolled-back"
    DEPLOYMENT_ABORTED = "deployment.aborted"
    DEPLOYMENT_REJECTED = "deployment.rejected"
    DEPLOYMENT_FAILED = "deployment.failed"
    DEPLOYMENT_PAUSED = "deployment.paused"
    VERSION_DEPRECATED = "version.deprecated"
    FREEZE_MADE = "freeze.made"
    FREEZE_LIFTED = "freeze.lifted"
    MONITOR_WENT_BACK = "monitor.went-back"
    TEST = "test"


class Notice(Model):
    """`fields` are what templates may name (hotswap.domain.notification_rules.FIELDS); environment None: all of them."""

    event_id: str = Field(min_length=1, max_length=255)
    kind: NoticeKind
    environment: Environment | None = None
    plugin: str | None = None
    fields: dict[str, str] = Field(default_factory=dict)
    only_rule: str | None = Field(default=None, description="a test of one rule")
    happened_at: Instant


class VersionDeprecated(Model):
    """A version was deprecated while tenants use it. `tenants`: those on record that it serves."""

    plugin: PluginName
    version: SemVer
    reason: BoundedText
    by: str
    at: Instant
    environments: tuple[Environment, ...]
    tenants: tuple[str, ...]
    trace_id: str = ""


_ENDINGS = {
    DeploymentStatus.COMPLETED: NoticeKind.DEPLOYMENT_COMPLETED,
    DeploymentStatus.ROLLED_BACK: NoticeKind.DEPLOYMENT_ROLLED_BACK,
    DeploymentStatus.ABORTED: NoticeKind.DEPLOYMENT_ABORTED,
    DeploymentStatus.FAILED: NoticeKind.DEPLOYMENT_FAILED,
}


def of_deployment(progress: DeploymentProgress, events: Iterable[TimelineEvent]) -> list[Notice]:
    """What the new lines of a deployment's timeline are worth telling: its moves, but not what a person ordered it to do."""
    told = []
    for event in events:
        kind = _kind_of_move(progress, event)
        if kind is None:
            continue
        fields = {
            "deployment": progress.deployment_id,
            "plugin": progress.plugin,
            "version": progress.to_version,
            "fromVersion": progress.from_version or "nothing",
            "environment": progress.environment,
            "strategy": progress.strategy,
            "initiator": progress.initiated_by,
            "reason": _reason(progress, event, kind),
            "whatToDo": progress.what_to_do,
            "digest": progress.digest,
            "planHash": progress.plan_hash,
            "expiresAt": _minute(progress.approval_expires_at),
        }
        told.append(
            notice(
                kind,
                f"{progress.deployment_id}:{event.sequence}",
                event.at,
                fields,
                environment=progress.environment,
                plugin=progress.plugin,
            )
        )
    return told


def _kind_of_move(progress: DeploymentProgress, event: TimelineEvent) -> NoticeKind | None:
    if event.kind != "status":
        return None
    before, after = event.data.get("from"), event.data.get("to")
    if after == DeploymentStatus.AWAITING_APPROVAL:
        return NoticeKind.APPROVAL_NEEDED
    if (before, after) == (DeploymentStatus.PENDING, DeploymentStatus.IN_PROGRESS):
        return NoticeKind.DEPLOYMENT_STARTED
    if after == DeploymentStatus.PAUSED:
        by_person = event.message == f"paused: waiting for {PAUSED_BY_PERSON}"
        return None if by_person else NoticeKind.DEPLOYMENT_PAUSED
    if after == DeploymentStatus.REJECTED:
        expired = progress.outcome_reason.startswith(APPROVAL_EXPIRED)
        return NoticeKind.APPROVAL_EXPIRED if expired else NoticeKind.DEPLOYMENT_REJECTED
    return _ENDINGS.get(DeploymentStatus(after)) if after in set(DeploymentStatus) else None


def _reason(progress: DeploymentProgress, event: TimelineEvent, kind: NoticeKind) -> str:
    if kind is NoticeKind.DEPLOYMENT_STARTED:
        return progress.reason
    if kind in (NoticeKind.APPROVAL_NEEDED, NoticeKind.DEPLOYMENT_PAUSED):
        return event.message.partition("waiting for ")[2]
    return progress.outcome_reason or event.message


def of_pipeline(progress: PipelineProgress, events: Iterable[TimelineEvent]) -> list[Notice]:
    """A pipeline's own gates. Its stages are deployments and tell of themselves."""
    told = []
    for event in events:
        if event.kind != "status":
            continue
        after = event.data.get("to")
        expired = after == PipelineStatus.REJECTED and progress.outcome_reason.startswith(APPROVAL_EXPIRED)
        if after != PipelineStatus.AWAITING_APPROVAL and not expired:
            continue
        number = max(progress.stage_number, 1)
        stage = progress.stages[number - 1]
        fields = {
            "pipeline": progress.pipeline_id,
            "deployment": f"{progress.pipeline_id}.{number}",
            "plugin": progress.plugin,
            "version": progress.version,
            "environment": stage.environment,
            "strategy": stage.strategy,
            "initiator": progress.initiated_by,
            "reason": progress.outcome_reason if expired else event.message.partition("waiting for ")[2],
            "whatToDo": progress.what_to_do,
        }
        told.append(
            notice(
                NoticeKind.APPROVAL_EXPIRED if expired else NoticeKind.APPROVAL_NEEDED,
                f"{progress.pipeline_id}:{event.sequence}",
                event.at,
                fields,
                environment=stage.environment,
                plugin=progress.plugin,
            )
        )
    return told


def of_freeze(freeze: Freeze, by: str, reason: str, at: datetime) -> Notice:
    """It was made, or lifted when it says so."""
    lifted = freeze.lifted_at is not None
    fields = {
        "freeze": freeze.freeze_id,
        "freezeKind": freeze.kind,
        "plugin": freeze.plugin or "every plugin",
        "environment": freeze.environment or "every environment",
        "by": by,
        "reason": reason,
    }
    return notice(
        NoticeKind.FREEZE_LIFTED if lifted else NoticeKind.FREEZE_MADE,
        f"{freeze.freeze_id}:{'lifted' if lifted else 'made'}",
        at,
        fields,
        environment=freeze.environment,
        plugin=freeze.plugin,
    )


def of_deprecation(told: VersionDeprecated) -> Notice:
    """The owners of the tenants that run it should know."""
    names, places = ", ".join(told.tenants[:20]), ", ".join(told.environments)
    more = f" and {len(told.tenants) - 20} more" if len(told.tenants) > 20 else ""
    fields = {
        "plugin": told.plugin,
        "version": told.version,
        "environment": places or "no environment",
        "by": told.by,
        "reason": told.reason,
        "tenants": f"{names}{more}" or "no tenant",
    }
    about = f"{told.plugin}@{told.version}:{told.at.isoformat()}"
    return notice(NoticeKind.VERSION_DEPRECATED, about, told.at, fields, plugin=told.plugin)


def notice(
    kind: NoticeKind,
    about: str,
    at: datetime,
    fields: Mapping[str, Any],
    *,
    environment: Environment | None = None,
    plugin: str | None = None,
    only_rule: str | None = None,
) -> Notice:
    """`about` says which thing that happened it is: the same twice is one notice. Empty fields are left out."""
    return Notice(
        event_id=derived_id("ntc", kind, about),
        kind=kind,
        environment=environment,
        plugin=plugin,
        fields={name: bounded(str(value)) for name, value in fields.items() if value not in (None, "")},
        only_rule=only_rule,
        happened_at=at,
    )


def _minute(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC" if instant else ""
