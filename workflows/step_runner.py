"""Carries out one step of a recorded plan. Says what happens; waves, gates and undoing live in their own modules."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.artifacts import ArtifactActivities
    from activities.routing import RoutingActivities, WriteRoutes
    from activities.trial import TrialActivities, TrialInput
    from hotswap.domain.aftercare import warm_after
    from hotswap.domain.deployment import Environment
    from hotswap.domain.plan import (
        AwaitApproval,
        Bake,
        Experiment,
        Observe,
        PromoteVersion,
        RetireVersion,
        RunTrial,
        ShiftTenants,
        SmokeNodes,
        StageVersion,
        Step,
        SwitchNodes,
        VerifyArtifact,
        WarmUp,
        guard_of,
    )
    from hotswap.domain.routes import FULL_WEIGHT, RouteOrder, RouteState, has_tenants
    from workflows import activity_options
    from workflows.bluegreen import IdleColour
    from workflows.compensation import CompensationStack
    from workflows.experiment import ExperimentGate
    from workflows.fleet import Fleet, Named
    from workflows.gates import Gates, UndoNeeded
    from workflows.rolling import RollingStep
    from workflows.state import DeploymentState


class StepRunner:
    def __init__(self, state: DeploymentState, stack: CompensationStack) -> None:
        self._state = state
        self._stack = stack
        self._fleet = Fleet(state)
        self._gates = Gates(state)
        if state.routed:  # continued as new: what was done is still to be undone
            self._promise_undo()

    async def hold_while_paused(self) -> None:
        await self._gates.hold_while_paused()

    async def hold_while_frozen(self, step: Step) -> None:
        await self._gates.freezes.hold_before(step)

    async def run(self, step: Step) -> None:
        """Raises UndoNeeded, WaveFailed or ActivityError when the deployment must be undone."""
        match step:
            case VerifyArtifact():
                await self._verify()
            case RunTrial(timeout=timeout):
                await self._try_out(timeout)
            case AwaitApproval():
                await self._gates.await_approval(step)
            case StageVersion(timeout=timeout):
                await self._stage(timeout)
            case ShiftTenants(weight_percent=weight):
                await self._shift(weight)
            case Observe():
                await self._gates.observe(step)
            case SwitchNodes():
                await RollingStep(self._state, self._gates, self._switch_nodes).run(step)
            case WarmUp():
                await IdleColour(self._state, self._gates).warm_up(step, self._order())
            case SmokeNodes():
                await IdleColour(self._state, self._gates).smoke(step)
            case Experiment():
                await ExperimentGate(self._state).run(step)
            case PromoteVersion():
                await self._promote(step)
            case Bake():
                await self._gates.observe(_watched(step))
            case RetireVersion():
                await self._retire(step)

    async def _verify(self) -> None:
        target = self._state.plan.target
        await workflow.execute_activity_method(
            ArtifactActivities.verify_artifact,
            target,
            summary=f"{target.plugin} {target.version}: sha256 {target.digest[:12]}",
            **activity_options.VERIFY,
        )

    async def _try_out(self, timeout: timedelta) -> None:
        target = self._state.plan.target
        report = await workflow.execute_activity_method(
            TrialActivities.run_trial,
            TrialInput(ref=target, timeout=timeout),
            summary=f"{target.plugin} {target.version} in the sandbox",
            **activity_options.trial(timeout),
        )
        passed = sum(test.passed for test in report.smoke_tests)
        summary = f"{passed} of {len(report.smoke_tests)} smoke tests passed, sandbox tier {report.sandbox_tier}"
        self._state.note(
            workflow.now(),
            "trial",
            f"trial {'passed' if report.passed else 'failed'}: {summary}; {report.detail}".rstrip("; "),
            {"tier": report.sandbox_tier, "limit": report.limit, "durationMs": round(report.duration_ms, 1)},
        )
        if not report.passed:
            limit = f" ({report.limit})" if report.limit else ""
            raise UndoNeeded(
                f"the trial failed{limit}: {report.detail or summary}", "mend the plugin and upload a new version"
            )
        if report.sandbox_tier == "none" and self._state.request.environment is Environment.PRODUCTION:
            raise UndoNeeded(
                "the trial ran without isolation, which Production never accepts",
                "run the worker with HOTSWAP_SANDBOX__TIER=standard",
            )

    async def _stage(self, timeout: timedelta) -> None:
        """Write first, then load: a node that restarts in between finds the candidate in PostgreSQL too."""
        plan, before = self._state.plan, self._before()
        self._promise_undo()
        nodes = await self._write(
            before.model_copy(update={"candidate": plan.target, "candidate_weight": 0, "seed": plan.cohort_seed})
        )
        await self._fleet.stage(self._order(), timeout, nodes)

    async def _shift(self, weight_percent: int) -> None:
        plan = self._state.plan
        weight = weight_percent * FULL_WEIGHT // 100
        nodes = await self._write(
            self._before().model_copy(
                update={"candidate": plan.target, "candidate_weight": weight, "seed": plan.cohort_seed}
            )
        )
        self._set_weight(weight_percent)
        await self._fleet.apply(self._order(), f"{weight_percent} % to {plan.to_version}", plan.node_quorum, nodes)
        self._state.weight_since = workflow.now()

    async def _switch_nodes(self, nodes: tuple[str, ...], percent_of_nodes: int) -> RouteOrder:
        """The new version serves all tenants on these nodes and none elsewhere. Writes only what is new."""
        plan = self._state.plan
        route = self._before().model_copy(
            update={
                "candidate": plan.target,
                "candidate_weight": 0,
                "seed": plan.cohort_seed,
                "switched_nodes": nodes,
            }
        )
        if route != self._state.route:
            await self._write(route)
            self._set_weight(percent_of_nodes)
        return self._order()

    async def _promote(self, step: PromoteVersion) -> None:
        plan = self._state.plan
        self._promise_undo()  # going back to a warm version begins here, without staging
        warm = warm_after(self._before(), plan.target, step.warm_revisions) if step.keep_previous_warm else ()
        nodes = await self._write(RouteState(stable=plan.target, seed=plan.cohort_seed, warm=warm))
        self._set_weight(100)
        await self._fleet.apply(self._order(), f"promote {plan.to_version}", plan.node_quorum, nodes)

    async def _retire(self, step: RetireVersion) -> None:
        if step.drop_warm and self._state.route.warm:
            await self._write(self._state.route.model_copy(update={"warm": ()}))
        await self._fleet.retire(self._order(), step.drain_grace, self._state.plan.node_quorum)

    def _set_weight(self, percent: int) -> None:
        self._state.set_weight_percent = percent
        self._state.note(
            workflow.now(), "weight", f"set weight {percent} %, routes at generation {self._state.generation}"
        )

    def _before(self) -> RouteState:
        if self._state.planned is None:
            raise RuntimeError("a route is written only after planning")
        return self._state.planned.previous_state

    def _order(self) -> RouteOrder:
        return RouteOrder(plugin=self._state.request.plugin, generation=self._state.generation, state=self._state.route)

    async def _write(self, route: RouteState) -> Named:
        """The nodes that must follow."""
        written = await workflow.execute_activity_method(
            RoutingActivities.write_routes,
            self._write_order(route).model_copy(update={"admit": self._admitted_by(route)}),
            summary=f"generation {self._state.generation + 1}",
            **activity_options.DATABASE,
        )
        self._state.generation, self._state.route = written.generation, route
        return written.nodes

    def _admitted_by(self, route: RouteState) -> str:
        """The target, when this write gives it its first tenant; going back asks nobody."""
        target = self._state.plan.target
        first = has_tenants(route, target) and not has_tenants(self._state.route, target)
        return target.version if first and self._state.request.rollback_of is None else ""

    def _write_order(self, route: RouteState) -> WriteRoutes:
        request = self._state.request
        return WriteRoutes(
            environment=request.environment,
            plugin=request.plugin,
            deployment_id=request.deployment_id,
            expected_generation=self._state.generation,
            state=route,
            # One hop less (a fifth of the time in which traffic goes back) than to write first and ask then.
            name_nodes_seen_within=(
                activity_options.NODE_REGISTERED if workflow.patched("a-write-names-the-nodes") else None
            ),
        )

    def _promise_undo(self) -> None:
        """One absolute promise serves every step: routes are what they were, the new version is unloaded."""
        self._state.routed = True
        self._stack.push("unload the new version", self._unload)
        self._stack.push("give the traffic back", self._give_traffic_back)

    async def _give_traffic_back(self) -> None:
        route = self._before()
        written = await workflow.execute_activity_method(
            RoutingActivities.restore_routes,
            self._write_order(route),
            summary="routes as they were",
            **activity_options.DATABASE,
        )
        self._state.generation, self._state.route = written.generation, route
        self._state.set_weight_percent = 0  # ordered; a node that cannot follow now reconciles to it
        back_to = route.stable.version if route.stable else "no version"
        await self._fleet.apply(self._order(), f"back to {back_to}", quorum=0, named=written.nodes)
        self._state.rolled_back_at = workflow.now()
        self._state.note(
            workflow.now(), "weight", f"all traffic is back on {back_to}, routes at generation {written.generation}"
        )

    async def _unload(self) -> None:
        retire = next((s for s in self._state.plan.steps if isinstance(s, RetireVersion)), None)
        grace = retire.drain_grace if retire else timedelta(seconds=30)
        await self._fleet.retire(self._order(), grace, quorum=0)


def _watched(step: Step) -> Observe:
    """The observation that a watching step is."""
    guard = guard_of(step)
    if guard is None:
        raise RuntimeError(f"a {step.kind} step watches nothing")
    return guard
