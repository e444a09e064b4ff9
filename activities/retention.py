"""Takes away what nothing needs any more: artifacts of Archived versions, and presigned uploads whose time is over.

What a version may be needed for is asked anew before each removal: routes, rollback windows, deployments, pipelines, pins
and holds. Neighbours: workflows.retention runs it on a schedule, the facade shows what would go.
"""

from datetime import timedelta

from temporalio import activity

from activities.errors import translated
from activities.heartbeat import heartbeating
from hotswap.domain.base import Instant, Model
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict
from hotswap.domain.ids import artifact_key, upload_key
from hotswap.domain.lifecycle import DeploymentStatus, VersionStatus
from hotswap.domain.pipeline import ENDED
from hotswap.domain.registry import AuditEntry, Page, PluginVersion
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.pipelines import PipelineFilter
from hotswap.ports.records import DeploymentFilter, UnitOfWork, UnitOfWorkFactory

RETENTION = "hotswap-retention"
"""Who acts, in the audit, when nobody ordered the sweep."""

AT_ONCE = 100
"""Versions, and uploads, that one sweep removes: its report enters a history. The next sweep goes on."""

EXAMINED = 1_000
"""Archived versions that one sweep looks at: those that are needed for long must not hide the others."""

UPLOAD_MARGIN = timedelta(minutes=10)
"""After a presigned url ended: an upload that began in its last second may still be arriving."""

WAYS_BACK = 3
"""Newest Completed deployments of a place whose version before is kept: what `rollback` may lead to."""


class SweepOrder(Model):
    archived_for: timedelta
    dry_run: bool = False
    by: str = RETENTION


class SweptVersion(Model):
    plugin: str
    version: str
    digest: str
    size_bytes: int
    archived_at: Instant | None


class KeptVersion(Model):
    """An archived version that stays, and what for."""

    plugin: str
    version: str
    reasons: tuple[str, ...]


class SweepReport(Model):
    dry_run: bool
    removed: tuple[SweptVersion, ...] = ()
    kept: tuple[KeptVersion, ...] = ()
    freed_bytes: int = 0
    uploads: int = 0


class Retention:
    def __init__(self, unit_of_work: UnitOfWorkFactory, store: ArtifactStore) -> None:
        self._unit_of_work = unit_of_work
        self._store = store

    async def sweep(self, order: SweepOrder) -> SweepReport:
        """Safe to repeat and to run twice at once: each removal is checked, done, then noted. Raises Unavailable."""
        removed: list[SweptVersion] = []
        kept: list[KeptVersion] = []
        async with self._unit_of_work() as uow:
            archived = await uow.versions.archived(EXAMINED)
        for version in archived:
            if len(removed) == AT_ONCE:
                break
            reasons = await self._take(version, order)
            if reasons:
                kept.append(KeptVersion(plugin=version.plugin, version=version.version, reasons=tuple(reasons[:5])))
            else:
                removed.append(SweptVersion.model_validate(version.model_dump(include=set(SweptVersion.model_fields))))
        return SweepReport(
            dry_run=order.dry_run,
            removed=tuple(removed),
            kept=tuple(kept[:AT_ONCE]),
            freed_bytes=sum(version.size_bytes for version in removed),
            uploads=await self._sweep_uploads(order),
        )

    async def _take(self, version: PluginVersion, order: SweepOrder) -> list[str]:
        """Remove the artifact; or why not."""
        async with self._unit_of_work() as uow:
            now = await uow.now()
            due = (version.archived_at or now) + order.archived_for
            if now < due:
                return [f"archived until {due.isoformat(timespec='minutes')}"]
            if reasons := await needed_by(uow, version.plugin, version.version):
                return reasons
            if order.dry_run:
                return []
            # Before the note: an object that is gone and not noted is taken again, one that is noted and not gone never.
            await self._store.purge(artifact_key(version.plugin, version.digest))
            try:
                await uow.versions.move(
                    version.model_copy(update={"artifact_removed_at": now}), expected=VersionStatus.ARCHIVED
                )
            except Conflict as moved:  # nothing leads out of Archived today
                return [moved.message]
            await uow.audit.append(
                AuditEntry(
                    event_type="version.artifact-removed",
                    entity_type="plugin",
                    entity_id=version.plugin,
                    user=order.by,
                    details={"version": version.version, "digest": version.digest, "sizeBytes": version.size_bytes},
                    at=now,
                )
            )
            await uow.commit()
        return []

    async def _sweep_uploads(self, order: SweepOrder) -> int:
        async with self._unit_of_work() as uow:
            over = await uow.uploads.over(await uow.now() - UPLOAD_MARGIN, AT_ONCE)
        if not order.dry_run:
            for upload in over:
                await self._store.purge(upload_key(upload.plugin, upload.upload_id))
                async with self._unit_of_work() as uow:
                    await uow.uploads.remove(upload.upload_id)
                    await uow.commit()
        return len(over)


class RetentionActivities:
    def __init__(self, retention: Retention) -> None:
        self._retention = retention

    @activity.defn
    @translated
    async def sweep_retention(self, order: SweepOrder) -> SweepReport:
        """Raises Unavailable (retried)."""
        async with heartbeating():
            return await self._retention.sweep(order)


async def needed_by(uow: UnitOfWork, plugin: str, version: str) -> list[str]:
    """Everything that needs the artifact of this version, in words; empty when nothing does."""
    found: list[str] = []
    for environment in Environment:
        route = await uow.routes.current(environment, plugin)
        if route is not None and version in {ref.version for ref in route.state.versions()}:
            found.append(f"{environment} has it loaded (route generation {route.generation})")
        for row in await uow.deployments.unfinished(environment, plugin):
            if version in (row.progress.to_version, row.progress.from_version):
                found.append(f"{row.progress.deployment_id} in {environment} has not ended")
        where = DeploymentFilter(plugin=plugin, environment=environment, status=DeploymentStatus.COMPLETED)
        completed, _ = await uow.deployments.list(where, Page(limit=WAYS_BACK))
        found += [
            f"{row.progress.deployment_id} in {environment} can be rolled back to it"
            for row in completed
            if row.progress.from_version == version
        ]
        if await uow.held.find(environment, plugin, version) is not None:
            found.append(f"it is held in {environment}, where it may be let in again")
    if pinned := [tenant for tenant, ref in (await uow.pins.pins(plugin)).items() if ref.version == version]:
        found.append(f"{len(pinned)} tenants are pinned to it, {pinned[0]} first")
    pipelines, _ = await uow.pipelines.list(PipelineFilter(plugin=plugin), Page(limit=100))
    found += [
        f"pipeline {row.progress.pipeline_id} has not ended"
        for row in pipelines
        if row.progress.version == version and row.progress.status not in ENDED
    ]
    return found
