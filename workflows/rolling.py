"""Switches the nodes batch by batch: order, health check, watch, next batch. Called from workflows.step_runner.

Which nodes there are is asked anew for every batch: one that joins in the middle gets its turn, one that is lost loses it
until it is back, and the quorum rule decides whether its absence matters. Undoing is not done here: the deployment's one
absolute undo gives all traffic back. Neighbours: fleet sends orders, gates watches and pauses.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.nodes import NodeActivities, ProbeInput
    from hotswap.domain.analysis import Health
    from hotswap.domain.ids import node_queue
    from hotswap.domain.plan import SwitchNodes
    from hotswap.domain.registry import NodeRecord
    from hotswap.domain.routes import RouteOrder
    from hotswap.ports.node_runtime import NodeReport, ProbeReport
    from workflows import activity_options
    from workflows.cancelling import obeying
    from workflows.fleet import Fleet, WaveFailed
    from workflows.gates import Gates, UndoNeeded
    from workflows.state import DeploymentState, RollingProgress

R = TypeVar("R")

LONGEST_HEALTH_PAUSE = timedelta(seconds=30)
"""Between two health checks of a node that is not healthy: a tenth of its time, and never longer than this."""

Switch = Callable[[tuple[str, ...], int], Awaitable[RouteOrder]]
"""(nodes where the new version serves all tenants, percent of nodes) -> the written order."""


class BatchFleet(Fleet):
    """Orders to some of the nodes."""

    async def live_nodes(self) -> list[NodeRecord]:
        return await self._live_nodes()

    async def apply_on(self, nodes: Sequence[NodeRecord], order: RouteOrder, what: str) -> tuple[str, ...]:
        """The ids of those that followed, in order; the lost are named and left out. Raises WaveFailed for one that could not."""

        async def apply(node: NodeRecord) -> NodeReport:
            return await workflow.execute_activity_method(
                NodeActivities.apply_routes,
                order,
                task_queue=node_queue(node.node_id),
                schedule_to_start_timeout=activity_options.NODE_START,
                summary=f"{what} on {node.node_id}",
                **activity_options.node_order(activity_options.NODE_SWITCH),
            )

        return await self._some(nodes, apply)

    async def probe_on(self, nodes: Sequence[NodeRecord]) -> dict[str, ProbeReport]:
        """What the new version's host says of itself on each node; lost nodes are missing."""
        target = self._state.plan.target
        reports: dict[str, ProbeReport] = {}

        async def probe(node: NodeRecord) -> NodeReport:
            reports[node.node_id] = await workflow.execute_activity_method(
                NodeActivities.probe_version,
                ProbeInput(plugin=target.plugin, version=target.version),
                task_queue=node_queue(node.node_id),
                schedule_to_start_timeout=activity_options.NODE_START,
                summary=f"is {target.version} healthy on {node.node_id}",
                **activity_options.node_order(activity_options.NODE_SWITCH),
            )
            return self._as_known(node)

        await self._some(nodes, probe)
        return reports

    def _as_known(self, node: NodeRecord) -> NodeReport:
        """A node's last acknowledgement: an answer that says nothing about its routes changes nothing in the picture."""
        known = self._state.nodes.get(node.node_id)
        return NodeReport(
            node_id=node.node_id,
            plugin=self._state.request.plugin,
            generation=known.generation if known else 0,
            hosts=known.hosts if known else (),
        )

    async def _some(
        self, nodes: Sequence[NodeRecord], send: Callable[[NodeRecord], Awaitable[NodeReport]]
    ) -> tuple[str, ...]:
        answers = await asyncio.gather(*(self._ask(node, send) for node in nodes))
        for answer in answers:
            self._note(answer)
        failed = [answer for answer in answers if answer.report is None and not answer.lost]
        if failed:
            raise WaveFailed("; ".join(f"{answer.node_id}: {answer.detail}" for answer in failed))
        return tuple(answer.node_id for answer in answers if answer.report is not None)


class RollingStep:
    """Carries out SwitchNodes. All it knows is in state.rolling and the route, so that it can continue as new."""

    def __init__(self, state: DeploymentState, gates: Gates, switch: Switch) -> None:
        self._state = state
        self._gates = gates
        self._switch = switch
        self._fleet = BatchFleet(state)

    async def run(self, step: SwitchNodes) -> None:
        """Raises UndoNeeded (a batch is not healthy, or too slow, or judged bad) and WaveFailed (a node cannot switch)."""
        state = self._state
        if state.rolling is None:
            state.rolling, state.window = RollingProgress(left=step.progress_deadline), 1
        elif state.watch is not None:  # continued as new while a batch was watched
            await self._watch(step)
        progress = state.rolling
        while True:
            await self._gates.hold_while_paused()
            await self._gates.freezes.hold()
            nodes = await self._counted(step, self._fleet.live_nodes())
            todo = self._todo(nodes)
            if todo:
                batch = todo[: step.batch_of(len(nodes))]
                done = await self._switch_batch(step, batch, len(nodes))
                if done:
                    progress.done += done
                    progress.left = step.progress_deadline
                    await self._watch(step)
            elif self._enough(nodes):
                break
            else:
                state.waiting_for = f"{', '.join(progress.lost)} to come back: too few nodes have switched without"
                await self._counted(step, self._rest(LONGEST_HEALTH_PAUSE / 10, "are lost nodes back"))
                state.waiting_for = ""
        state.rolling, state.window = None, 1

    def _todo(self, nodes: Sequence[NodeRecord]) -> list[NodeRecord]:
        """In order of name; nodes that took no order when it was their turn come last."""
        progress = self._progress
        left = [node for node in nodes if node.node_id not in progress.done]
        return sorted(left, key=lambda node: (node.node_id in progress.lost, node.node_id))

    def _enough(self, nodes: Sequence[NodeRecord]) -> bool:
        """More than the quorum of the nodes that this step has seen have switched; nobody waits for the others."""
        progress = self._progress
        switched = len({node.node_id for node in nodes} & set(progress.done))
        return switched > self._state.plan.node_quorum * (switched + len(progress.lost))

    async def _switch_batch(self, step: SwitchNodes, batch: Sequence[NodeRecord], known: int) -> tuple[str, ...]:
        """Switch these nodes and wait until they are healthy. The ids of those that are; lost nodes are not."""
        state, progress = self._state, self._progress
        ids = tuple(node.node_id for node in batch)
        switched = (*progress.done, *ids)
        percent = max(1, 100 * len(switched) // max(known, len(switched)))
        order = await self._switch(switched, percent)
        what = f"batch {state.window}: {state.plan.to_version} for all tenants"
        followed = await self._counted(step, self._fleet.apply_on(batch, order, what))
        state.weight_since = workflow.now()
        progress.lost = (*(node for node in progress.lost if node not in followed), *_missing(ids, followed, progress))
        return await self._healthy(step, [node for node in batch if node.node_id in followed])

    async def _healthy(self, step: SwitchNodes, batch: Sequence[NodeRecord]) -> tuple[str, ...]:
        """Probe until every node of the batch is healthy, at most `health_check_timeout` after it has switched."""
        waiting, healthy = list(batch), []
        left = step.health_check_timeout
        pause = min(step.health_check_timeout / 10, LONGEST_HEALTH_PAUSE)
        while waiting:
            await self._gates.hold_while_paused()
            started = workflow.now()
            reports = await self._counted(step, self._fleet.probe_on(waiting))
            healthy += [node for node, report in reports.items() if report.health is Health.HEALTHY]
            sick = {node: report for node, report in reports.items() if report.health is not Health.HEALTHY}
            self._progress.lost += _missing([node.node_id for node in waiting], tuple(reports), self._progress)
            waiting = [node for node in waiting if node.node_id in sick]
            if not waiting:
                break
            said = "; ".join(f"{node} finds {r.version} {r.health}: {r.detail}" for node, r in sorted(sick.items()))
            if workflow.now() - started >= left:
                await self._unhealthy(step, said)
                left = step.health_check_timeout
                continue
            self._state.waiting_for = f"health: {said}"
            await self._counted(step, self._rest(min(pause, left), "next health check"))
            left -= workflow.now() - started
            self._state.waiting_for = ""
        return tuple(node.node_id for node in batch if node.node_id in healthy)

    async def _rest(self, duration: timedelta, what_for: str) -> None:
        """Sleep, but wake at once for a pause."""
        try:
            await workflow.wait_condition(
                lambda: self._state.pause_wanted,
                timeout=max(duration, timedelta(milliseconds=1)),
                timeout_summary=what_for,
            )
        except TimeoutError:
            return

    async def _unhealthy(self, step: SwitchNodes, said: str) -> None:
        reason = f"not healthy {step.health_check_timeout} after the switch: {said}"
        if step.auto_rollback:
            raise UndoNeeded(reason, "read the plugin's log on that node, mend the plugin and deploy a new version")
        self._state.waiting_for = f"a person, because autoRollback is off and a batch is {reason}"
        self._state.pause_wanted = True
        await self._gates.hold_while_paused()

    async def _watch(self, step: SwitchNodes) -> None:
        """Judge the batch for `wait_between_batches`: each batch changes the weight, so each is a window of its own."""
        guard = self._state.guard_in_window(step)
        if guard is None:
            raise RuntimeError("a rolling step has a guard")
        await self._gates.observe(guard)
        self._state.window += 1

    async def _counted(self, step: SwitchNodes, work: Coroutine[Any, Any, R]) -> R:
        """Do the work on the progress deadline's time. Raises UndoNeeded when that is used up; the work is cancelled then."""
        progress = self._progress
        started = workflow.now()
        task = asyncio.create_task(obeying(work))
        try:
            await workflow.wait_condition(
                task.done, timeout=max(progress.left, timedelta(milliseconds=1)), timeout_summary="progress deadline"
            )
        except TimeoutError:
            await _let_go(task)
            waited = f": {self._state.waiting_for}" if self._state.waiting_for else ""
            raise UndoNeeded(
                f"batch {self._state.window} made no progress within {step.progress_deadline}{waited}",
                "see `hotswap nodes` and the nodes' logs",
            ) from None
        except asyncio.CancelledError:
            await _let_go(task)
            raise
        progress.left -= workflow.now() - started
        return task.result()

    @property
    def _progress(self) -> RollingProgress:
        if self._state.rolling is None:
            raise RuntimeError("a rolling step that runs has its progress")
        return self._state.rolling


def _missing(ids: Sequence[str], heard: Sequence[str], progress: RollingProgress) -> tuple[str, ...]:
    """Nodes that gave no answer now, and were not known as lost."""
    return tuple(node for node in ids if node not in heard and node not in progress.lost)


async def _let_go(task: asyncio.Task[Any]) -> None:
    """Cancel and wait until the nodes' activities have ended: nothing may still be changing when the undo begins."""
    task.cancel()
    try:
        await task
    except (asyncio.CancelledError, ActivityError, WaveFailed):
        return  # it let go; how does not matter any more
