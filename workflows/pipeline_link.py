"""Tells the pipeline that started a deployment how it stands: a signal whenever its status, step or wait changes.

Only a pipeline's child has somebody to tell. Neighbours: workflows.deployment calls it beside its record,
workflows.pipeline_handlers listens.
"""

from contextlib import suppress

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from hotswap.domain.plan import step_title
    from workflows.pipeline_messages import PIPELINE_PREFIX, STAGE_PROGRESS
    from workflows.pipeline_state import StageTold
    from workflows.state import DeploymentState


class PipelineLink:
    def __init__(self, state: DeploymentState) -> None:
        self._state = state
        self._told: StageTold | None = None

    async def tell(self) -> None:
        """Nothing when nothing changed, or when the pipeline is gone: a deployment does not need it."""
        parent = workflow.info().parent
        if parent is None or not parent.workflow_id.startswith(PIPELINE_PREFIX) or self._state.terminal:
            return  # how it ended, the pipeline learns from its result
        state, step = self._state, self._state.step
        told = StageTold(
            deployment_id=state.request.deployment_id,
            status=state.status,
            step_title=step_title(step) if step else "",
            waiting_for=state.waiting_for,
        )
        if told != self._told:
            self._told = told
            with suppress(FailureError):
                await workflow.get_external_workflow_handle(parent.workflow_id).signal(STAGE_PROGRESS, told)
