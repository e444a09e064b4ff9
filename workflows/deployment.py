"""One machinery for every strategy: plan, then step by step, or undo. The types differ so that the Web UI can filter.

Reads aloud: `execute` runs `_forward` until it is done or somebody stops it, then `_undo`es what must be undone.
Neighbours: step_runner carries out steps, gates wait, fleet talks to nodes, compensation undoes, handlers
takes commands. State is set up in `__init__` (@workflow.init), since a command may come before `run`.
"""

import asyncio
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.errors import failure_of
    from activities.planning import PlanningActivities
    from activities.records import RecordActivities, RecordInput
    from hotswap import temporal
    from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest
    from hotswap.domain.lifecycle import DeploymentStatus, Event
    from hotswap.domain.plan import step_title
    from hotswap.ports.records import DeploymentRow
    from hotswap.tracing import of_deployment
    from workflows import activity_options
    from workflows.cancelling import obeying, to_its_end
    from workflows.commands import TABLE, Rule
    from workflows.compensation import CompensationStack
    from workflows.counting import count_ending
    from workflows.fleet import WaveFailed
    from workflows.gates import HistoryFull, UndoNeeded
    from workflows.handlers import CommandHandlers
    from workflows.handover import hand_over
    from workflows.messages import Command, CommandResult, WorkflowNames
    from workflows.phases import Phases
    from workflows.pipeline_link import PipelineLink
    from workflows.state import DeploymentState
    from workflows.step_runner import StepRunner

RECORD_AGAIN = timedelta(seconds=30)
"""Wait after a record that PostgreSQL refused for good (a bug): the rollout goes on, the picture is mended later."""


class DeploymentMachine(CommandHandlers):
    """Shared by every deployment type; each type adds only its name and `run`."""

    def __init__(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> None:
        self._state = carried or DeploymentState(request=request)
        self._stack = CompensationStack()
        self._runner = StepRunner(self._state, self._stack)
        self._link = PipelineLink(self._state)
        self._phases = Phases(self._state.request)  # decoded by now, which `request` may not be
        self._closing = False
        self._undoing_since: datetime | None = None
        self._shown_status: DeploymentStatus | None = None

    async def execute(self) -> DeploymentProgress:
        with of_deployment(self._state.request.deployment_id):
            return await self._execute()

    async def _execute(self) -> DeploymentProgress:
        recorder = asyncio.create_task(self._keep_record())
        cancelled: BaseException | None = None
        try:
            await self._forward_until_stopped()
        except HistoryFull:
            if await self._finish_record(recorder):  # a cancel is not carried into the next run, an abort is
                order = Command(by="Temporal", reason="cancelled through Temporal")
                self._obey(WorkflowNames.ABORT, TABLE[WorkflowNames.ABORT], order)
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(args=[self._state.request, self._state])
        except asyncio.CancelledError as error:
            await self._undo(UndoNeeded("cancelled through Temporal", event=Event.UNDONE_AFTER_ABORT))
            cancelled = error
        except UndoNeeded as need:
            cancelled = await self._undo(need)
        self._state.finished_at = workflow.now()
        self._state.touch()
        count_ending(self._state, self._undoing_since)
        await self._finish_record(recorder)
        await self._finish_record(asyncio.create_task(hand_over(self._state)))
        await self._finish_record(asyncio.create_task(self._tell_waiters()))
        await workflow.wait_condition(workflow.all_handlers_finished)
        if cancelled is not None:
            raise cancelled
        return self._state.progress()

    # --- forward ---------------------------------------------------------------------------------------------------

    async def _forward_until_stopped(self) -> None:
        """Raises UndoNeeded when a step fails or a person stops it. A stop cancels the step and waits until it has let go."""
        forward = asyncio.create_task(obeying(self._forward()))
        try:
            await workflow.wait_condition(lambda: forward.done() or self._state.stop is not None)
        except asyncio.CancelledError:
            await _let_go(forward)
            raise
        if not forward.done():
            await _let_go(forward)
        stop = self._state.stop
        if stop is not None and not self._state.terminal:
            raise UndoNeeded(stop.reason, event=stop.event)
        await forward

    async def _forward(self) -> None:
        state = self._state
        if state.status is DeploymentStatus.PENDING:
            state.started_at = workflow.now()
            state.move(
                Event.BEGIN, workflow.now(), f"begun by {state.request.initiated_by}", state.request.initiated_by
            )
        try:
            if state.planned is None:
                with self._phases.phase("plan"):
                    await self._plan()
            while (step := state.step) is not None:
                await self._runner.hold_while_paused()
                await self._runner.hold_while_frozen(step)
                if state.watch is None and state.status is not DeploymentStatus.AWAITING_APPROVAL:
                    state.note(workflow.now(), "step", f"step {state.step_index + 1}: {step_title(step)}")
                with self._phases.of_step(step):
                    await self._runner.run(step)
                state.step_index += 1
        except WaveFailed as fault:
            raise UndoNeeded(str(fault), "see `hotswap nodes` and the nodes' logs") from fault
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            failure = failure_of(error)
            raise UndoNeeded(f"{failure.type}: {failure.message}") from error
        if state.stop is None:  # an abort that came with the last step's answer still wins
            state.move(Event.FINISH, workflow.now(), f"{state.request.version} serves all tenants")

    async def _plan(self) -> None:
        state = self._state
        state.planned = await workflow.execute_activity_method(
            PlanningActivities.plan_deployment,
            state.request,
            summary=f"{state.request.strategy} of {state.request.plugin} {state.request.version}",
            **activity_options.PLAN,
        )
        state.generation, state.route = state.planned.generation, state.planned.previous_state
        plan = state.planned.plan
        state.note(
            workflow.now(),
            "plan",
            f"{len(plan.steps)} steps from {plan.from_version or 'nothing'} to {plan.to_version}",
            {
                "planHash": plan.plan_hash,
                "digest": plan.target.digest,
                "steps": [step_title(step) for step in plan.steps],
            },
        )

    # --- undo ------------------------------------------------------------------------------------------------------

    async def _undo(self, need: UndoNeeded) -> BaseException | None:
        """Give the traffic back and unload, to the end. What cannot be undone ends in Failed, with what to do.

        Answers a cancel that came meanwhile: it changes nothing of how the deployment ends and is recorded.
        """
        state = self._state
        cancelled: BaseException | None = None
        state.outcome_reason, state.what_to_do, state.waiting_for = need.reason, need.what_to_do, ""
        rejected = need.event is Event.UNDONE_AFTER_REJECT and state.status is DeploymentStatus.AWAITING_APPROVAL
        state.move(Event.REJECT if rejected else Event.UNDO, workflow.now(), f"undoing: {need.reason}")
        self._undoing_since = workflow.now()
        try:
            with self._phases.rollback(need.event) if state.routed else nullcontext():
                await self._stack.unwind()
        except asyncio.CancelledError as error:
            cancelled = error
        except (ActivityError, WaveFailed) as fault:
            what = failure_of(fault).message if isinstance(fault, ActivityError) else str(fault)
            state.what_to_do = (
                f"undoing did not finish ({what}). Routes are at generation {state.generation}; nodes reconcile to it "
                f"by themselves: check `hotswap nodes`, then deploy the version you want in "
                f"{state.request.environment} again"
            )
            state.move(Event.UNDO_FAILED, workflow.now(), f"undoing failed: {what}")
            return None
        back = f"; {self._state.plan.from_version or 'no version'} serves" if state.routed else "; nothing was changed"
        state.move(need.event, workflow.now(), f"undone{back}")
        return cancelled

    def _obey(self, name: str, rule: Rule[Any], command: Command) -> CommandResult:
        self._phases.commanded()
        return super()._obey(name, rule, command)

    # --- the record ------------------------------------------------------------------------------------------------

    async def _keep_record(self) -> None:
        """Beside the rollout, so that it never waits for the picture of it; every change reaches PostgreSQL in order."""
        state = self._state
        while True:
            await workflow.wait_condition(lambda: state.revision > state.recorded_revision or self._closing)
            if state.revision == state.recorded_revision:
                return
            await self._record()
            await self._link.tell()

    async def _record(self) -> None:
        """Today's picture to PostgreSQL; a refused one is left to the next call, a while later."""
        state = self._state
        self._show()
        revision, events = state.revision, state.unrecorded()
        try:
            await workflow.execute_activity_method(
                RecordActivities.record_progress,
                RecordInput(
                    progress=state.progress(),
                    events=events,
                    approvals=state.decisions(),
                    opening=self._opening() if state.recorded_revision == 0 else None,
                ),
                summary=f"record {state.status}",
                **activity_options.DATABASE,
            )
        except ActivityError as error:
            workflow.logger.error("progress was not recorded: %s", failure_of(error).message)
            await workflow.sleep(RECORD_AGAIN)
            return
        state.recorded_revision = revision
        state.recorded_sequence = max((event.sequence for event in events), default=state.recorded_sequence)

    async def _finish_record(self, recorder: asyncio.Task[None]) -> bool:
        """To the end, also when a cancel comes now: what was done must be on record. Whether one came."""
        self._closing = True
        return await to_its_end(recorder)

    async def _tell_waiters(self) -> None:
        """Call those who wait for the place (workflows.queued), then record what came meanwhile."""
        state = self._state
        while state.waiters or state.revision > state.recorded_revision:
            if state.waiters:
                with suppress(FailureError):  # it has given up
                    await workflow.get_external_workflow_handle(state.waiters.pop()).signal(WorkflowNames.YOUR_TURN)
            else:
                await self._record()

    @workflow.signal(name=WorkflowNames.TELL_WHEN_OVER)
    def tell_when_over(self, waiter: str) -> None:
        if waiter not in self._state.waiters:
            self._state.waiters.append(waiter)

    def _opening(self) -> DeploymentRow:
        info = workflow.info()
        return DeploymentRow(
            progress=self._state.progress(),
            config=self._state.request.config.model_dump(mode="json"),
            workflow_id=info.workflow_id,
            run_id=info.first_execution_run_id,
        )

    def _show(self) -> None:
        """Make the Web UI readable: details as Markdown, status as a search attribute."""
        workflow.set_current_details(self._state.describe())
        if self._shown_status is not self._state.status:
            self._shown_status = self._state.status
            workflow.upsert_search_attributes([temporal.STATUS.value_set(self._state.status)])


async def _let_go(task: asyncio.Task[None]) -> None:
    """Cancel and wait until the step has let go of the nodes (activities wait for their cancellation)."""
    task.cancel()
    try:
        await task
    except (asyncio.CancelledError, UndoNeeded, HistoryFull):
        return  # it let go; why does not matter any more: the stop decides


@workflow.defn(name="DirectDeployment")
class DirectDeployment(DeploymentMachine):
    """All traffic at once, after all nodes are ready."""

    @workflow.init
    def __init__(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> None:
        super().__init__(request, carried)

    @workflow.run
    async def run(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> DeploymentProgress:
        return await self.execute()


@workflow.defn(name="CanaryDeployment")
class CanaryDeployment(DeploymentMachine):
    """By growing shares of tenants, each judged before the next."""

    @workflow.init
    def __init__(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> None:
        super().__init__(request, carried)

    @workflow.run
    async def run(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> DeploymentProgress:
        return await self.execute()
