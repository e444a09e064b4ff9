"""Pipelines: validate everything, start the workflow, open the row; read them back; command them.

A refused start leaves no trace. Neighbours: api.services.promotions carries out, workflows.pipeline promotes.
"""

import logging

from api.schemas.common import CommandIn
from api.schemas.pipelines import PipelineIn, PipelineOut, PipelineQuery, StageIn
from api.services.actor import Actor
from api.services.idempotency import Once, fingerprint
from api.services.metric_checks import askable
from api.services.plugins import entry
from api.services.promotions import Promotions
from api.services.rollouts import Handle, RolloutOver
from hotswap.config import Settings
from hotswap.domain.base import bounded
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput, NotFound, Unavailable
from hotswap.domain.ids import derived_id, new_id
from hotswap.domain.lifecycle import PluginStatus
from hotswap.domain.pipeline import ENDED, RETRYABLE, PipelineProgress, PipelineRequest, PipelineStage, StageProgress
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.domain.release import check_deployable
from hotswap.ports.pipelines import PipelineFilter, PipelineRow
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from hotswap.strategies.registry import parse_config
from workflows.messages import Command, WorkflowNames
from workflows.pipeline_messages import PipelineCommandResult

log = logging.getLogger(__name__)

OPERATION = "pipelines.start"

GATE_COMMANDS = frozenset({WorkflowNames.APPROVE, WorkflowNames.REJECT})
"""Open to who holds the gate's role; the workflow knows it, and refuses the initiator."""

NEED_A_REASON = frozenset({WorkflowNames.REJECT, WorkflowNames.ABORT})


class PipelineService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, promotions: Promotions | None, settings: Settings) -> None:
        self._unit_of_work = unit_of_work
        self._reached = promotions
        self._settings = settings

    @property
    def _promotions(self) -> Promotions:
        if self._reached is None:
            raise Unavailable("this api has no way to reach pipelines")
        return self._reached

    async def start(self, wanted: PipelineIn, actor: Actor, once: Once) -> PipelineOut:
        """Raises InvalidInput, NotFound, Forbidden, Conflict; Unavailable (a repeat helps)."""
        for stage in wanted.stages:
            actor.require_deployer(stage.environment)
        if wanted.freeze_override_reason:
            actor.require_freeze_override()
        request_hash = fingerprint(wanted)
        pipeline_id = derived_id("pip", actor.user, once.key) if once.key else new_id("pip")
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, PipelineOut):
                return known
            if once.key and (row := await _row_or_none(uow, pipeline_id)):
                return self._view(row.progress, row)
            request = await self._prepare(uow, wanted, actor, pipeline_id)
        handle = await self._promotions.start(request)
        row = _opening(request, handle)
        answer = self._view(row.progress, row)
        details = {
            "plugin": request.plugin,
            "version": request.version,
            "environments": [stage.environment for stage in request.stages],
            "reason": request.reason,
            **({"freezeOverrideReason": request.freeze_override_reason} if request.freeze_override_reason else {}),
        }
        try:
            async with self._unit_of_work() as uow:
                await uow.pipelines.open(row)
                now = await uow.now()
                await uow.audit.append(entry("pipeline.requested", "pipeline", pipeline_id, actor, now, details))
                await once.keep(uow, request_hash, 202, answer)
                await uow.commit()
        except Unavailable as fault:
            # It runs: to refuse now would be a lie. The workflow opens the row itself.
            log.warning("pipeline %s runs, but its request was not recorded: %s", pipeline_id, fault.message)
        return answer

    async def _prepare(self, uow: UnitOfWork, wanted: PipelineIn, actor: Actor, pipeline_id: str) -> PipelineRequest:
        plugin = await uow.plugins.get(wanted.plugin_id)
        if plugin.status == PluginStatus.ARCHIVED:
            raise Conflict(f"{plugin.name} is Archived and cannot be deployed")
        if plugin.status == PluginStatus.DEPRECATED:
            raise Conflict(
                f"{plugin.name} is Deprecated: {plugin.deprecation_reason}; no pipeline takes it on, a deployment with "
                "allowDeprecated does"
            )
        version = await uow.versions.get(wanted.plugin_id, wanted.version)
        _check_order(wanted)
        for stage in wanted.stages:
            check_deployable(version, stage.environment)
        policies = {policy.name: policy for policy in await uow.environments.list()}
        stages = [self._stage(number, stage, policies[stage.environment]) for number, stage in enumerate(wanted.stages)]
        return PipelineRequest(
            pipeline_id=pipeline_id,
            plugin=plugin.name,
            version=version.version,
            stages=tuple(stages),
            on_conflict=wanted.on_conflict,
            initiated_by=actor.user,
            reason=wanted.reason,
            freeze_override_reason=wanted.freeze_override_reason,
            requested_at=await uow.now(),
        )

    def _stage(self, number: int, stage: StageIn, policy: EnvironmentPolicy) -> PipelineStage:
        strategy = stage.strategy or self._settings.default_strategy or policy.default_strategy
        try:
            config = askable(parse_config(strategy, stage.config), self._settings.metrics)
        except InvalidInput as fault:
            where = f"stages.{number}"
            faults = [FieldFault(f"{where}.{one.field}", one.message) for one in fault.faults]
            raise InvalidInput(f"{where}: {fault.message}", faults) from None
        return PipelineStage(environment=stage.environment, config=config, gate=stage.gate, soak=stage.soak)

    async def get(self, pipeline_id: str) -> PipelineOut:
        """The freshest picture: of a running pipeline the workflow's own, when it tells one within a second."""
        row = await self._row(pipeline_id)
        if _may_change(row.progress) and self._reached is not None:
            told = await self._promotions.status(Handle(row.workflow_id, row.run_id))
            if told and told.sequence >= row.progress.sequence:
                return self._view(told, row)
        return self._view(row.progress, row)

    async def list(self, query: PipelineQuery) -> tuple[list[PipelineOut], int]:
        """Newest first, from the projection."""
        async with self._unit_of_work() as uow:
            rows, total = await uow.pipelines.list(PipelineFilter(plugin=query.plugin_id, status=query.status), query)
        return [self._view(row.progress, row) for row in rows], total

    async def send(
        self, pipeline_id: str, name: str, body: CommandIn, actor: Actor, once: Once
    ) -> PipelineCommandResult:
        """Raises InvalidInput (no reason), NotFound, Forbidden, Conflict with the reason why it makes no sense now,
        Unavailable when no worker answered in time (repeat it with the same key)."""
        if name in NEED_A_REASON and not body.reason.strip():
            fault = FieldFault("reason", f"is required to {name}; say why")
            raise InvalidInput(f"reason: is required to {name} a pipeline", [fault])
        request_hash = fingerprint({"pipeline": pipeline_id, "command": name, **body.model_dump(mode="json")})
        async with self._unit_of_work() as uow:
            row = await uow.pipelines.get(pipeline_id)
            for stage in row.progress.stages:
                actor.require_reach(stage.environment)
                if name not in GATE_COMMANDS:
                    actor.require_deployer(stage.environment)
            if known := await once.first_answer(uow, request_hash, PipelineCommandResult):
                return known
        command = Command(by=actor.user, roles=actor.ordered_roles(), reason=body.reason)
        update_id = f"{name}:{actor.user}:{once.key}" if once.key else None
        try:
            result = await self._promotions.command(Handle(row.workflow_id, row.run_id), name, command, update_id)
        except RolloutOver:
            raise _over((await self._row(pipeline_id)).progress, name) from None
        try:
            async with self._unit_of_work() as uow:
                now = await uow.now()
                details = {"reason": bounded(body.reason), "message": result.message}
                await uow.audit.append(
                    entry(f"pipeline.{name}.requested", "pipeline", pipeline_id, actor, now, details)
                )
                await once.keep(uow, request_hash, 200, result)
                await uow.commit()
        except Unavailable as fault:
            log.warning("'%s' to %s was obeyed but not audited here: %s", name, pipeline_id, fault.message)
        return result

    async def _row(self, pipeline_id: str) -> PipelineRow:
        async with self._unit_of_work() as uow:
            return await uow.pipelines.get(pipeline_id)

    def _view(self, progress: PipelineProgress, row: PipelineRow) -> PipelineOut:
        return PipelineOut.of(progress, row, self._settings.temporal)


def _check_order(wanted: PipelineIn) -> None:
    ranks = [tuple(Environment).index(stage.environment) for stage in wanted.stages]
    if ranks != sorted(set(ranks)):
        message = f"must name each environment once, in the order of promotion: {', '.join(Environment)}"
        raise InvalidInput(f"stages: {message}", [FieldFault("stages", message)])
    if wanted.stages[0].gate is not None:
        message = "stands between two stages; there is none before the first"
        raise InvalidInput(f"stages.0.gate: {message}", [FieldFault("stages.0.gate", message)])


def _may_change(progress: PipelineProgress) -> bool:
    return progress.status not in ENDED or (progress.status in RETRYABLE and progress.retry_until is not None)


async def _row_or_none(uow: UnitOfWork, pipeline_id: str) -> PipelineRow | None:
    try:
        return await uow.pipelines.get(pipeline_id)
    except NotFound:
        return None


def _opening(request: PipelineRequest, handle: Handle) -> PipelineRow:
    """The row before the workflow has said anything: sequence 0, so that every later picture replaces it."""
    progress = PipelineProgress(
        pipeline_id=request.pipeline_id,
        plugin=request.plugin,
        version=request.version,
        initiated_by=request.initiated_by,
        reason=request.reason,
        stages=tuple(
            StageProgress(environment=stage.environment, strategy=stage.config.kind, gate=stage.gate)
            for stage in request.stages
        ),
        requested_at=request.requested_at,
    )
    return PipelineRow(progress=progress, workflow_id=handle.workflow_id, run_id=handle.run_id)


def _over(progress: PipelineProgress, name: str) -> Conflict:
    why = f": {progress.outcome_reason}" if progress.outcome_reason else ""
    return Conflict(f"{progress.pipeline_id} is {progress.status}{why}; '{name}' makes no sense any more")
