"""What a health monitor asks and does: one look at the version in place, the way back, the end of a rollback window.

Neighbours: hotswap.domain.health weighs a look, workflows.monitor counts looks and decides, hotswap.domain.holds says what
a held version is. Every activity here is safe to run twice.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from temporalio import activity
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy

from activities.errors import translated
from hotswap import temporal
from hotswap.domain.base import BoundedText, Instant, Model, bounded
from hotswap.domain.deployment import DeploymentRequest, DirectConfig
from hotswap.domain.errors import NotFound
from hotswap.domain.health import HealthLook, MonitorSubject, look_at
from hotswap.domain.holds import HeldVersion
from hotswap.domain.ids import derived_id, monitor_workflow_id
from hotswap.domain.lifecycle import TERMINAL
from hotswap.domain.notices import Notice, NoticeKind, notice
from hotswap.domain.registry import AuditEntry, Page
from hotswap.domain.routes import RouteRecord, RouteState
from hotswap.ports.metrics import FiguresSource
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory

MONITOR = "hotswap-monitor"
"""Who acts, in requests and in the audit."""

SEEN_WITHIN = timedelta(seconds=15)
"""Nodes that told of themselves this lately are asked; a node that is gone has no say in how the version does."""

REQUESTED = "deployment.requested"


class Place(StrEnum):
    """Whose the route is now."""

    OURS = "Ours"
    UNDECIDED = "Undecided"  # another deployment put another version in place and has not ended
    GONE = "Gone"  # something newer took over


class LookInput(Model):
    """`crashes`: by node, as of the look before, which was at `since`."""

    subject: MonitorSubject
    crashes: dict[str, int]
    since: Instant


class MonitorLook(Model):
    place: Place
    health: HealthLook | None = None


class RollbackOrder(Model):
    subject: MonitorSubject
    evidence: BoundedText


class PreparedRollback(Model):
    """The deployment that goes back, or why there is none to start."""

    request: DeploymentRequest | None = None
    why_not: str = ""


class RollbackStarted(Model):
    subject: MonitorSubject
    request: DeploymentRequest


class WindowClosed(Model):
    """The route without warm versions; generation 0 when it was not ours to change any more."""

    generation: int = 0
    state: RouteState | None = None
    retired: tuple[str, ...] = ()


class MonitorActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory, figures: FiguresSource) -> None:
        self._unit_of_work = unit_of_work
        self._figures = figures

    @activity.defn
    @translated
    async def start_monitor(self, subject: MonitorSubject) -> None:
        """Start the monitor of (environment, plugin), or hand the running one its new subject. Repeats are fine."""
        await activity.client().start_workflow(
            "HealthMonitor",
            id=monitor_workflow_id(subject.environment, subject.plugin),
            task_queue=activity.info().task_queue,
            start_signal="watch",
            start_signal_args=[subject],
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(temporal.PLUGIN, subject.plugin),
                    SearchAttributePair(temporal.ENVIRONMENT, str(subject.environment)),
                ]
            ),
            static_summary=f"health of {subject.plugin} in {subject.environment}",
        )

    @activity.defn
    @translated
    async def look_at_version(self, order: LookInput) -> MonitorLook:
        """One look. Silent nodes make it weaker, never an error."""
        subject = order.subject
        async with self._unit_of_work() as uow:
            place = await _place(uow, subject)
            nodes = await uow.nodes.list(subject.environment, SEEN_WITHIN)
        if place is not Place.OURS:
            return MonitorLook(place=place)
        readings = await self._figures.read(nodes, subject.plugin, order.since)
        health = look_at(
            readings.figures, readings.silent, subject.target.version, order.crashes, subject.care.max_faulty_hosts
        )
        return MonitorLook(place=place, health=health)

    @activity.defn
    @translated
    async def prepare_rollback(self, order: RollbackOrder) -> PreparedRollback:
        """The one deployment that takes the subject back. Its id derives from the subject's: there is never a second."""
        subject = order.subject
        back_id = derived_id("dep", MONITOR, subject.deployment_id)
        async with self._unit_of_work() as uow:
            if await _place(uow, subject) is not Place.OURS:
                return PreparedRollback(why_not="another version is in place by now")
            if await _known(uow, back_id):
                return PreparedRollback(why_not=f"{back_id} tried it already; a rollback is never repeated")
            now = await uow.now()
        return PreparedRollback(
            request=DeploymentRequest(
                deployment_id=back_id,
                plugin=subject.plugin,
                version=subject.previous.version,
                environment=subject.environment,
                config=DirectConfig(drain_grace=subject.care.drain_grace),
                initiated_by=MONITOR,
                reason=order.evidence,
                requested_at=now,
                rollback_of=subject.deployment_id,
            )
        )

    @activity.defn
    @translated
    async def record_rollback(self, order: RollbackStarted) -> None:
        """Hold the version that was taken back, and say in the audit who ordered what, and why."""
        subject, request = order.subject, order.request
        async with self._unit_of_work() as uow:
            known, _ = await uow.audit.list(request.deployment_id, MONITOR, Page(limit=100))
            if any(entry.event_type == REQUESTED for entry in known):
                return
            now = await uow.now()
            held = HeldVersion(
                environment=subject.environment,
                plugin=subject.plugin,
                version=subject.target.version,
                deployment_id=subject.deployment_id,
                reason=request.reason,
                held_by=MONITOR,
                held_at=now,
            )
            await uow.held.hold(held)
            details = {
                "plugin": request.plugin,
                "version": request.version,
                "environment": request.environment,
                "strategy": request.strategy,
                "reason": request.reason,
                "rollbackOf": subject.deployment_id,
            }
            for event, entity in ((REQUESTED, request.deployment_id), ("deployment.taken-back", subject.deployment_id)):
                await uow.audit.append(
                    AuditEntry(
                        event_type=event,
                        entity_type="deployment",
                        entity_id=entity,
                        user=MONITOR,
                        details=details,
                        at=now,
                    )
                )
            await uow.notifications.announce(_went_back(subject, request, now))
            await uow.commit()

    @activity.defn
    @translated
    async def close_window(self, subject: MonitorSubject) -> WindowClosed:
        """Take the warm versions out of the route. Raises StaleGeneration when somebody else wrote meanwhile."""
        async with self._unit_of_work() as uow:
            route = await uow.routes.current(subject.environment, subject.plugin)
            if route is None or not _serves(route, subject):
                return WindowClosed()
            if not route.state.warm:  # a repeat: the nodes have still to be told
                return WindowClosed(generation=route.generation, state=route.state)
            state = route.state.model_copy(update={"warm": ()})
            written = await uow.routes.write(
                subject.environment, subject.plugin, route.generation, state, subject.deployment_id
            )
            retired = tuple(ref.version for ref in route.state.warm)
            await uow.audit.append(
                AuditEntry(
                    event_type="deployment.window-closed",
                    entity_type="deployment",
                    entity_id=subject.deployment_id,
                    user=MONITOR,
                    details={
                        "message": bounded(f"the rollback window is over; {', '.join(retired)} is retired"),
                        "plugin": subject.plugin,
                        "environment": subject.environment,
                        "retired": list(retired),
                        "generation": written.generation,
                    },
                    at=await uow.now(),
                )
            )
            await uow.commit()
        return WindowClosed(generation=written.generation, state=state, retired=retired)


def _went_back(subject: MonitorSubject, request: DeploymentRequest, at: datetime) -> Notice:
    fields = {
        "deployment": request.deployment_id,
        "plugin": subject.plugin,
        "version": subject.target.version,
        "fromVersion": subject.previous.version,
        "environment": subject.environment,
        "by": MONITOR,
        "reason": request.reason,
    }
    return notice(
        NoticeKind.MONITOR_WENT_BACK,
        request.deployment_id,
        at,
        fields,
        environment=subject.environment,
        plugin=subject.plugin,
    )


async def _place(uow: UnitOfWork, subject: MonitorSubject) -> Place:
    """By what the route says, not by who wrote it: a newer deployment that was undone leaves our version in place."""
    route = await uow.routes.current(subject.environment, subject.plugin)
    if route is None:
        return Place.GONE
    if _serves(route, subject):
        return Place.OURS
    try:
        writer = await uow.deployments.get(route.deployment_id)
    except NotFound:
        return Place.GONE
    return Place.GONE if writer.progress.status in TERMINAL else Place.UNDECIDED


def _serves(route: RouteRecord, subject: MonitorSubject) -> bool:
    stable = route.state.stable
    return stable is not None and (stable.version, stable.digest) == (subject.target.version, subject.target.digest)


async def _known(uow: UnitOfWork, deployment_id: str) -> bool:
    try:
        await uow.deployments.get(deployment_id)
    except NotFound:
        return False
    return True
