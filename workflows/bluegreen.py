"""The idle colour before it takes tenants: kept warm and watched, then smoke-tested on every node. Called from step_runner.

Neighbours: gates watches, fleet sends orders, hotswap.node.smoke runs the tests.
"""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.nodes import NodeActivities, SmokeInput
    from hotswap.domain.analysis import InconclusivePolicy
    from hotswap.domain.ids import node_queue
    from hotswap.domain.plan import Observe, SmokeNodes, WarmUp
    from hotswap.domain.registry import NodeRecord
    from hotswap.domain.routes import RouteOrder
    from hotswap.ports.node_runtime import NodeReport, SmokeReport
    from workflows import activity_options
    from workflows.fleet import WaveFailed
    from workflows.gates import Gates
    from workflows.rolling import BatchFleet
    from workflows.state import DeploymentState

SMOKE_MARGIN = timedelta(seconds=15)
"""Beside the tests themselves: the bundle's manifest may have to be fetched again."""


class ColourFleet(BatchFleet):
    """Questions to every node about its idle host."""

    async def probe_all(self, order: RouteOrder) -> None:
        """Raises WaveFailed naming the nodes where it is not healthy."""

        async def probe(node: NodeRecord) -> NodeReport:
            await self._probe(node, order)
            return self._as_known(node)

        await self._wave(probe, self._state.plan.node_quorum)

    async def smoke_all(self, timeout: timedelta) -> list[SmokeReport]:
        """Raises WaveFailed naming the nodes and tests that failed."""
        target = self._state.plan.target
        reports: list[SmokeReport] = []

        async def smoke(node: NodeRecord) -> NodeReport:
            report = await workflow.execute_activity_method(
                NodeActivities.smoke_version,
                SmokeInput(plugin=target.plugin, version=target.version, timeout=timeout),
                task_queue=node_queue(node.node_id),
                schedule_to_start_timeout=activity_options.NODE_START,
                summary=f"smoke tests of {target.version} on {node.node_id}",
                **activity_options.node_order(timeout + SMOKE_MARGIN),
            )
            if not report.passed:
                raise WaveFailed(f"{target.version} failed there: {report.detail}")
            reports.append(report)
            return self._as_known(node)

        await self._wave(smoke, self._state.plan.node_quorum)
        return reports


class IdleColour:
    def __init__(self, state: DeploymentState, gates: Gates) -> None:
        self._state = state
        self._gates = gates
        self._fleet = ColourFleet(state)

    async def warm_up(self, step: WarmUp, order: RouteOrder) -> None:
        """Watch its hosts for the period: a crash or failing probes end it. No tenant is there, so figures cannot pass it;
        what passes it is a healthy answer of every node at the end. Raises UndoNeeded, WaveFailed."""
        await self._gates.observe(
            Observe(
                weight_percent=0,
                period=step.period,
                interval=step.interval,
                thresholds=step.thresholds,
                on_inconclusive=InconclusivePolicy.CONTINUE,
                auto_rollback=step.auto_rollback,
            )
        )
        await self._fleet.probe_all(order)

    async def smoke(self, step: SmokeNodes) -> None:
        """Raises WaveFailed naming the node and the test."""
        reports = await self._fleet.smoke_all(step.timeout)
        tests = len(reports[0].smoke_tests) if reports else 0
        said = f"{tests} smoke tests passed" if tests else "there are no smoke tests in the manifest"
        self._state.note(workflow.now(), "smoke", f"idle colour on {len(reports)} nodes: {said}", {"tests": tests})
