"""Sends one order to every live node at once and says who followed. A node that is gone is named, not waited for.

Two witnesses: an order nobody took within 2 s says 'dead', one that was taken and fell silent says 'hung'; the node's own
beat in PostgreSQL may say 'alive' (then Temporal was away, and the order is sent again). Lost nodes reconcile from
PostgreSQL when they come back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.errors import failure_of
    from activities.nodes import NodeActivities, ProbeInput, RetireInput
    from activities.routing import LiveNodes, RoutingActivities
    from hotswap.domain.analysis import Health
    from hotswap.domain.deployment import NodeProgress
    from hotswap.domain.ids import node_queue
    from hotswap.domain.registry import NodeRecord
    from hotswap.domain.routes import RouteOrder
    from hotswap.ports.node_runtime import NodeReport
    from workflows import activity_options
    from workflows.state import DeploymentState


Named = Sequence[NodeRecord] | None
"""The nodes that the write of the route named (seen within NODE_REGISTERED); None: ask who there is."""


class WaveFailed(Exception):
    """Not enough nodes followed, or one of them could not. The message names them."""


@dataclass(frozen=True)
class _Answer:
    node_id: str
    report: NodeReport | None = None
    lost: bool = False
    detail: str = ""


class Fleet:
    def __init__(self, state: DeploymentState) -> None:
        self._state = state

    async def stage(self, order: RouteOrder, timeout: timedelta, named: Named = None) -> None:
        """Load every version of the order on every node, then probe the newest there. Raises WaveFailed."""

        async def stage_and_probe(node: NodeRecord) -> NodeReport:
            report = await workflow.execute_activity_method(
                NodeActivities.stage_version,
                order,
                task_queue=node_queue(node.node_id),
                schedule_to_start_timeout=activity_options.NODE_START,
                summary=f"load {self._named(order)} on {node.node_id}",
                **activity_options.node_order(timeout),
            )
            await self._probe(node, order)
            return report

        await self._wave(stage_and_probe, self._state.plan.node_quorum, named)

    async def apply(self, order: RouteOrder, what: str, quorum: float, named: Named = None) -> None:
        """Swap the route on every node; complete when each has acknowledged. Raises WaveFailed."""

        async def apply(node: NodeRecord) -> NodeReport:
            return await workflow.execute_activity_method(
                NodeActivities.apply_routes,
                order,
                task_queue=node_queue(node.node_id),
                schedule_to_start_timeout=activity_options.NODE_START,
                summary=f"{what} on {node.node_id}",
                **activity_options.node_order(activity_options.NODE_SWITCH),
            )

        await self._wave(apply, quorum, named)

    async def retire(self, order: RouteOrder, grace: timedelta, quorum: float) -> None:
        """Drain and unload on every node what the order does not name. Raises WaveFailed."""

        async def retire(node: NodeRecord) -> NodeReport:
            return await workflow.execute_activity_method(
                NodeActivities.retire_versions,
                RetireInput(order=order, grace=grace),
                task_queue=node_queue(node.node_id),
                schedule_to_start_timeout=activity_options.NODE_START,
                summary=f"keep only {self._named(order)} on {node.node_id}",
                **activity_options.node_order(grace + activity_options.NODE_SWITCH),
            )

        await self._wave(retire, quorum)

    async def _probe(self, node: NodeRecord, order: RouteOrder) -> None:
        target = self._state.plan.target
        if target.version not in {ref.version for ref in order.state.versions()}:
            return
        probe = await workflow.execute_activity_method(
            NodeActivities.probe_version,
            ProbeInput(plugin=target.plugin, version=target.version),
            task_queue=node_queue(node.node_id),
            schedule_to_start_timeout=activity_options.NODE_START,
            summary=f"probe {target.version} on {node.node_id}",
            **activity_options.node_order(activity_options.NODE_SWITCH),
        )
        if probe.health is not Health.HEALTHY:
            raise WaveFailed(f"{node.node_id} finds {target.version} {probe.health}: {probe.detail}")

    async def _wave(
        self, send: Callable[[NodeRecord], Awaitable[NodeReport]], quorum: float, named: Named = None
    ) -> None:
        nodes = await self._live_nodes(named)
        answers = await asyncio.gather(*(self._ask(node, send) for node in nodes))
        for answer in answers:
            self._note(answer)
        failed = [answer for answer in answers if answer.report is None and not answer.lost]
        if failed:
            raise WaveFailed("; ".join(f"{answer.node_id}: {answer.detail}" for answer in failed))
        followed = sum(answer.report is not None for answer in answers)
        if (followed <= quorum * len(nodes) and quorum > 0) or (not nodes and quorum > 0):
            raise WaveFailed(
                f"{followed} of {len(nodes)} live nodes in {self._state.request.environment} followed, "
                f"more than {quorum:.0%} must; start the nodes and deploy again"
            )

    async def _ask(self, node: NodeRecord, send: Callable[[NodeRecord], Awaitable[NodeReport]]) -> _Answer:
        detail = ""
        for _ in range(activity_options.REDISPATCH_LIMIT):
            try:
                return _Answer(node.node_id, report=await send(node))
            except WaveFailed as fault:
                return _Answer(node.node_id, detail=str(fault))
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise asyncio.CancelledError from error
                failure = failure_of(error)
                detail = failure.message
                if not failure.never_started and failure.type != "Timeout":
                    return _Answer(node.node_id, detail=f"{failure.type}: {failure.message}")
            if not await self._told_lately(node.node_id):
                break  # dead, or hung in the middle of the order: nobody waits for it, an undo least of all
            if not failure.never_started:
                return _Answer(node.node_id, detail=f"{failure.type}: {failure.message}")
        return _Answer(node.node_id, lost=True, detail=f"did not answer ({detail})")

    def _note(self, answer: _Answer) -> None:
        before = self._state.nodes.get(answer.node_id)
        if answer.report is not None:
            self._state.nodes[answer.node_id] = NodeProgress(
                node_id=answer.node_id, state="Ready", generation=answer.report.generation, hosts=answer.report.hosts
            )
            if before is not None and before.state == "Lost":
                self._state.note(workflow.now(), "node", f"{answer.node_id} is back")
            return
        word = "Lost" if answer.lost else "Failed"
        self._state.nodes[answer.node_id] = NodeProgress(
            node_id=answer.node_id,
            state=word,
            generation=before.generation if before else 0,
            detail=answer.detail,
        )
        if before is None or before.state != word:
            then = "; it will reconcile when it is back" if answer.lost else ""
            self._state.note(workflow.now(), "node", f"{answer.node_id} is {word.lower()}: {answer.detail}{then}")

    async def _live_nodes(self, named: Named = None) -> list[NodeRecord]:
        """The nodes of this wave: all that told of themselves lately; those known as lost only with a fresh beat."""
        nodes = list(named) if named is not None else await self._list(activity_options.NODE_REGISTERED)
        lost = {node_id for node_id, node in self._state.nodes.items() if node.state == "Lost"}
        if not lost & {node.node_id for node in nodes}:
            return nodes
        fresh = {node.node_id for node in await self._list(activity_options.NODE_FRESH)}
        return [node for node in nodes if node.node_id not in lost or node.node_id in fresh]

    async def _told_lately(self, node_id: str) -> bool:
        return any(node.node_id == node_id for node in await self._list(activity_options.NODE_FRESH))

    async def _list(self, seen_within: timedelta) -> list[NodeRecord]:
        found = await workflow.execute_activity_method(
            RoutingActivities.list_live_nodes,
            LiveNodes(environment=self._state.request.environment, seen_within=seen_within),
            summary=f"who is alive in {self._state.request.environment}",
            **activity_options.DATABASE,
        )
        return list(found.nodes)

    def _named(self, order: RouteOrder) -> str:
        return " and ".join(ref.version for ref in order.state.versions()) or "nothing"
