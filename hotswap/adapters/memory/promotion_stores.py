"""Freezes and pipelines in memory: the twins of hotswap.adapters.postgres.promotion."""

from collections.abc import Sequence

from hotswap.adapters import promotion_rules, record_rules
from hotswap.adapters.memory.record_stores import _slice, _Store, _stored
from hotswap.domain.freeze import Freeze, FreezeKind
from hotswap.domain.pipeline import PipelineProgress
from hotswap.domain.registry import Page
from hotswap.ports.freezes import FreezeFilter
from hotswap.ports.pipelines import PipelineFilter, PipelineRow


class MemoryFreezeStore(_Store):
    async def add(self, freeze: Freeze) -> None:
        record_rules.storable(freeze, promotion_rules.FREEZE_LIMITS)
        state = await self._transaction.writing()
        stops = freeze.kind is FreezeKind.STOP and freeze.lifted_at is None
        stopped = any(one.kind is FreezeKind.STOP and one.lifted_at is None for one in state.freezes.values())
        if freeze.freeze_id in state.freezes or (stops and stopped):
            raise promotion_rules.freeze_taken(freeze)
        if freeze.environment not in {None, *state.environments} or freeze.plugin not in {None, *state.plugins}:
            raise promotion_rules.freeze_names_unknown(freeze)
        state.freezes[freeze.freeze_id] = _stored(freeze)

    async def get(self, freeze_id: str) -> Freeze:
        record_rules.check_storable({"freezeId": freeze_id})
        found = (await self._transaction.reading()).freezes.get(freeze_id)
        if found is None:
            raise promotion_rules.freeze_missing(freeze_id)
        return found

    async def list(self, where: FreezeFilter, page: Page) -> tuple[Sequence[Freeze], int]:
        record_rules.storable(where)
        found = [
            freeze
            for freeze in (await self._transaction.reading()).freezes.values()
            if _concerns(freeze, where.environment, where.plugin)
            and (where.lifted is None or (freeze.lifted_at is not None) == where.lifted)
        ]
        return _slice(sorted(found, key=_age, reverse=True), page)

    async def in_force(self, environment: str | None, plugin: str | None) -> Sequence[Freeze]:
        record_rules.check_storable({"environment": environment, "plugin": plugin})
        now = self._transaction.instant()
        found = [
            freeze
            for freeze in (await self._transaction.reading()).freezes.values()
            if freeze.lifted_at is None
            and (freeze.ends_for_good is None or freeze.ends_for_good > now)
            and _concerns(freeze, environment, plugin)
        ]
        return sorted(found, key=_age)

    async def lift(self, freeze_id: str, by: str, reason: str) -> Freeze:
        record_rules.check_storable({"freezeId": freeze_id, "by": by, "reason": reason}, {"by": record_rules.NAME})
        state = await self._transaction.writing()
        found = await self.get(freeze_id)
        if found.lifted_at is None:
            lifted = {"lifted_at": self._transaction.instant(), "lifted_by": by, "lift_reason": reason}
            state.freezes[freeze_id] = found.model_copy(update=lifted)
        return state.freezes[freeze_id]


class MemoryPipelineStore(_Store):
    async def open(self, row: PipelineRow) -> None:
        record_rules.storable(row.progress, promotion_rules.PIPELINE_LIMITS)
        record_rules.storable(row, promotion_rules.HANDLE_LIMITS)
        state = await self._transaction.writing()
        if row.progress.pipeline_id in state.pipelines:
            return
        if row.progress.plugin not in state.plugins:
            raise record_rules.plugin_missing(row.progress.plugin)
        state.pipelines[row.progress.pipeline_id] = _stored(row)

    async def project(self, progress: PipelineProgress) -> None:
        record_rules.storable(progress, promotion_rules.PIPELINE_LIMITS)
        state = await self._transaction.writing()
        held = await self.get(progress.pipeline_id)
        if progress.sequence >= held.progress.sequence:
            state.pipelines[progress.pipeline_id] = held.model_copy(update={"progress": _stored(progress)})

    async def get(self, pipeline_id: str) -> PipelineRow:
        record_rules.check_storable({"pipelineId": pipeline_id})
        found = (await self._transaction.reading()).pipelines.get(pipeline_id)
        if found is None:
            raise promotion_rules.pipeline_missing(pipeline_id)
        return found

    async def list(self, where: PipelineFilter, page: Page) -> tuple[Sequence[PipelineRow], int]:
        record_rules.storable(where)
        found = [
            row
            for row in (await self._transaction.reading()).pipelines.values()
            if where.plugin in (None, row.progress.plugin) and where.status in (None, row.progress.status)
        ]
        found.sort(key=lambda row: (row.progress.requested_at, row.progress.pipeline_id), reverse=True)
        return _slice(found, page)


def _concerns(freeze: Freeze, environment: str | None, plugin: str | None) -> bool:
    return (environment is None or freeze.environment in (None, environment)) and (
        plugin is None or freeze.plugin in (None, plugin)
    )


def _age(freeze: Freeze) -> tuple[object, ...]:
    return freeze.created_at, freeze.freeze_id
