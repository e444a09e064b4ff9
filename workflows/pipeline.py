"""Promotes one version through environments: gate, deploy, soak, next. Every stage is a deployment of its own, a child
under the real deployment workflow id, with its own plan, approvals and guards.

A stage that does not complete ends the pipeline there; environments before it keep the version. The run then stays open for
RETRY_WINDOW, so that `retry` can take that stage again. It continues as new between children only: while one runs, its
history hardly grows. Neighbours: pipeline_state is what it knows, pipeline_handlers takes commands, pipeline_child is a
stage's deployment, pipeline_link the other end of its news.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import ContinueAsNewVersioningBehavior

with workflow.unsafe.imports_passed_through():
    from activities.errors import failure_of
    from activities.pipelines import PipelineActivities, ServedInput
    from hotswap.domain.ids import deployment_workflow_id
    from hotswap.domain.lifecycle import DeploymentStatus
    from hotswap.domain.notices import APPROVAL_EXPIRED
    from hotswap.domain.pipeline import (
        RETRYABLE,
        PipelineEvent,
        PipelineProgress,
        PipelineRequest,
        PipelineStage,
        PipelineStatus,
        StageConflict,
        StageState,
    )
    from hotswap.strategies.common import APPROVAL_EXPIRY
    from workflows import activity_options, pipeline_commands
    from workflows.cancelling import obeying
    from workflows.messages import Command, WorkflowNames
    from workflows.pipeline_child import Child, stage_request, start_child
    from workflows.pipeline_commands import gate_open
    from workflows.pipeline_handlers import PipelineHandlers
    from workflows.pipeline_messages import PIPELINE_WORKFLOW
    from workflows.pipeline_record import PipelineRecorder, run_is_due
    from workflows.pipeline_state import Order, Phase, PipelineState

RETRY_WINDOW = timedelta(hours=48)
"""How long a pipeline that ended in a stage takes `retry`: as long as an approval may take."""

LOOK_AGAIN = timedelta(minutes=1)
"""For a place whose holder was terminated and told nobody."""
SOON = timedelta(milliseconds=100)
BY_TEMPORAL = Command(by="Temporal", reason="cancelled through Temporal")
SHORTEST_LOOK, LONGEST_LOOK = timedelta(seconds=1), timedelta(minutes=10)
"""Between two looks at what a soaking environment serves: a tenth of the soak within these."""

_ENDING = {
    DeploymentStatus.ROLLED_BACK: PipelineEvent.ROLL_BACK,
    DeploymentStatus.REJECTED: PipelineEvent.REJECT,
    DeploymentStatus.ABORTED: PipelineEvent.ROLL_BACK,  # its deployment alone was aborted; of the pipeline see `stop`
}


class StageEnded(Exception):
    """The pipeline ends in the present stage. `event` is the move."""

    def __init__(self, event: PipelineEvent, reason: str, what_to_do: str = "") -> None:
        super().__init__(reason)
        self.event = event
        self.reason = reason
        self.what_to_do = what_to_do


class _Leave(Exception):
    """A safe point to continue as new."""


@workflow.defn(name=PIPELINE_WORKFLOW)
class PipelineWorkflow(PipelineHandlers):
    @workflow.init
    def __init__(self, request: PipelineRequest, carried: PipelineState | None = None) -> None:
        # Started with one argument of two, Temporal gives it as plain JSON.
        self._state = carried or PipelineState.of(PipelineRequest.model_validate(request))
        self._called = self._cancelled = False
        self._record = PipelineRecorder(self._state)

    @workflow.run
    async def run(self, request: PipelineRequest, carried: PipelineState | None = None) -> PipelineProgress:
        self._record.begin()
        cancelled: BaseException | None = None
        promoting = asyncio.create_task(obeying(self._to_its_end()))
        while not promoting.done():
            try:
                await workflow.wait([promoting])
            except asyncio.CancelledError as error:
                cancelled = error
                self._obey_cancel(promoting)
        try:
            promoting.result()
        except _Leave:
            if await self._record.finish():  # a cancel is not carried into the next run, an abort is
                self._abort_for_temporal()
            await workflow.wait_condition(workflow.all_handlers_finished)
            newer = workflow.info().is_target_worker_deployment_version_changed()
            workflow.continue_as_new(
                args=[self._state.request, self._state],
                initial_versioning_behavior=ContinueAsNewVersioningBehavior.AUTO_UPGRADE if newer else None,
            )
        except asyncio.CancelledError:  # of a release that did not take a cancel for an abort
            if not self._state.ended:
                self._state.end(PipelineEvent.ABORT, workflow.now(), BY_TEMPORAL.reason)
        await self._record.finish()
        await workflow.wait_condition(workflow.all_handlers_finished)
        if cancelled is not None:
            raise cancelled
        return self._state.progress()

    def _obey_cancel(self, promoting: asyncio.Task[None]) -> None:
        """A cancel is an abort by Temporal. Thrown into what is being awaited it could lose a child that just starts, would
        make a failure of a question to PostgreSQL, and is swallowed by a signal on its way."""
        if not workflow.patched("a-cancel-is-an-abort"):
            promoting.cancel()
            return
        self._cancelled = True
        if not self._state.ended:
            self._abort_for_temporal()

    def _abort_for_temporal(self) -> None:
        pipeline_commands.abort(self._state, BY_TEMPORAL, workflow.now())

    async def _to_its_end(self) -> None:
        """Promote; when a stage ends it, take it again as often as somebody wants that in time."""
        state = self._state
        if state.status is PipelineStatus.PENDING:
            state.started_at = workflow.now()
            by = state.request.initiated_by
            state.move(PipelineEvent.BEGIN, workflow.now(), f"begun by {by}", by)
        while True:
            try:
                await self._promote()
                state.finished_at = workflow.now()
                served = ", ".join(entry.environment for entry in state.stages)
                state.move(PipelineEvent.COMPLETE, workflow.now(), f"{state.request.version} serves {served}")
            except StageEnded as ended:
                self._end(ended)
            except ActivityError as error:
                failure = failure_of(error)
                self._end(StageEnded(PipelineEvent.FAIL, f"{failure.type}: {failure.message}", "mend it, then retry"))
            if state.status not in RETRYABLE or not await self._taken_again():
                return

    def _end(self, ended: StageEnded) -> None:
        """What somebody ordered is how it ends, whatever else went wrong in the same instant."""
        stop = self._state.stop
        if stop is not None and stop.event is not ended.event and workflow.patched("a-stop-names-the-ending"):
            ended = StageEnded(stop.event, stop.reason)
        self._state.end(ended.event, workflow.now(), ended.reason, ended.what_to_do)

    async def _promote(self) -> None:
        """Every stage that is left. Raises StageEnded, _Leave."""
        state = self._state
        while (stage := state.stage) is not None:
            if state.phase is Phase.GATE:
                await self._pass_gate(stage)
                state.phase = Phase.DEPLOY
            if state.phase is Phase.DEPLOY:
                await self._deploy(stage)
                state.phase = Phase.SOAK
            await self._soak(stage)
            state.next_stage()
            await self._breathe(lambda: True)

    async def _taken_again(self) -> bool:
        """Wait for `retry`; False when nobody wanted it in time."""
        state = self._state
        state.retry_until = workflow.now() + RETRY_WINDOW
        state.touch()
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: not state.ended or self._cancelled,
                timeout=RETRY_WINDOW,
                timeout_summary="retry is taken until then",
            )
        if not state.ended:
            return True
        state.retry_until = None
        state.touch()
        return False

    # --- gate --------------------------------------------------------------------------------------------------------

    async def _pass_gate(self, stage: PipelineStage) -> None:
        state, gate = self._state, stage.gate
        if gate is None:
            return
        if state.status is PipelineStatus.PAUSED:
            await self._hold_while_paused()
        if state.status is not PipelineStatus.AWAITING_APPROVAL:
            people = "1 approval" if gate.required == 1 else f"{gate.required} approvals"
            state.gate_since = workflow.now()
            state.update(state=StageState.GATE, gate=gate, gate_expires_at=state.gate_since + APPROVAL_EXPIRY)
            state.wait_for(f"{people} by {gate.role} before {stage.environment}, not by {state.request.initiated_by}")
            state.move(PipelineEvent.ASK_APPROVAL, workflow.now(), f"waiting for {state.waiting_for}")
        since = state.gate_since or workflow.now()
        left = max(since + APPROVAL_EXPIRY - workflow.now(), timedelta(milliseconds=1))
        try:
            await workflow.wait_condition(
                lambda: gate_open(state) or state.stop is not None, timeout=left, timeout_summary="gate expires"
            )
        except TimeoutError:
            raise StageEnded(
                PipelineEvent.REJECT, f"{APPROVAL_EXPIRED} {stage.environment} within {APPROVAL_EXPIRY}", "retry"
            ) from None
        self._end_if_stopped()
        state.wait_for("")
        state.move(PipelineEvent.APPROVE, workflow.now(), f"the gate before {stage.environment} is open")

    # --- deploy ------------------------------------------------------------------------------------------------------

    async def _deploy(self, stage: PipelineStage) -> None:
        """Until the stage's deployment has completed. Raises StageEnded."""
        state = self._state
        child = await self._start(stage)
        if child is None:
            return
        try:
            await self._accompany(child)
        except asyncio.CancelledError:  # of a release that did not take a cancel for an abort
            state.outbox = [
                Order(name=WorkflowNames.ABORT, command=Command(by="Temporal", reason="pipeline cancelled"))
            ]
            undone = asyncio.create_task(self._accompany(child))
            while not undone.done():
                with suppress(asyncio.CancelledError):
                    await workflow.wait([undone])
            state.running = ""
            raise
        await self._take_result(stage, child)

    async def _start(self, stage: PipelineStage) -> Child | None:
        """The running deployment, or None when the environment serves the version already."""
        state, environment = self._state, stage.environment
        while True:
            await self._hold_while_paused()
            self._end_if_stopped()
            if await self._served(stage) == state.request.version:
                state.update(state=StageState.SKIPPED, completed_at=workflow.now(), detail="serves it already")
                state.note(workflow.now(), "stage", f"{environment} serves {state.request.version} already")
                return None
            held = state.stop is not None or state.status is PipelineStatus.PAUSED
            if held and workflow.patched("a-start-asks-again"):  # commanded while we asked: no child has heard of it
                continue
            request = stage_request(state, stage)
            state.running = request.deployment_id
            try:
                child = await start_child(state.request.pipeline_id, request)
            except WorkflowAlreadyStartedError:
                state.running = ""
                if state.outbox and workflow.patched("orders-die-with-their-child"):
                    state.outbox.clear()
                await self._stand_behind(stage)
                continue
            state.wait_for("")
            state.update(
                state=StageState.RUNNING,
                attempt=state.entry.attempt + 1,
                deployment_id=request.deployment_id,
                deployment_status=DeploymentStatus.PENDING,
                started_at=workflow.now(),
            )
            state.note(
                workflow.now(), "stage", f"{environment} begins: {request.deployment_id}", {"id": request.deployment_id}
            )
            return child

    async def _stand_behind(self, stage: PipelineStage) -> None:
        """Another deployment has the place: end here, or wait until it is over."""
        environment, plugin = stage.environment, self._state.request.plugin
        if self._state.request.on_conflict is StageConflict.FAIL:
            raise StageEnded(
                PipelineEvent.FAIL,
                f"another deployment of {plugin} runs in {environment}",
                f"`hotswap list -e {environment} --plugin {plugin}` shows it; wait for its end, then retry",
            )
        self._state.wait_for(f"the deployment of {plugin} that runs in {environment} to end")
        self._called = False
        holder = workflow.get_external_workflow_handle(deployment_workflow_id(environment, plugin))
        try:
            await holder.signal(WorkflowNames.TELL_WHEN_OVER, workflow.info().workflow_id)
        except FailureError:  # over since
            await workflow.sleep(SOON)
            return
        await self._breathe(lambda: self._called, LOOK_AGAIN)
        await workflow.sleep(SOON)  # it says so a few milliseconds before it has closed

    async def _accompany(self, child: Child) -> None:
        """Pass commands on until the deployment has ended."""
        state = self._state
        while not child.done():
            await workflow.wait_condition(lambda: child.done() or bool(state.outbox))
            if state.outbox and not child.done():
                order = state.outbox.pop(0)
                with suppress(FailureError):  # it has just ended
                    await child.signal(order.name, order.command)
        state.outbox.clear()

    async def _take_result(self, stage: PipelineStage, child: Child) -> None:
        state, environment = self._state, stage.environment
        state.running = ""
        state.wait_for("")
        try:
            progress = await child
        except ChildWorkflowError as error:
            self._end_if_stopped()
            raise StageEnded(
                PipelineEvent.FAIL,
                f"the deployment to {environment} ended without a result: {error.cause or error}",
                f"see what {environment} serves (`hotswap status {state.entry.deployment_id}`), then retry",
            ) from error
        state.update(deployment_status=progress.status, step_title="")
        state.note(workflow.now(), "stage", f"{environment}: {progress.status}", {"id": progress.deployment_id})
        if progress.status is DeploymentStatus.COMPLETED:
            state.update(completed_at=workflow.now())
            self._end_if_stopped()  # an abort that came too late for this stage still ends the pipeline
            return
        self._end_if_stopped()
        raise StageEnded(
            _ENDING.get(progress.status, PipelineEvent.FAIL),
            f"{environment} ended {progress.status}: {progress.outcome_reason}",
            progress.what_to_do or f"mend the cause, then retry: it begins again with {environment}",
        )

    # --- soak --------------------------------------------------------------------------------------------------------

    async def _soak(self, stage: PipelineStage) -> None:
        """Until the version has served as long as asked, without being taken back. A pause does not stop the clock."""
        state, now = self._state, workflow.now()
        if stage.soak > timedelta(0) and state.entry.state is not StageState.SKIPPED:
            until = state.entry.soak_until or now + stage.soak
            state.update(state=StageState.SOAKING, soak_until=until)
            state.wait_for(f"{stage.environment} to soak until {until:%Y-%m-%d %H:%M:%S} UTC")
            every = min(max(stage.soak / 10, SHORTEST_LOOK), LONGEST_LOOK)
            while (left := until - workflow.now()) > timedelta(0):
                await self._breathe(lambda: False, min(every, left))
                await self._expect_served(stage)
            state.update(state=StageState.DONE)
            state.wait_for("")
            state.note(workflow.now(), "stage", f"{stage.environment} has soaked for {stage.soak}")
        elif state.entry.state is not StageState.SKIPPED:
            state.update(state=StageState.DONE)

    async def _expect_served(self, stage: PipelineStage) -> None:
        served, wanted = await self._served(stage), self._state.request.version
        if served != wanted:
            raise StageEnded(
                PipelineEvent.ROLL_BACK,
                f"{stage.environment} serves {served or 'nothing'} instead of {wanted}: taken back while it soaked",
                f"see why {stage.environment} went back, mend it, then retry",
            )

    async def _served(self, stage: PipelineStage) -> str | None:
        served = await workflow.execute_activity_method(
            PipelineActivities.served_version,
            ServedInput(environment=stage.environment, plugin=self._state.request.plugin),
            summary=f"what does {stage.environment} serve",
            **activity_options.DATABASE,
        )
        return served.version

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _end_if_stopped(self) -> None:
        stop = self._state.stop
        if stop is not None:
            raise StageEnded(stop.event, stop.reason)

    async def _hold_while_paused(self) -> None:
        state = self._state
        while state.status is PipelineStatus.PAUSED:
            state.wait_for("resume or abort")
            await self._breathe(lambda: state.status is not PipelineStatus.PAUSED)
            state.wait_for("")

    async def _breathe(self, awaited: Any, duration: timedelta | None = None) -> None:
        """Wait for `awaited`, at most `duration`; a place to be stopped and to continue as new. Raises StageEnded, _Leave."""
        if run_is_due():
            raise _Leave
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: awaited() or self._state.stop is not None,
                timeout=duration,
                timeout_summary=self._state.waiting_for,
            )
        self._end_if_stopped()
