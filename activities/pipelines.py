"""What a pipeline asks and tells: which version an environment serves, and its own picture for PostgreSQL.

Neighbours: workflows.pipeline orders these; a stage's deployment keeps its own record (activities.records).
"""

from temporalio import activity

from activities.errors import translated
from activities.records import AUDITED
from hotswap.domain.base import Model
from hotswap.domain.deployment import TimelineEvent
from hotswap.domain.notices import of_pipeline
from hotswap.domain.pipeline import PipelineProgress
from hotswap.domain.registry import AuditEntry
from hotswap.ports.events import EventBus
from hotswap.ports.pipelines import PipelineRow
from hotswap.ports.records import UnitOfWorkFactory


class ServedInput(Model):
    environment: str
    plugin: str


class Served(Model):
    """`version` None: nothing was ever deployed there, or it was taken away."""

    version: str | None = None


class PipelineRecord(Model):
    """`opening` comes with the first record, in case the facade died before it wrote the row."""

    progress: PipelineProgress
    events: tuple[TimelineEvent, ...] = ()
    opening: PipelineRow | None = None


class PipelineActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory, bus: EventBus) -> None:
        self._unit_of_work = unit_of_work
        self._bus = bus

    @activity.defn
    @translated
    async def served_version(self, order: ServedInput) -> Served:
        """The stable version of an environment now."""
        async with self._unit_of_work() as uow:
            route = await uow.routes.current(order.environment, order.plugin)
        stable = route.state.stable if route else None
        return Served(version=stable.version if stable else None)

    @activity.defn
    @translated
    async def record_pipeline(self, order: PipelineRecord) -> None:
        """Projection and audit in one transaction, then a wake-up. Run twice, nothing is audited twice."""
        pipeline_id = order.progress.pipeline_id
        async with self._unit_of_work() as uow:
            if order.opening is not None:
                await uow.pipelines.open(order.opening)
            audited = (await uow.pipelines.get(pipeline_id)).progress.newest_event
            for event in order.events:
                if event.kind in AUDITED and event.sequence > audited:
                    await uow.audit.append(_audit_entry(order.progress, event))
            for notice in of_pipeline(order.progress, (event for event in order.events if event.sequence > audited)):
                await uow.notifications.announce(notice)
            await uow.pipelines.project(order.progress)
            await uow.commit()
        await self._bus.publish(f"pipeline:{pipeline_id}", str(order.progress.sequence))


def _audit_entry(progress: PipelineProgress, event: TimelineEvent) -> AuditEntry:
    return AuditEntry(
        event_type=f"pipeline.{event.kind}",
        entity_type="pipeline",
        entity_id=progress.pipeline_id,
        user=str(event.data.get("by", "hotswap")),
        details={
            "message": event.message,
            "plugin": progress.plugin,
            "version": progress.version,
            **event.data,
        },
        at=event.at,
    )
