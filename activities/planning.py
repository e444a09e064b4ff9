"""Turns a request and today's routes into the Plan that the workflow will interpret and never recompute.

Pure thinking is in hotswap.strategies; this activity only fetches what it thinks about.
"""

from temporalio import activity

from activities.configurations import refuse_stricter
from activities.dependencies import refuse_misfit, release_of
from activities.errors import translated
from activities.heartbeat import heartbeating
from hotswap.domain.base import Model
from hotswap.domain.deployment import DeploymentRequest, Environment
from hotswap.domain.holds import refusal_of
from hotswap.domain.plan import Plan
from hotswap.domain.registry import AuditEntry, PluginVersion
from hotswap.domain.release import check_deployable, check_way_back
from hotswap.domain.routes import RouteState
from hotswap.ports.configurations import ConfigurationJudge
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from hotswap.ports.signatures import SignatureGuard
from hotswap.strategies.registry import make_plan


class Planned(Model):
    """The recorded plan and the route it starts from (`generation` 0 = nothing was ever routed)."""

    plan: Plan
    previous_state: RouteState
    generation: int


class PlanningActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory, guard: SignatureGuard, judge: ConfigurationJudge) -> None:
        self._unit_of_work = unit_of_work
        self._guard = guard
        self._judge = judge

    @activity.defn
    @translated
    async def plan_deployment(self, request: DeploymentRequest) -> Planned:
        """Raises NotFound (version, environment), Conflict (already serving, held, its status), SignatureRefused and
        DependencyConflict: none is retried.
        """
        async with heartbeating(), self._unit_of_work() as uow:
            version = await uow.versions.get(request.plugin, request.version)
            policy = await uow.environments.get(request.environment)
            route = await uow.routes.current(request.environment, request.plugin)
            await check_admission(uow, version, request.environment, self._guard, request, self._judge)
            await _pass_hold(uow, request)
        state = settled(route.state) if route else RouteState()
        plan = make_plan(request, policy, version.ref, state.stable, state.warm)
        return Planned(plan=plan, previous_state=state, generation=route.generation if route else 0)


def settled(state: RouteState) -> RouteState:
    """The state to go back to: what is stable, without a candidate that a terminated run may have left."""
    return state.model_copy(update={"candidate": None, "candidate_weight": 0, "switched_nodes": ()})


async def check_admission(
    uow: UnitOfWork,
    version: PluginVersion,
    environment: Environment,
    guard: SignatureGuard,
    request: DeploymentRequest,
    judge: ConfigurationJudge,
) -> None:
    """Whether this version may go there at all: status, signature, what it needs, who needs it, tenants' configurations.

    Going back is never held up by a status or a dependent: what it leads to served before. The facade asks the same
    before it starts anything. Raises Conflict, SignatureRefused, DependencyConflict; none is retried.
    """
    if request.rollback_of is not None:
        check_way_back(version)
        return
    check_deployable(version, environment, allow_deprecated=request.allow_deprecated)
    await guard.check(version.ref, environment)
    await refuse_misfit(uow, release_of(version), environment)
    await refuse_stricter(uow, version, environment, judge)


async def _pass_hold(uow: UnitOfWork, request: DeploymentRequest) -> None:
    """Lift the hold of a version that somebody said may come again, and audit it. Raises Conflict when nobody did.

    Here and not only in the facade, since pipelines deploy without it. Going back is never held.
    """
    held = await uow.held.find(request.environment, request.plugin, request.version)
    if held is None or request.rollback_of is not None:
        return
    if not request.override_hold:
        raise refusal_of(held)
    await uow.held.lift(request.environment, request.plugin, request.version)
    await uow.audit.append(
        AuditEntry(
            event_type="version.hold-overridden",
            entity_type="deployment",
            entity_id=request.deployment_id,
            user=request.initiated_by,
            details={
                "reason": request.override_hold,
                "plugin": request.plugin,
                "version": request.version,
                "environment": request.environment,
                "heldBecause": held.reason,
                "takenBack": held.deployment_id,
            },
            at=await uow.now(),
        )
    )
    await uow.commit()
