"""Watches one environment for drift, each interval; repairs on request, or by itself when the policy says so.

One run for each environment, kept by every worker that starts (worker.py). Neighbours: activities.drift compares and keeps
the report, hotswap.node.reconcile makes a node right again, api.services.drift asks for a repair.
"""

import asyncio
from datetime import timedelta

from pydantic import BaseModel, Field
from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.drift import (
        DriftActivities,
        DriftLook,
        DriftOrder,
        NodeRepairActivities,
        Reconciled,
        ReconcileOrder,
        RepairTarget,
    )
    from activities.errors import as_application_error, failure_of
    from hotswap.domain.base import BoundedText, Model
    from hotswap.domain.deployment import Environment
    from hotswap.domain.errors import InvalidInput
    from hotswap.domain.ids import node_queue
    from workflows import activity_options
    from workflows.outlive import continue_as_new_when_due

UPDATES_LIMIT = 500
"""Repairs after which it does so too: Temporal takes 2,000 updates a run."""


class DriftPolicy(Model):
    interval: timedelta = timedelta(minutes=1)
    repair: bool = Field(default=False, description="repair by itself what two looks in a row have seen")


class RepairCommand(Model):
    by: str = Field(min_length=1, max_length=255)
    reason: BoundedText = ""


class DriftRepaired(Model):
    """What a repair found, which nodes obeyed, and what is left. `faults`: node -> why."""

    found: int
    left: int
    nodes: tuple[str, ...] = ()
    faults: dict[str, str] = Field(default_factory=dict)


class DriftState(BaseModel):
    environment: Environment
    policy: DriftPolicy = Field(default_factory=DriftPolicy)
    looks: int = 0
    repairs: int = 0
    last: DriftLook | None = None


@workflow.defn(name="DriftWatch")
class DriftWatch:
    @workflow.init
    def __init__(self, state: DriftState) -> None:
        self._state = state
        self._disturbed = False
        self._updates = 0
        self._busy = asyncio.Lock()

    @workflow.run
    async def run(self, state: DriftState) -> None:
        while True:
            await self._wait()
            async with self._busy:
                look = await self._look()
                if look is not None and self._state.policy.repair and look.lasting:
                    await self._repair(look.lasting)
            await workflow.wait_condition(workflow.all_handlers_finished)
            continue_as_new_when_due(self._state, also=self._updates >= UPDATES_LIMIT)

    @workflow.signal
    def configure(self, policy: DriftPolicy) -> None:
        """A worker that starts tells what its settings say; they hold from now on."""
        if policy != self._state.policy:
            self._state.policy, self._disturbed = policy, True

    @workflow.query
    def status(self) -> DriftState:
        return self._state

    @workflow.update
    async def repair(self, command: RepairCommand) -> DriftRepaired:
        """Look, let every node that differs make itself right, and look again."""
        self._updates += 1
        async with self._busy:
            before = await self._look()
            if before is None:
                raise as_application_error(InvalidInput("nothing could be compared; see that PostgreSQL answers"))
            done = await self._repair(before.targets)
            after = await self._look()
        return DriftRepaired(
            found=before.unexplained,
            left=after.unexplained if after else before.unexplained,
            nodes=tuple(node for node, fault in done.items() if not fault),
            faults={node: fault for node, fault in done.items() if fault},
        )

    async def _wait(self) -> None:
        """One interval; a new policy begins a new one."""
        while True:
            self._disturbed = False
            try:
                await workflow.wait_condition(
                    lambda: self._disturbed, timeout=self._state.policy.interval, timeout_summary="next look"
                )
            except TimeoutError:
                return

    async def _look(self) -> DriftLook | None:
        """None when no look could be had: no data is not success, so the last one stands."""
        state = self._state
        try:
            look = await workflow.execute_activity_method(
                DriftActivities.look_for_drift,
                DriftOrder(environment=state.environment),
                summary=f"what the nodes of {state.environment} run",
                **activity_options.DRIFT,
            )
        except ActivityError as error:
            workflow.logger.warning("no look at %s: %s", state.environment, failure_of(error).message)
            return None
        state.looks += 1
        state.last = look
        workflow.set_current_details(
            f"**{state.environment}**: {look.total} differences, {look.unexplained} of them unexplained; "
            f"{state.looks} looks, {state.repairs} repairs"
        )
        return look

    async def _repair(self, targets: tuple[RepairTarget, ...]) -> dict[str, str]:
        """Node -> why it could not, "" when it is right again."""
        if not targets:
            return {}
        self._state.repairs += 1
        return dict(await asyncio.gather(*(self._repair_node(target) for target in targets)))

    async def _repair_node(self, target: RepairTarget) -> tuple[str, str]:
        try:
            done: Reconciled = await workflow.execute_activity_method(
                NodeRepairActivities.reconcile_node,
                ReconcileOrder(plugins=target.plugins),
                task_queue=node_queue(target.node_id),
                schedule_to_start_timeout=activity_options.NODE_START,
                summary=f"{target.node_id} makes {', '.join(target.plugins)} right"[:200],
                **activity_options.node_order(activity_options.NODE_REPAIR),
            )
        except ActivityError as error:
            return target.node_id, failure_of(error).message
        return target.node_id, "; ".join(f"{plugin}: {fault}" for plugin, fault in done.faults.items() if fault)
