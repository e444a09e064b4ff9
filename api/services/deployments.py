"""Deployments: validate everything, start the workflow, open the row; read them back from the freshest source.

A refused start leaves no trace. Neighbours: api.services.rollouts carries out, api.services.commands commands,
hotswap.strategies.registry reads configurations and makes plans.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from activities.planning import check_admission
from api.metrics import ApiMetrics
from api.schemas.deployments import DeploymentIn, DeploymentOut, PlannedStep, PlanOut, RolledBack
from api.services.actor import Actor
from api.services.aftercare import refuse_held
from api.services.idempotency import Once, fingerprint
from api.services.metric_checks import askable
from api.services.plugins import entry
from api.services.recorder import Recorder
from api.services.rollouts import Handle, Rollouts
from hotswap.config import Settings
from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest, OnConflict, Strategy, TimelineEvent
from hotswap.domain.errors import Conflict, DependencyConflict, NotFound
from hotswap.domain.ids import derived_id, is_queued, new_id
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus, PluginStatus
from hotswap.domain.plan import AwaitApproval, Plan, step_title
from hotswap.domain.registry import EnvironmentPolicy, Page
from hotswap.domain.release import check_deployable
from hotswap.ports.records import DeploymentFilter, DeploymentRow, UnitOfWork, UnitOfWorkFactory
from hotswap.ports.signatures import SignatureGuard
from hotswap.runtime.config_check import ConfigCheck
from hotswap.strategies.registry import make_plan, parse_config

OPERATION = "deployments.start"

REQUESTED = "deployment.requested"
"""The audit entry of a request; commands read it to tell a rollback from a deployment."""

PLANNED_WITHIN = 50
"""Lines of a timeline, from its first, that the plan is looked for among: it is the first that follows the wait for a turn."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that passed every check, with the plan the workflow will make of it.

    No plan: it only makes sense once those before it in the line are over, and is planned when its turn comes.
    """

    request: DeploymentRequest
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Found:
    """A deployment and who told it: the workflow itself, or PostgreSQL's projection of it."""

    deployment: DeploymentOut
    source: str


class DeploymentService:
    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        reading: UnitOfWorkFactory,
        rollouts: Rollouts,
        settings: Settings,
        metrics: ApiMetrics,
        guard: SignatureGuard,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._reading = reading
        self._rollouts = rollouts
        self._settings = settings
        self._metrics = metrics
        self._guard = guard
        self._judge = ConfigCheck()
        self._recorder = Recorder(unit_of_work)

    async def close(self) -> None:
        """As Recorder.close."""
        await self._recorder.close()

    async def start(self, wanted: DeploymentIn, actor: Actor, once: Once) -> DeploymentOut:
        """Raises InvalidInput, NotFound, Forbidden, Conflict, DeploymentRunning; Unavailable (a repeat helps)."""
        actor.require_deployer(wanted.environment)
        request_hash = fingerprint(wanted)
        deployment_id = derived_id("dep", actor.user, once.key) if once.key else new_id("dep")
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, DeploymentOut):
                return known
            if once.key and (row := await row_or_none(uow, deployment_id)):
                # An answer that was lost on its way, or the key is older than the kept answers.
                return self.view(row)
            prepared = await self.prepare(uow, wanted, actor, deployment_id)
        return await self.launch(prepared, actor, once, request_hash)

    async def launch(self, prepared: Prepared, actor: Actor, once: Once, request_hash: str) -> DeploymentOut:
        """Start the workflow of a checked request and record it. Raises DeploymentRunning, Unavailable."""
        request = prepared.request
        start = self._rollouts.start if request.on_conflict is OnConflict.REJECT else self._rollouts.enqueue
        handle = await start(request)
        row = _opening(prepared, handle)
        answer = self.view(row)
        details = {
            "plugin": request.plugin,
            "version": request.version,
            "environment": request.environment,
            "strategy": request.strategy,
            "reason": request.reason,
            **({"rollbackOf": request.rollback_of} if request.rollback_of else {}),
            **({"retryOf": request.retry_of} if request.retry_of else {}),
            **({"onConflict": request.on_conflict} if request.on_conflict is not OnConflict.REJECT else {}),
            **({"hotfix": True} if request.hotfix else {}),
            **({"allowDeprecated": True} if request.allow_deprecated else {}),
            **({"freezeOverrideReason": request.freeze_override_reason} if request.freeze_override_reason else {}),
        }

        async def record(uow: UnitOfWork, again: bool) -> None:
            await uow.deployments.open(row)
            if not again or not await _was_requested(uow, request.deployment_id):
                now = await uow.now()
                await uow.audit.append(entry(REQUESTED, "deployment", request.deployment_id, actor, now, details))
            await once.keep(uow, request_hash, 202, answer)

        await self._recorder.commit(record, request.deployment_id)
        self._metrics.deployments_started.labels(request.environment, request.strategy).inc()
        return answer

    async def plan(self, wanted: DeploymentIn, actor: Actor) -> PlanOut:
        """What `start` would do, and who holds the place now. Starts and stores nothing."""
        actor.require_deployer(wanted.environment)
        async with self._unit_of_work() as uow:
            now = wanted.model_copy(update={"on_conflict": OnConflict.REJECT})
            prepared = await self.prepare(uow, now, actor, new_id("dep"))
            unfinished = await uow.deployments.unfinished(wanted.environment, wanted.plugin_id)
        plan = prepared.plan
        assert plan is not None  # only what queues may lack one
        held = [row.progress for row in unfinished if not is_queued(row.workflow_id)]
        return PlanOut(
            plan=plan,
            plan_hash=plan.plan_hash,
            from_version=plan.from_version,
            to_version=plan.to_version,
            strategy=prepared.request.strategy,
            approvals_required=_approvals(plan),
            steps=tuple(
                PlannedStep(number=number, title=step_title(step), step=step.model_dump(mode="json"))
                for number, step in enumerate(plan.steps, start=1)
            ),
            running=held[-1].deployment_id if held else None,
        )

    async def prepare(
        self, uow: UnitOfWork, wanted: DeploymentIn, actor: Actor, deployment_id: str, retry_of: str | None = None
    ) -> Prepared:
        """Every check that can be made before a start. Raises InvalidInput, DependencyConflict, NotFound, Conflict."""
        plugin = await uow.plugins.get(wanted.plugin_id)
        if plugin.status == PluginStatus.ARCHIVED:
            raise Conflict(f"{plugin.name} is Archived and cannot be deployed")
        if plugin.status == PluginStatus.DEPRECATED and not wanted.allow_deprecated:
            raise Conflict(
                f"{plugin.name} is Deprecated: {plugin.deprecation_reason}; deploy what replaces it, or send allowDeprecated"
            )
        version = await uow.versions.get(wanted.plugin_id, wanted.version)
        await refuse_held(uow, wanted)
        if wanted.freeze_override_reason:
            actor.require_freeze_override()
        policy = await uow.environments.get(wanted.environment)
        strategy = self._strategy(wanted.strategy, policy)
        request = DeploymentRequest(
            deployment_id=deployment_id,
            plugin=plugin.name,
            version=version.version,
            environment=wanted.environment,
            config=askable(parse_config(strategy, wanted.config), self._settings.metrics),
            initiated_by=actor.user,
            reason=wanted.reason,
            requested_at=await uow.now(),
            retry_of=retry_of,
            on_conflict=wanted.on_conflict,
            hotfix=wanted.hotfix,
            override_hold=wanted.override_hold,
            freeze_override_reason=wanted.freeze_override_reason,
            allow_deprecated=wanted.allow_deprecated,
        )
        check_deployable(version, wanted.environment, allow_deprecated=wanted.allow_deprecated)
        route = await uow.routes.current(wanted.environment, plugin.name)
        try:
            await check_admission(uow, version, wanted.environment, self._guard, request, self._judge)
            return Prepared(request, make_plan(request, policy, version.ref, route.state.stable if route else None))
        except (Conflict, DependencyConflict):
            # What is served now need not be what is served when its turn comes.
            if wanted.on_conflict is OnConflict.REJECT or not await uow.deployments.unfinished(
                wanted.environment, plugin.name
            ):
                raise
            return Prepared(request, None)

    def _strategy(self, asked: Strategy | None, policy: EnvironmentPolicy) -> Strategy:
        return asked or self._settings.default_strategy or policy.default_strategy

    async def row(self, deployment_id: str) -> DeploymentRow:
        """Raises NotFound."""
        async with self._reading() as uow:
            return await uow.deployments.get(deployment_id)

    async def get(self, deployment_id: str) -> Found:
        """The freshest picture: of a running deployment the workflow's own, when it tells one within a second."""
        async with self._reading() as uow:
            row = await uow.deployments.get(deployment_id)
            steps = _planned(await uow.deployments.events(deployment_id, limit=PLANNED_WITHIN))
        if row.progress.status not in TERMINAL:
            told = await self._rollouts.status(Handle(row.workflow_id, row.run_id))
            # The workflow id belongs to (environment, plugin): a later deployment may answer under it.
            if told and told.deployment_id == deployment_id and told.sequence > row.progress.sequence:
                return Found(self._view(told, row, steps), "workflow")
        return Found(self._view(row.progress, row, steps), "projection")

    async def list(self, where: DeploymentFilter, page: Page) -> tuple[list[DeploymentOut], int]:
        """Newest first, from the projection."""
        async with self._reading() as uow:
            rows, total = await uow.deployments.list(where, page)
        return [self.view(row) for row in rows], total

    async def rollback_history(self, deployment_id: str, page: Page) -> tuple[Sequence[RolledBack], int]:
        """Rolled-back deployments of the same plugin and environment, newest first. Raises NotFound."""
        async with self._reading() as uow:
            asked = (await uow.deployments.get(deployment_id)).progress
            where = DeploymentFilter(
                plugin=asked.plugin, environment=asked.environment, status=DeploymentStatus.ROLLED_BACK
            )
            rows, total = await uow.deployments.list(where, page)
        return [_rolled_back(row.progress) for row in rows], total

    def view(self, row: DeploymentRow) -> DeploymentOut:
        return self._view(row.progress, row)

    def _view(self, progress: DeploymentProgress, row: DeploymentRow, steps: tuple[str, ...] = ()) -> DeploymentOut:
        return DeploymentOut.of(progress, row.workflow_id, row.run_id, self._settings.temporal, steps)


async def row_or_none(uow: UnitOfWork, deployment_id: str) -> DeploymentRow | None:
    """The row of a deployment that may not exist."""
    try:
        return await uow.deployments.get(deployment_id)
    except NotFound:
        return None


async def _was_requested(uow: UnitOfWork, deployment_id: str) -> bool:
    """Whether a commit whose answer was lost has recorded the request after all."""
    entries, _ = await uow.audit.list(deployment_id, None, Page(limit=100))
    return any(found.event_type == REQUESTED for found in entries)


def _opening(prepared: Prepared, handle: Handle) -> DeploymentRow:
    """The row as it stands before the workflow has said anything: sequence 0, so that every later picture replaces it."""
    request, plan = prepared.request, prepared.plan
    progress = DeploymentProgress(
        deployment_id=request.deployment_id,
        plugin=request.plugin,
        environment=request.environment,
        strategy=request.strategy,
        to_version=request.version,
        initiated_by=request.initiated_by,
        reason=request.reason,
        requested_at=request.requested_at,
        retry_of=request.retry_of,
        rollback_of=request.rollback_of,
        on_conflict=request.on_conflict,
        hotfix=request.hotfix,
        waiting_for="its turn" if is_queued(handle.workflow_id) else "",
    )
    if plan is not None and not is_queued(handle.workflow_id):
        planned = {
            "from_version": plan.from_version,
            "step_count": len(plan.steps),
            "approvals_required": _approvals(plan),
            "plan_hash": plan.plan_hash,
            "digest": plan.target.digest,
        }
        progress = progress.model_copy(update=planned)
    config = request.config.model_dump(mode="json")
    return DeploymentRow(progress=progress, config=config, workflow_id=handle.workflow_id, run_id=handle.run_id)


def _planned(timeline: Sequence[TimelineEvent]) -> tuple[str, ...]:
    """Titles of the steps, as the workflow told when it had planned; a release before this one told none."""
    told = next((event.data.get("steps", ()) for event in timeline if event.kind == "plan"), ())
    return tuple(str(title) for title in told)


def _approvals(plan: Plan) -> int:
    return sum(step.required for step in plan.steps if isinstance(step, AwaitApproval))


def _rolled_back(progress: DeploymentProgress) -> RolledBack:
    return RolledBack(
        deployment_id=progress.deployment_id,
        version=progress.to_version,
        back_to=progress.from_version,
        strategy=progress.strategy,
        initiated_by=progress.initiated_by,
        reason=progress.outcome_reason,
        requested_at=progress.requested_at,
        rolled_back_at=progress.rolled_back_at,
    )
