"""Keeps PostgreSQL's picture of a deployment true: projection, timeline, approvals, audit and notices in one transaction.

Then wakes watchers over the event bus. Safe to run twice: older pictures are ignored, known events not repeated.
"""

from typing import Any

from temporalio import activity

from activities.errors import translated
from hotswap.domain.base import Model
from hotswap.domain.deployment import DeploymentProgress, TimelineEvent
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus, Event, advance
from hotswap.domain.notices import of_deployment
from hotswap.domain.registry import Approval, AuditEntry, Page
from hotswap.ports.events import EventBus
from hotswap.ports.records import DeploymentFilter, DeploymentRow, UnitOfWork, UnitOfWorkFactory

AUDITED = frozenset({"status", "command", "approval"})
"""Kinds of timeline events that are also audit entries: who moved what, and why."""


class RecordInput(Model):
    """`opening` comes with the first record of a run, in case the facade died before it wrote the row."""

    progress: DeploymentProgress
    events: tuple[TimelineEvent, ...] = ()
    approvals: tuple[Approval, ...] = ()
    opening: DeploymentRow | None = None


class RecordActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory, bus: EventBus) -> None:
        self._unit_of_work = unit_of_work
        self._bus = bus

    @activity.defn
    @translated
    async def record_progress(self, order: RecordInput) -> None:
        order = _storable(order)
        deployment_id = order.progress.deployment_id
        async with self._unit_of_work() as uow:
            if order.opening is not None:
                await uow.deployments.open(order.opening)
                await _close_dead(uow, order.opening)
            fresh = order.events
            if fresh:
                known = await uow.deployments.events(deployment_id, after=fresh[0].sequence - 1)
                stored = {event.sequence for event in known}
                fresh = tuple(event for event in fresh if event.sequence not in stored)
            await uow.deployments.project(order.progress, fresh)
            for approval in order.approvals:
                await uow.approvals.record(approval)
            for event in fresh:
                if event.kind in AUDITED:
                    await uow.audit.append(_audit_entry(order.progress, event))
            for notice in of_deployment(order.progress, fresh):
                await uow.notifications.announce(notice)
            await uow.commit()
        await self._bus.publish(f"deployment:{deployment_id}", str(order.progress.sequence))


async def _close_dead(uow: UnitOfWork, opening: DeploymentRow) -> None:
    """The workflow id is the lock: whatever else stands as running under it was ended from outside and can say so no more."""
    ours = opening.progress
    for status in set(DeploymentStatus) - TERMINAL:
        where = DeploymentFilter(plugin=ours.plugin, environment=ours.environment, status=status)
        rows, _ = await uow.deployments.list(where, Page(limit=100))
        for row in rows:
            if row.workflow_id != opening.workflow_id or row.progress.deployment_id == ours.deployment_id:
                continue
            dead = row.progress.model_copy(
                update={
                    "status": advance(status, Event.TERMINATED),
                    "outcome_reason": "its workflow was ended in Temporal (terminated or reset) and undid nothing",
                    "what_to_do": f"nothing: {ours.deployment_id} has taken over its routes",
                    "waiting_for": "",
                    "finished_at": await uow.now(),
                    "sequence": row.progress.sequence + 1,
                }
            )
            await uow.deployments.project(dead, ())


def _storable(order: RecordInput) -> RecordInput:
    """Without NUL characters, which a row cannot hold and a raw signal's texts may: a picture that is refused is tried for
    ever, the run never ends, and its plugin takes no other deployment."""
    if "\\u0000" not in order.model_dump_json():
        return order
    return RecordInput.model_validate(_without_nul(order.model_dump(mode="json")))


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(inner) for key, inner in value.items()}
    return [_without_nul(inner) for inner in value] if isinstance(value, list) else value


def _audit_entry(progress: DeploymentProgress, event: TimelineEvent) -> AuditEntry:
    return AuditEntry(
        event_type=f"deployment.{event.kind}",
        entity_type="deployment",
        entity_id=progress.deployment_id,
        user=str(event.data.get("by", "hotswap")),
        details={
            "message": event.message,
            "plugin": progress.plugin,
            "version": progress.to_version,
            "environment": progress.environment,
            **event.data,
        },
        at=event.at,
    )
