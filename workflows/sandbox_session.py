"""A sandbox session: takes executions while it lives, runs them one after the other, and cleans up however it ends.

Nothing of a session lives in a worker between two executions: each has a process of its own (docs/adr/0024), so a worker
that dies costs at most the one that runs. Neighbours: activities.sandbox runs and records, workflows.sandbox_messages
names the messages. The caps in hotswap.domain.sandbox keep the history short: a session never continues as new.
"""

import asyncio
from collections import deque
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.errors import as_application_error, failure_of
    from activities.sandbox import CloseOrder, ExecutionOrder, SandboxCallActivities, SandboxRecordActivities
    from hotswap import temporal
    from hotswap.domain.base import bounded
    from hotswap.domain.errors import Conflict
    from hotswap.domain.sandbox import MAX_EXECUTIONS, MAX_WAITING, SessionStatus, sandbox_queue
    from workflows import activity_options
    from workflows.cancelling import obeying
    from workflows.messages import Command, WorkflowNames
    from workflows.sandbox_messages import (
        END,
        EXECUTE,
        SANDBOX_WORKFLOW,
        ExecuteCommand,
        SandboxAnswer,
        SessionOrder,
        SessionProgress,
    )


@workflow.defn(name=SANDBOX_WORKFLOW)
class SandboxSession:
    @workflow.init
    def __init__(self, order: SessionOrder) -> None:
        self._order = order
        self._status = SessionStatus.ACTIVE
        self._reason = ""
        self._by = "hotswap"
        self._closed = False
        self._asked: set[str] = set()
        self._waiting: deque[ExecuteCommand] = deque()
        self._running: ExecuteCommand | None = None
        self._executed = 0
        self._last = ""

    @workflow.run
    async def run(self, order: SessionOrder) -> SessionProgress:
        serving = asyncio.create_task(obeying(self._serve()))
        cancelled = False
        try:
            await self._until_over(serving)
        except asyncio.CancelledError:
            cancelled = True
            self._end(SessionStatus.DELETED, "its workflow was cancelled in Temporal", "temporal")
        closing = asyncio.create_task(self._close(serving))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:  # it came while we tidied up, which goes on to its end
            cancelled = True
            await closing
        await workflow.wait_condition(workflow.all_handlers_finished)
        if cancelled:
            raise asyncio.CancelledError
        return self.status()

    @workflow.query(name=WorkflowNames.STATUS)
    def status(self) -> SessionProgress:
        return SessionProgress(
            sandbox_id=self._order.sandbox_id,
            status=self._status,
            expires_at=self._order.expires_at,
            running=self._running.execution_id if self._running else "",
            waiting=len(self._waiting),
            executed=self._executed,
            end_reason=self._reason,
        )

    @workflow.update(name=EXECUTE)
    def execute(self, command: ExecuteCommand) -> SandboxAnswer:
        """Take an execution; a repeat takes none."""
        if command.execution_id in self._asked:
            return self._answer(f"{command.execution_id} was taken before")
        self._asked.add(command.execution_id)
        self._waiting.append(command)
        return self._answer(f"{command.execution_id} waits for {len(self._waiting) - 1} others")

    @execute.validator
    def _check_execute(self, command: ExecuteCommand) -> None:
        if command.execution_id in self._asked:
            return
        sandbox_id = self._order.sandbox_id
        fault = ""
        if self._status is not SessionStatus.ACTIVE:
            fault = f"{sandbox_id} is {self._status}: {self._reason}; make another"
        elif len(self._asked) >= MAX_EXECUTIONS:
            fault = f"{sandbox_id} has had {MAX_EXECUTIONS} executions, as many as one sandbox may have; make another"
        elif len(self._waiting) >= MAX_WAITING:
            fault = f"{MAX_WAITING} executions of {sandbox_id} wait already; try again when one has finished"
        if fault:
            raise as_application_error(Conflict(fault))

    @workflow.update(name=END)
    async def end(self, command: Command) -> SandboxAnswer:
        """End it; answers once nothing of it is left. A repeat does too."""
        self._end_by(command)
        await workflow.wait_condition(lambda: self._closed)
        return self._answer(self._reason)

    @workflow.signal(name=END)
    def end_signal(self, command: Command) -> None:
        self._end_by(command)

    def _end_by(self, command: Command) -> None:
        why = f": {command.reason}" if command.reason else ""
        self._end(SessionStatus.DELETED, f"deleted by {command.by}{why}", command.by)

    def _end(self, status: SessionStatus, reason: str, by: str) -> None:
        """The first ending holds."""
        if self._status is SessionStatus.ACTIVE:
            self._status, self._reason, self._by = status, bounded(reason), by

    def _answer(self, message: str) -> SandboxAnswer:
        return SandboxAnswer(sandbox_id=self._order.sandbox_id, status=self._status, message=message)

    async def _until_over(self, serving: asyncio.Task[None]) -> None:
        self._show()
        left = max(self._order.expires_at - workflow.now(), timedelta(0))
        try:
            await workflow.wait_condition(
                lambda: self._status is not SessionStatus.ACTIVE or serving.done(),
                timeout=left,
                timeout_summary="time to live",
            )
        except TimeoutError:
            self._end(SessionStatus.EXPIRED, "its time was over", "hotswap")
        if serving.done():
            serving.result()  # only a bug of ours ends it: the task fails and is tried again by a mended worker

    async def _serve(self) -> None:
        """Until cancelled."""
        while True:
            await workflow.wait_condition(lambda: bool(self._waiting))
            self._running = self._waiting.popleft()
            self._show()
            try:
                self._last = await self._run(self._running)
            finally:
                self._running = None
            self._executed += 1
            self._show()

    async def _run(self, command: ExecuteCommand) -> str:
        """How it ended, in a line. The record says whether it may run again when its worker died."""
        try:
            done = await workflow.execute_activity_method(
                SandboxCallActivities.run_execution,
                ExecutionOrder(sandbox_id=self._order.sandbox_id, execution_id=command.execution_id),
                task_queue=sandbox_queue(workflow.info().task_queue),
                summary=f"{command.method} by {command.by}"[:200],
                **activity_options.sandbox_execution(command.timeout),
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            told = failure_of(error).message
            workflow.logger.warning("%s was not run: %s", command.execution_id, told)
            return f"{command.method}: {told}"
        return f"{command.method}: {done.status} {done.limit} {done.reason}"

    async def _close(self, serving: asyncio.Task[None]) -> None:
        """Stop what runs and wait until it has stopped, then say so on record."""
        serving.cancel()
        await workflow.wait([serving])
        self._waiting.clear()
        await workflow.execute_activity_method(
            SandboxRecordActivities.close_session,
            CloseOrder(sandbox_id=self._order.sandbox_id, status=self._status, reason=self._reason, by=self._by),
            summary=f"record {self._status}",
            **activity_options.DATABASE,
        )
        self._closed = True
        self._show()
        workflow.upsert_search_attributes([temporal.STATUS.value_set(str(self._status))])

    def _show(self) -> None:
        """Markdown for the Web UI's details."""
        order, told = self._order, self.status()
        lines = [f"**{order.plugin} {order.version} in {order.environment}**, made by {order.created_by}"]
        if self._status is SessionStatus.ACTIVE:
            lines.append(f"Until {order.expires_at:%Y-%m-%d %H:%M:%S} UTC")
            running = f"{self._running.method} runs" if self._running else "nothing runs"
            lines.append(f"{running}, {told.waiting} wait, {told.executed} of {MAX_EXECUTIONS} done")
        else:
            lines.append(f"{self._status}: {self._reason}")
        if self._last:
            lines.append(f"Last: {bounded(self._last)}")
        workflow.set_current_details("\n\n".join(lines))
