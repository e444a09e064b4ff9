"""What waits for approval, the caller's own first, and decisions on it: deployments and the gates of pipelines in one list.

The rules are the workflows' own (workflows.commands, workflows.pipeline_commands); here they are only foretold, for the list.
A decision takes the same way as POST /deployments/{id}/approve and POST /pipelines/{id}/approve.
"""

from collections.abc import Sequence

from api.schemas.approvals import ApprovalKind, ApprovalOut, ApprovalQuery, DecisionOut
from api.schemas.common import CommandIn
from api.services.actor import Actor, names
from api.services.commands import CommandService
from api.services.idempotency import Once
from api.services.pipelines import PipelineService
from hotswap.domain.deployment import ApprovalGiven, DeploymentProgress, Role
from hotswap.domain.errors import Conflict, NotFound
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.pipeline import Gate, PipelineProgress, PipelineStatus
from hotswap.domain.registry import Page
from hotswap.ports.pipelines import PipelineFilter
from hotswap.ports.records import DeploymentFilter, UnitOfWork, UnitOfWorkFactory

MOST_LISTED = 1_000
"""Deployments, and pipelines, looked through for one list: the newest. An older one is still decided by its id."""

APPROVERS = (Role.ADMIN, Role.APPROVER)


class ApprovalService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, commands: CommandService, pipelines: PipelineService) -> None:
        self._unit_of_work = unit_of_work
        self._commands = commands
        self._pipelines = pipelines

    async def list(self, query: ApprovalQuery, actor: Actor) -> tuple[Sequence[ApprovalOut], int]:
        """What waits: first what the caller may approve, of that first what expires first."""
        found: list[ApprovalOut] = []
        async with self._unit_of_work() as uow:
            if query.kind in (None, ApprovalKind.DEPLOYMENT):
                found += [_of_deployment(one, actor) for one in await _waiting_deployments(uow, query)]
            if query.kind in (None, ApprovalKind.PIPELINE):
                found += [_of_gate(one, actor) for one in await _waiting_pipelines(uow, query)]
            found = [
                one for one in found if (query.environment in (None, one.environment)) and (one.mine or not query.mine)
            ]
            found.sort(key=lambda one: (not one.mine, one.expires_at or one.requested_at, one.id))
            page = [await _with_digest(uow, one) for one in found[query.offset : query.offset + query.limit]]
        return page, len(found)

    async def get(self, approval_id: str, actor: Actor) -> ApprovalOut:
        """Raises NotFound: not known, or nothing waits there now."""
        owner, stage = _parts(approval_id)
        async with self._unit_of_work() as uow:
            if stage is None:
                deployment = (await uow.deployments.get(owner)).progress
                if deployment.status is not DeploymentStatus.AWAITING_APPROVAL:
                    raise NotFound(f"{owner} does not await approval: it is {deployment.status}")
                return _of_deployment(deployment, actor)
            pipeline = (await uow.pipelines.get(owner)).progress
            if pipeline.status is not PipelineStatus.AWAITING_APPROVAL or pipeline.stage_number != stage:
                raise NotFound(f"{owner} does not wait at the gate before its stage {stage}: it is {pipeline.status}")
            return await _with_digest(uow, _of_gate(pipeline, actor))

    async def decide(self, approval_id: str, name: str, body: CommandIn, actor: Actor, once: Once) -> DecisionOut:
        """`name` is approve or reject. Raises what the deployment's or the pipeline's own command raises."""
        owner, stage = _parts(approval_id)
        if stage is None:
            done = (await self._commands.send(owner, name, body, actor, once)).result
            return DecisionOut(id=approval_id, status=done.status, message=done.message)
        pipeline = await self._pipelines.get(owner)
        if pipeline.stage_number != stage:
            raise Conflict(f"{owner} is at stage {pipeline.stage_number} by now; this was about stage {stage}")
        told = await self._pipelines.send(owner, name, CommandIn(reason=body.reason), actor, once)
        return DecisionOut(id=approval_id, status=told.status, message=told.message)


async def _waiting_deployments(uow: UnitOfWork, query: ApprovalQuery) -> list[DeploymentProgress]:
    where = DeploymentFilter(
        plugin=query.plugin_id, environment=query.environment, status=DeploymentStatus.AWAITING_APPROVAL
    )
    found: list[DeploymentProgress] = []
    for offset in range(0, MOST_LISTED, 100):
        rows, _ = await uow.deployments.list(where, Page(limit=100, offset=offset))
        found += [row.progress for row in rows]
        if len(rows) < 100:
            break
    return found


async def _waiting_pipelines(uow: UnitOfWork, query: ApprovalQuery) -> list[PipelineProgress]:
    where = PipelineFilter(plugin=query.plugin_id, status=PipelineStatus.AWAITING_APPROVAL)
    found: list[PipelineProgress] = []
    for offset in range(0, MOST_LISTED, 100):
        rows, _ = await uow.pipelines.list(where, Page(limit=100, offset=offset))
        found += [row.progress for row in rows if row.progress.stage_number]
        if len(rows) < 100:
            break
    return found


def _of_deployment(progress: DeploymentProgress, actor: Actor) -> ApprovalOut:
    why_not = _why_not(progress.initiated_by, APPROVERS, progress.approvals, actor)
    return ApprovalOut(
        id=progress.deployment_id,
        kind=ApprovalKind.DEPLOYMENT,
        plugin=progress.plugin,
        version=progress.to_version,
        from_version=progress.from_version,
        environment=progress.environment,
        strategy=progress.strategy,
        digest=progress.digest,
        plan_hash=progress.plan_hash,
        initiated_by=progress.initiated_by,
        reason=progress.reason,
        required=progress.approvals_required,
        needs_admin=progress.approval_needs_admin,
        roles=APPROVERS,
        approvals=progress.approvals,
        missing=_missing(progress.approvals_required, progress.approval_needs_admin, progress.approvals),
        requested_at=progress.requested_at,
        expires_at=progress.approval_expires_at,
        mine=not why_not,
        why_not=why_not,
        link=f"/api/v1/deployments/{progress.deployment_id}",
    )


def _of_gate(progress: PipelineProgress, actor: Actor) -> ApprovalOut:
    stage = progress.stages[progress.stage_number - 1]
    gate = stage.gate or Gate()
    roles = tuple(dict.fromkeys((Role.ADMIN, gate.role)))
    why_not = _why_not(progress.initiated_by, roles, stage.approvals, actor)
    return ApprovalOut(
        id=f"{progress.pipeline_id}.{progress.stage_number}",
        kind=ApprovalKind.PIPELINE,
        plugin=progress.plugin,
        version=progress.version,
        environment=stage.environment,
        strategy=stage.strategy,
        digest="",
        initiated_by=progress.initiated_by,
        reason=progress.reason,
        required=gate.required,
        needs_admin=False,
        roles=roles,
        approvals=stage.approvals,
        missing=_missing(gate.required, False, stage.approvals),
        requested_at=progress.requested_at,
        expires_at=stage.gate_expires_at,
        mine=not why_not,
        why_not=why_not,
        link=f"/api/v1/pipelines/{progress.pipeline_id}",
    )


async def _with_digest(uow: UnitOfWork, one: ApprovalOut) -> ApprovalOut:
    """A pipeline's version is immutable, so the registry's digest is the one that will be deployed."""
    if one.digest:
        return one
    version = await uow.versions.get(one.plugin, one.version)
    return one.model_copy(update={"digest": version.digest})


def _why_not(initiator: str, roles: Sequence[Role], given: Sequence[ApprovalGiven], actor: Actor) -> str:
    if actor.user == initiator:
        return "you initiated it"
    if not actor.has(*roles):
        return f"it takes one of: {names(roles)}"
    if any(approval.approver == actor.user for approval in given):
        return "you approved it already"
    return ""


def _missing(required: int, needs_admin: bool, given: Sequence[ApprovalGiven]) -> str:
    left = max(required - len(given), 0)
    admin = needs_admin and not any(Role.ADMIN in approval.roles for approval in given)
    if not left and not admin:
        return ""
    people = f"{max(left, 1)} more approval{'s' if left > 1 else ''}"
    if not admin:
        return people
    return f"{people}, by an Admin" if left <= 1 else f"{people}, one by an Admin"


def _parts(approval_id: str) -> tuple[str, int | None]:
    owner, dot, stage = approval_id.partition(".")
    return owner, int(stage) if dot else None
