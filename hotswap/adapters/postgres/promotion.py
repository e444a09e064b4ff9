"""Freezes and pipelines on PostgreSQL: hotswap.ports.freezes and hotswap.ports.pipelines."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import promotion_rules, record_rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import freezes, pipelines
from hotswap.domain.freeze import Freeze
from hotswap.domain.pipeline import PipelineProgress
from hotswap.domain.registry import Page
from hotswap.ports.freezes import FreezeFilter
from hotswap.ports.pipelines import PipelineFilter, PipelineRow


class PostgresFreezeStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, freeze: Freeze) -> None:
        data = record_rules.storable(freeze, promotion_rules.FREEZE_LIMITS)
        await self._session.run_guarded(
            insert(freezes).values(
                freeze_id=freeze.freeze_id,
                kind=freeze.kind,
                environment=freeze.environment,
                plugin_id=freeze.plugin,
                time_window=data["window"],
                ends_for_good=freeze.ends_for_good,
                reason=freeze.reason,
                created_by=freeze.created_by,
                created_at=freeze.created_at,
                lifted_at=freeze.lifted_at,
                lifted_by=freeze.lifted_by,
                lift_reason=freeze.lift_reason,
            ),
            unique=promotion_rules.freeze_taken(freeze),
            foreign=promotion_rules.freeze_names_unknown(freeze),
        )

    async def get(self, freeze_id: str) -> Freeze:
        record_rules.check_storable({"freezeId": freeze_id})
        row = await self._session.first(select(freezes).where(freezes.c.freeze_id == freeze_id))
        if row is None:
            raise promotion_rules.freeze_missing(freeze_id)
        return _freeze(row)

    async def list(self, where: FreezeFilter, page: Page) -> tuple[Sequence[Freeze], int]:
        record_rules.storable(where)
        query = _concerning(select(freezes), where.environment, where.plugin)
        if where.lifted is not None:
            query = query.where(freezes.c.lifted_at.is_not(None) if where.lifted else freezes.c.lifted_at.is_(None))
        query = query.order_by(freezes.c.created_at.desc(), freezes.c.freeze_id.desc())
        rows, total = await self._session.page(query, page)
        return [_freeze(row) for row in rows], total

    async def in_force(self, environment: str | None, plugin: str | None) -> Sequence[Freeze]:
        record_rules.check_storable({"environment": environment, "plugin": plugin})
        query = _concerning(select(freezes), environment, plugin).where(
            freezes.c.lifted_at.is_(None),
            or_(freezes.c.ends_for_good.is_(None), freezes.c.ends_for_good > func.clock_timestamp()),
        )
        rows = await self._session.all(query.order_by(freezes.c.created_at, freezes.c.freeze_id))
        return [_freeze(row) for row in rows]

    async def lift(self, freeze_id: str, by: str, reason: str) -> Freeze:
        record_rules.check_storable({"freezeId": freeze_id, "by": by, "reason": reason}, {"by": record_rules.NAME})
        await self._session.run(
            update(freezes)
            .where(freezes.c.freeze_id == freeze_id, freezes.c.lifted_at.is_(None))
            .values(lifted_at=func.clock_timestamp(), lifted_by=by, lift_reason=reason)
        )
        return await self.get(freeze_id)


class PostgresPipelineStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def open(self, row: PipelineRow) -> None:
        record_rules.storable(row, promotion_rules.HANDLE_LIMITS)
        values = _projected(row.progress) | {
            "pipeline_id": row.progress.pipeline_id,
            "plugin_id": row.progress.plugin,
            "version": row.progress.version,
            "initiated_by": row.progress.initiated_by,
            "created_at": row.progress.requested_at,
            "workflow_id": row.workflow_id,
            "run_id": row.run_id,
        }
        await self._session.run_guarded(
            insert(pipelines).values(values).on_conflict_do_nothing(index_elements=["pipeline_id"]),
            foreign=record_rules.plugin_missing(row.progress.plugin),
        )

    async def project(self, progress: PipelineProgress) -> None:
        done = await self._session.run(
            update(pipelines)
            .where(pipelines.c.pipeline_id == progress.pipeline_id, pipelines.c.sequence <= progress.sequence)
            .values(_projected(progress))
        )
        if not done.rowcount:
            await self.get(progress.pipeline_id)

    async def get(self, pipeline_id: str) -> PipelineRow:
        record_rules.check_storable({"pipelineId": pipeline_id})
        row = await self._session.first(select(pipelines).where(pipelines.c.pipeline_id == pipeline_id))
        if row is None:
            raise promotion_rules.pipeline_missing(pipeline_id)
        return _pipeline(row)

    async def list(self, where: PipelineFilter, page: Page) -> tuple[Sequence[PipelineRow], int]:
        record_rules.storable(where)
        query = select(pipelines).order_by(pipelines.c.created_at.desc(), pipelines.c.pipeline_id.desc())
        if where.plugin is not None:
            query = query.where(pipelines.c.plugin_id == where.plugin)
        if where.status is not None:
            query = query.where(pipelines.c.status == where.status)
        rows, total = await self._session.page(query, page)
        return [_pipeline(row) for row in rows], total


def _concerning(query: Select[Any], environment: str | None, plugin: str | None) -> Select[Any]:
    if environment is not None:
        query = query.where(or_(freezes.c.environment.is_(None), freezes.c.environment == environment))
    if plugin is not None:
        query = query.where(or_(freezes.c.plugin_id.is_(None), freezes.c.plugin_id == plugin))
    return query


def _freeze(row: Row[Any]) -> Freeze:
    return Freeze(
        freeze_id=row.freeze_id,
        kind=row.kind,
        environment=row.environment,
        plugin=row.plugin_id,
        window=row.time_window,
        reason=row.reason,
        created_by=row.created_by,
        created_at=row.created_at,
        lifted_at=row.lifted_at,
        lifted_by=row.lifted_by,
        lift_reason=row.lift_reason,
    )


def _projected(progress: PipelineProgress) -> dict[str, Any]:
    data = record_rules.storable(progress, promotion_rules.PIPELINE_LIMITS)
    return {
        "status": progress.status,
        "finished_at": progress.finished_at,
        "progress": data,
        "sequence": progress.sequence,
    }


def _pipeline(row: Row[Any]) -> PipelineRow:
    return PipelineRow(
        progress=PipelineProgress.model_validate(row.progress), workflow_id=row.workflow_id, run_id=row.run_id
    )
