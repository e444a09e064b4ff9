"""Commands to a deployment: who may, does it make sense now, and the answer, the same for a repeat.

To roll back a running deployment is a command to its workflow; to roll back a completed one is a new Direct deployment
of the version before it, to retry one that ended badly is a new one of the same request. Neighbours: api.services.rollouts
sends, workflows.commands judges, api.services.retries prepares retries.
"""

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic

from api.metrics import ApiMetrics
from api.schemas.common import ApproveIn, CommandIn
from api.services.actor import Actor
from api.services.aftercare import still_warm
from api.services.deployments import REQUESTED, DeploymentService, Prepared, row_or_none
from api.services.idempotency import Once, fingerprint
from api.services.plugins import entry
from api.services.retries import RETRY, RETRYABLE, check_retry, prepare_retry
from api.services.rollouts import Handle, RolloutOver, Rollouts
from hotswap.domain.base import bounded
from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest, DirectConfig
from hotswap.domain.errors import Conflict, FieldFault, HotSwapError, InvalidInput, Unavailable
from hotswap.domain.ids import derived_id, new_id
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus
from hotswap.domain.registry import Page
from hotswap.domain.release import check_way_back
from hotswap.ports.records import DeploymentFilter, DeploymentRow, UnitOfWork, UnitOfWorkFactory
from hotswap.strategies.registry import make_plan
from workflows.messages import ApproveCommand, Command, CommandResult, WorkflowNames

log = logging.getLogger(__name__)

APPROVERS_COMMANDS = frozenset({WorkflowNames.APPROVE, WorkflowNames.REJECT})
"""Open to every Approver in every environment; the workflow refuses the initiator."""

SETTLE_PATIENCE, SETTLE_PAUSE = 5.0, 0.05
"""Seconds to wait for PostgreSQL's picture of a deployment that has ended, and between two looks: it is 20 ms behind."""

NEED_A_REASON = frozenset(
    {WorkflowNames.REJECT, WorkflowNames.ABORT, WorkflowNames.ROLLBACK, WorkflowNames.OVERRIDE_FREEZE}
)


@dataclass(frozen=True, slots=True)
class Answered:
    """`started`: the answer names a new deployment, which a retry and the rollback of a completed one are."""

    result: CommandResult
    started: bool = False


class CommandService:
    def __init__(
        self, unit_of_work: UnitOfWorkFactory, rollouts: Rollouts, deployments: DeploymentService, metrics: ApiMetrics
    ) -> None:
        self._unit_of_work = unit_of_work
        self._rollouts = rollouts
        self._deployments = deployments
        self._metrics = metrics

    async def send(self, deployment_id: str, name: str, body: CommandIn, actor: Actor, once: Once) -> Answered:
        """Raises InvalidInput (no reason), NotFound, Forbidden, Conflict with the reason why it makes no sense now,
        Unavailable when no worker answered in time (the command may still be obeyed; repeat it with the same key).
        """
        try:
            answered = await self._send(deployment_id, name, body, actor, once)
        except HotSwapError as fault:
            self._metrics.commands.labels(name, type(fault).__name__).inc()
            raise
        self._metrics.commands.labels(name, "accepted").inc()
        return answered

    async def _send(self, deployment_id: str, name: str, body: CommandIn, actor: Actor, once: Once) -> Answered:
        if name in NEED_A_REASON and not body.reason.strip():
            raise InvalidInput(
                f"reason: is required to {name} a deployment", [FieldFault("reason", f"is required to {name}; say why")]
            )
        request_hash = fingerprint({"deployment": deployment_id, "command": name, **body.model_dump(mode="json")})
        async with self._unit_of_work() as uow:
            row = await uow.deployments.get(deployment_id)
            actor.require_reach(row.progress.environment)
            if name not in APPROVERS_COMMANDS:
                actor.require_deployer(row.progress.environment)
            if known := await once.first_answer(uow, request_hash, CommandResult):
                return Answered(known, started=known.deployment_id != deployment_id)
        if name == WorkflowNames.ROLLBACK and row.progress.status == DeploymentStatus.COMPLETED:
            return await self._start_after(row, name, body, actor, once, request_hash)
        if name == RETRY:
            row = await self._settled(row)
            check_retry(row.progress)
            return await self._start_after(row, name, body, actor, once, request_hash)
        if row.progress.status in TERMINAL:
            raise _over(row, name)
        update_id = f"{name}:{actor.user}:{once.key}" if once.key else None
        try:
            result = await self._command(row, name, _command(body, actor), update_id)
        except Conflict:
            if name != WorkflowNames.ROLLBACK or (row := await self._settled(row)).progress.status not in TERMINAL:
                raise
            # It completed while the command was on its way, or the projection was behind: then it is taken back.
            return await self._send(deployment_id, name, body, actor, once)
        await self._record(deployment_id, name, result, body, actor, once, request_hash)
        return Answered(result)

    async def _command(self, row: DeploymentRow, name: str, command: Command, update_id: str | None) -> CommandResult:
        handle = Handle(row.workflow_id, row.run_id)
        try:
            return await self._rollouts.command(handle, name, command, update_id)
        except RolloutOver as over:
            # The projection may be a moment behind the workflow; and one that was queued may run by now.
            now = await self._deployments.row(row.progress.deployment_id)
            if now.progress.status not in TERMINAL and Handle(now.workflow_id, now.run_id) != handle:
                return await self._command(now, name, command, update_id)
            raise _over(now, name, over.execution) from None

    async def _settled(self, row: DeploymentRow) -> DeploymentRow:
        """The row, as terminal as the workflow says it is: who has read `Completed` there may act on it at once.

        Raises Unavailable when PostgreSQL's picture does not follow within SETTLE_PATIENCE.
        """
        deployment_id, until = row.progress.deployment_id, monotonic() + SETTLE_PATIENCE
        if row.progress.status in TERMINAL:
            return row
        told = await self._rollouts.status(Handle(row.workflow_id, row.run_id))
        if told is None or told.deployment_id != deployment_id or told.status not in TERMINAL:
            return row
        while row.progress.status not in TERMINAL:
            if monotonic() >= until:
                raise Unavailable(f"{deployment_id} is {told.status}, which is not on record yet; repeat in a moment")
            await asyncio.sleep(SETTLE_PAUSE)
            row = await self._deployments.row(deployment_id)
        return row

    async def _record(
        self,
        deployment_id: str,
        name: str,
        result: CommandResult,
        body: CommandIn,
        actor: Actor,
        once: Once,
        request_hash: str,
    ) -> None:
        try:
            async with self._unit_of_work() as uow:
                now = await uow.now()
                details = {"reason": bounded(body.reason), "message": result.message}
                await uow.audit.append(
                    entry(f"deployment.{name}.requested", "deployment", deployment_id, actor, now, details)
                )
                await once.keep(uow, request_hash, 200, result)
                await uow.commit()
        except Unavailable as fault:
            # It was obeyed, and the workflow keeps its own record of it.
            log.warning("'%s' to %s was obeyed but not audited here: %s", name, deployment_id, fault.message)

    async def _start_after(
        self, row: DeploymentRow, name: str, body: CommandIn, actor: Actor, once: Once, request_hash: str
    ) -> Answered:
        """Start the deployment that follows from one that is over: its retry, or the one that takes it back."""
        over = row.progress
        next_id = derived_id("dep", actor.user, once.key, name) if once.key else new_id("dep")
        async with self._unit_of_work() as uow:
            # There already when this is a repeat whose first answer was lost.
            there = await row_or_none(uow, next_id) if once.key else None
            if there is not None:
                prepared = None
            elif name == RETRY:
                prepared = await prepare_retry(self._deployments, uow, row, body.reason, actor, next_id)
            else:
                prepared = await self._prepare_rollback(uow, over, body, actor, next_id)
        if prepared is None:
            assert there is not None
            started: DeploymentProgress = there.progress
        else:
            started = await self._deployments.launch(prepared, actor, Once(actor.user, "", None), request_hash)
        what = (
            f"started {over.deployment_id} anew, from the top"
            if name == RETRY
            else f"started a Direct deployment back to {started.to_version}; it takes back {over.deployment_id}"
        )
        result = CommandResult(deployment_id=started.deployment_id, status=started.status, message=what)
        await self._record(over.deployment_id, name, result, body, actor, once, request_hash)
        return Answered(result, started=True)

    async def _prepare_rollback(
        self, uow: UnitOfWork, undone: DeploymentProgress, body: CommandIn, actor: Actor, back_id: str
    ) -> Prepared:
        """Raises Conflict saying why there is nothing to go back to."""
        name = undone.deployment_id
        if undone.from_version is None:
            raise Conflict(
                f"{name} was the first of {undone.plugin} in {undone.environment}: nothing was there before it"
            )
        where = DeploymentFilter(
            plugin=undone.plugin, environment=undone.environment, status=DeploymentStatus.COMPLETED
        )
        newest, _ = await uow.deployments.list(where, Page(limit=1))
        route = await uow.routes.current(undone.environment, undone.plugin)
        earlier = still_warm(route, undone)  # then one may go back over several rollouts at once
        if newest and newest[0].progress.deployment_id != name and not earlier:
            later = newest[0].progress
            raise Conflict(
                f"{later.deployment_id} put {later.to_version} in place after {name}; roll that back, "
                f"or deploy {undone.from_version}"
            )
        if undone.rollback_of or await _was_rollback(uow, name):
            raise Conflict(
                f"{name} is itself a rollback; to go forward again deploy {undone.from_version}, with its approvals"
            )
        stable = route.state.stable if route else None
        if stable is None or (stable.version != undone.to_version and not earlier):
            raise Conflict(
                f"{undone.environment} serves {stable.version if stable else 'nothing'}, not {undone.to_version} any more"
            )
        target = await uow.versions.get(undone.plugin, undone.from_version)
        check_way_back(target)
        request = DeploymentRequest(
            deployment_id=back_id,
            plugin=undone.plugin,
            version=target.version,
            environment=undone.environment,
            config=DirectConfig(),
            initiated_by=actor.user,
            reason=body.reason,
            requested_at=await uow.now(),
            rollback_of=name,
        )
        policy = await uow.environments.get(undone.environment)
        warm = route.state.warm if route else ()
        return Prepared(request, make_plan(request, policy, target.ref, stable, warm))


async def _was_rollback(uow: UnitOfWork, deployment_id: str) -> bool:
    """Whether it was started to take another back: of deployments by a release that did not note it, its audit entry says so.

    Asked because a rollback skips approval and trial: rolling a rollback back would bring a version that was taken
    out of traffic in again, with neither.
    """
    entries, _ = await uow.audit.list(deployment_id, None, Page(limit=100))
    return any(found.event_type == REQUESTED and found.details.get("rollbackOf") for found in entries)


def _command(body: CommandIn, actor: Actor) -> Command:
    if isinstance(body, ApproveIn):
        return ApproveCommand(by=actor.user, roles=actor.ordered_roles(), reason=body.reason, plan_hash=body.plan_hash)
    return Command(by=actor.user, roles=actor.ordered_roles(), reason=body.reason)


def _instead(progress: DeploymentProgress, name: str) -> str:
    """What can be done instead, now that it has ended."""
    takes_back = progress.from_version is not None and progress.rollback_of is None and name != "rollback"
    if progress.status is DeploymentStatus.COMPLETED and takes_back:
        return "; to go back to the version before, use 'rollback'"
    if progress.status in RETRYABLE:
        return "; to try it again, use 'retry'"
    return "; deploy the version that you want instead"


def _over(row: DeploymentRow, name: str, execution: str = "") -> Conflict:
    progress = row.progress
    if progress.status in TERMINAL:
        why = f": {progress.outcome_reason}" if progress.outcome_reason else ""
        said = f"{progress.deployment_id} is {progress.status}{why}; '{name}' makes no sense any more"
        return Conflict(f"{said}{_instead(progress, name)}")
    ended = f"its workflow is {execution}" if execution else "its workflow is not known to Temporal"
    return Conflict(
        f"{progress.deployment_id} cannot take '{name}': {ended}, though it is recorded as {progress.status}; "
        "look at its workflow, and start a new deployment to repair the environment"
    )
