"""Waits until the place of a deployment is free, then starts it there: `onConflict` queue and supersede.

The lock is still the workflow id of the place: whoever's turn it is tries to start the deployment as a child, and Temporal
refuses while another holds it. Whose turn it is says the record (activities.queue). Nobody polls: a waiter asks the one in
front of it, a waiter or the deployment that runs, to be told when that is over; asking somebody who is gone fails, which
is how the death of a workflow that told nobody is noticed. A slow look makes up for a call that was lost.

The waiter keeps the same state as a deployment and hands it to the one it starts, so the timeline goes on without a gap.
Neighbours: workflows.deployment is what it starts and whose record, questions and commands it shares.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import ContinueAsNewVersioningBehavior

with workflow.unsafe.imports_passed_through():
    from activities.errors import failure_of
    from activities.queue import HandOver, InLine, Line, LookInput, QueueActivities
    from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest, OnConflict
    from hotswap.domain.ids import deployment_workflow_id
    from workflows import activity_options, commands, gates, launch
    from workflows.commands import Rule
    from workflows.deployment import RECORD_AGAIN, DeploymentMachine
    from workflows.gates import HistoryFull, UndoNeeded
    from workflows.messages import (
        QUEUED_WORKFLOW,
        WORKFLOW_OF_STRATEGY,
        Command,
        CommandResult,
        SupersedeCommand,
        WorkflowNames,
    )
    from workflows.state import DeploymentState

LOOK_AGAIN = timedelta(minutes=1)
"""A waiter whose call was lost (the one in front was terminated) looks for itself this often."""

LOOK_AGAIN_FOR_NAME = timedelta(seconds=1)
"""The one that runs has not been recorded yet, so nobody knows who it is, nor whether it is to be superseded."""

SOON = timedelta(milliseconds=100)
"""The one in front says that it is over a few milliseconds before its workflow has closed."""

Started = workflow.ChildWorkflowHandle[Any, DeploymentProgress]


def _newer_build() -> bool:
    """It may wait for days, and what it starts runs on its build: move to the one that is current (workflows.outlive)."""
    return workflow.info().is_target_worker_deployment_version_changed()


@workflow.defn(name=QUEUED_WORKFLOW)
class QueuedDeployment(DeploymentMachine):
    """Its answer is how the deployment stood when it was handed over, or how it ended when it never ran."""

    @workflow.init
    def __init__(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> None:
        super().__init__(request, carried)
        self._called = False
        self._starting = False
        self._started: Started | None = None
        self._late: list[tuple[str, Command]] = []
        self._gone: set[str] = set()
        self._ordered_away: set[str] = set()

    @workflow.run
    async def run(self, request: DeploymentRequest, carried: DeploymentState | None = None) -> DeploymentProgress:
        cancelled: BaseException | None = None
        waiting = asyncio.create_task(self._wait_for_turn())
        while not waiting.done():
            try:
                await workflow.wait([waiting])
            except asyncio.CancelledError as error:
                cancelled = error
                order = Command(by="Temporal", reason="cancelled through Temporal")
                self._obey(WorkflowNames.ABORT, commands.TABLE[WorkflowNames.ABORT], order)
        try:
            waiting.result()
        except HistoryFull:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(
                args=[request, self._state],
                initial_versioning_behavior=ContinueAsNewVersioningBehavior.AUTO_UPGRADE if _newer_build() else None,
            )
        await self._finish_record(asyncio.create_task(self._leave()))
        await workflow.wait_condition(workflow.all_handlers_finished)
        if cancelled is not None:
            raise cancelled
        return self._state.progress()

    @workflow.signal(name=WorkflowNames.YOUR_TURN)
    def your_turn(self) -> None:
        """The one in front is over."""
        self._called = True

    async def _wait_for_turn(self) -> None:
        """Until the deployment runs, or somebody does not want it any more. Raises HistoryFull."""
        state = self._state
        self._say("its turn")
        while state.stop is None:
            info = workflow.info()
            if info.get_current_history_length() > gates.HISTORY_LIMIT or _newer_build():
                raise HistoryFull
            await self._record_changes()
            line = await self._look()
            if line is None:
                await self._until_commanded(LOOK_AGAIN)
                continue
            await self._supersede(line)
            ahead = [one for one in line.ahead if one.workflow_id not in self._gone]
            if not ahead and await self._try_to_start():
                return
            await self._stand_behind(ahead[-1] if ahead else None, line.holder)
        await self._undo(UndoNeeded(state.stop.reason, event=state.stop.event))
        state.finished_at = workflow.now()
        state.touch()
        await self._record_changes()

    async def _look(self) -> Line | None:
        """None when the line cannot be read for now: a waiter that failed would be Pending on record for ever."""
        request = self._state.request
        try:
            return await workflow.execute_activity_method(
                QueueActivities.look_at_line,
                LookInput(
                    environment=request.environment,
                    plugin=request.plugin,
                    deployment_id=request.deployment_id,
                    requested_at=request.requested_at,
                    on_conflict=request.on_conflict,
                ),
                summary=f"who is before {request.deployment_id}",
                **activity_options.DATABASE,
            )
        except ActivityError as error:
            if not workflow.patched("a-refusal-ends-no-waiter"):
                raise
            workflow.logger.error("the line of %s could not be read: %s", request.plugin, failure_of(error).message)
            return None

    async def _supersede(self, line: Line) -> None:
        """Order away who was asked for before: the one that runs, and those that wait to supersede it too.

        Only the older: a younger one came to replace us, or slipped in for a moment; we wait for it.
        """
        request = self._state.request
        if request.on_conflict is not OnConflict.SUPERSEDE:
            return
        for one in (*line.ahead, *([line.holder] if line.holder else [])):
            if one.requested_at > request.requested_at or one.deployment_id in self._ordered_away:
                continue
            order = SupersedeCommand(
                by=request.initiated_by,
                reason=f"{request.deployment_id} ({request.version}) takes its place",
                deployment_id=one.deployment_id,
            )
            if await self._signal(one.workflow_id, WorkflowNames.SUPERSEDE, order):
                self._ordered_away.add(one.deployment_id)
                self._state.note(
                    workflow.now(), "queue", f"told {one.deployment_id} to give its traffic back and make way"
                )

    async def _stand_behind(self, ahead: InLine | None, holder: InLine | None) -> None:
        """Wait until the one in front is over, somebody commands, or it is time to look again."""
        request = self._state.request
        front = ahead or holder
        in_front = ahead.workflow_id if ahead else deployment_workflow_id(request.environment, request.plugin)
        self._say(f"its turn behind {front.deployment_id}" if front else "its turn behind another deployment")
        self._called = False
        if not await self._signal(in_front, WorkflowNames.TELL_WHEN_OVER, workflow.info().workflow_id):
            if ahead:
                self._gone.add(in_front)
            await workflow.sleep(SOON)
            return
        await self._record_changes()
        await self._until_commanded(LOOK_AGAIN if front else LOOK_AGAIN_FOR_NAME)
        if self._called:
            await workflow.sleep(SOON)

    async def _until_commanded(self, duration: timedelta) -> None:
        """Or called, at most so long."""
        state = self._state
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._called or state.stop is not None or state.revision > state.recorded_revision,
                timeout=duration,
                timeout_summary="look at the line again",
            )

    async def _try_to_start(self) -> bool:
        """Start the deployment; False when another holds the place. What is commanded from here on is kept for it."""
        await self._record_changes()
        state, request = self._state, self._state.request
        if state.stop is not None:
            return False
        self._starting = True
        try:
            self._started = await workflow.start_child_workflow(
                WORKFLOW_OF_STRATEGY[request.strategy],
                args=[request, state.model_copy(update={"waiting_for": "", "waiters": []})],
                id=deployment_workflow_id(request.environment, request.plugin),
                result_type=DeploymentProgress,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                memo={launch.MEMO_DEPLOYMENT: request.deployment_id},
                search_attributes=launch.search_attributes(request),
                static_summary=launch.summary(request),
                static_details=launch.details(request),
                task_timeout=launch.TASK_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            self._starting = False
            self._late.clear()  # obeyed here, by us
            return False
        return True

    async def _leave(self) -> None:
        """Call those behind us. What we started speaks for itself from now on; what came too late for us is passed on."""
        if self._started is None:
            await self._tell_waiters()
            return
        handed_over = await self._hand_over(self._started)
        while self._late or self._state.waiters or not handed_over:
            if not (self._late or self._state.waiters):
                with suppress(TimeoutError):
                    await workflow.wait_condition(
                        lambda: bool(self._late or self._state.waiters),
                        timeout=RECORD_AGAIN,
                        timeout_summary="hand over again",
                    )
                handed_over = await self._hand_over(self._started)
            elif self._late:
                name, command = self._late.pop(0)
                with suppress(FailureError):  # it has ended already
                    await self._started.signal(name, command)
            else:
                await self._signal(self._state.waiters.pop(), WorkflowNames.YOUR_TURN, None)

    async def _hand_over(self, started: Started) -> bool:
        """False when it was refused: until it is on record commands come here, and are passed on."""
        state = self._state
        workflow.set_current_details(f"started as {started.id}, run {started.first_execution_run_id}")
        try:
            await workflow.execute_activity_method(
                QueueActivities.hand_over,
                HandOver(
                    deployment_id=state.request.deployment_id,
                    workflow_id=started.id,
                    run_id=started.first_execution_run_id or "",
                ),
                summary=f"{state.request.deployment_id} runs",
                **activity_options.DATABASE,
            )
        except ActivityError as error:
            if not workflow.patched("a-refusal-ends-no-waiter"):
                raise
            workflow.logger.error("%s was not handed over: %s", state.request.deployment_id, failure_of(error).message)
            return False
        return True

    def _obey(self, name: str, rule: Rule[Any], command: Command) -> CommandResult:
        if self._starting:
            self._late.append((name, command))
        return super()._obey(name, rule, command)

    def _say(self, waiting_for: str) -> None:
        state = self._state
        if state.waiting_for != waiting_for:
            state.waiting_for = waiting_for
            state.note(workflow.now(), "queue", f"waiting for {waiting_for}")

    async def _record_changes(self) -> None:
        while self._state.revision > self._state.recorded_revision:
            await self._record()

    async def _signal(self, workflow_id: str, name: str, content: Any) -> bool:
        """False when nothing runs under that id any more."""
        handle = workflow.get_external_workflow_handle(workflow_id)
        try:
            await (handle.signal(name) if content is None else handle.signal(name, content))
        except FailureError:
            return False
        return True
