"""Keeps PostgreSQL's picture of a pipeline true, beside the promotion, so that it never waits for the picture of it.

Neighbours: workflows.pipeline begins and finishes it, activities.pipelines writes.
"""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.errors import failure_of
    from activities.pipelines import PipelineActivities, PipelineRecord
    from hotswap import temporal
    from hotswap.domain.pipeline import PipelineStatus
    from hotswap.ports.pipelines import PipelineRow
    from workflows import activity_options
    from workflows.cancelling import to_its_end
    from workflows.pipeline_state import PipelineState

RECORD_AGAIN = timedelta(seconds=30)
"""Wait after a record that PostgreSQL refused for good (a bug): the pipeline goes on, the picture is mended later."""


HISTORY_LIMIT = 8_000
"""Events after which a pipeline continues as new, below the 10,000 of design invariant 9."""


def run_is_due() -> bool:
    """Whether this run should continue as new: a long history, or a newer build of the worker to move to."""
    info = workflow.info()
    long = info.get_current_history_length() > HISTORY_LIMIT or info.is_continue_as_new_suggested()
    return long or info.is_target_worker_deployment_version_changed()


class PipelineRecorder:
    def __init__(self, state: PipelineState) -> None:
        self._state = state
        self._closing = False
        self._shown: PipelineStatus | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def finish(self) -> bool:
        """Until everything is on record, also when a cancel comes now. Whether one came."""
        self._closing = True
        if self._task is None:
            return False
        return await to_its_end(self._task)  # raises by a bug of ours only: the task is tried again by a mended worker

    async def _keep(self) -> None:
        state = self._state
        while True:
            await workflow.wait_condition(lambda: state.revision > state.recorded_revision or self._closing)
            if state.revision == state.recorded_revision:
                return
            self._show()
            await self._write()

    async def _write(self) -> None:
        state = self._state
        revision, events = state.revision, state.unrecorded()
        try:
            await workflow.execute_activity_method(
                PipelineActivities.record_pipeline,
                PipelineRecord(
                    progress=state.progress(),
                    events=events,
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

    def _opening(self) -> PipelineRow:
        info = workflow.info()
        begun = self._state.progress().model_copy(update={"timeline": (), "sequence": 0})
        return PipelineRow(progress=begun, workflow_id=info.workflow_id, run_id=info.first_execution_run_id)

    def _show(self) -> None:
        """Make the Web UI readable: details as Markdown, status as a search attribute."""
        workflow.set_current_details(self._state.describe())
        if self._shown is not self._state.status:
            self._shown = self._state.status
            workflow.upsert_search_attributes([temporal.STATUS.value_set(self._state.status)])
