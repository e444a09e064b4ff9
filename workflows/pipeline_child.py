"""The deployment of a pipeline's stage: what it is asked, and how it is started. workflows.pipeline accompanies it."""

from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributePair
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from hotswap import temporal
    from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest
    from hotswap.domain.ids import deployment_workflow_id, derived_id
    from hotswap.domain.pipeline import PipelineStage
    from workflows import launch
    from workflows.messages import WORKFLOW_OF_STRATEGY
    from workflows.pipeline_state import PipelineState

Child = workflow.ChildWorkflowHandle[Any, DeploymentProgress]


def stage_request(state: PipelineState, stage: PipelineStage) -> DeploymentRequest:
    """The next attempt at the present stage."""
    asked, entry = state.request, state.entry
    attempt = entry.attempt + 1
    return DeploymentRequest(
        deployment_id=derived_id("dep", asked.pipeline_id, stage.environment, str(attempt)),
        plugin=asked.plugin,
        version=asked.version,
        environment=stage.environment,
        config=stage.config,
        initiated_by=asked.initiated_by,
        reason=f"{asked.pipeline_id}: {asked.reason or 'no reason given'}",
        requested_at=workflow.now(),
        retry_of=entry.deployment_id or None,
        freeze_override_reason=asked.freeze_override_reason,
    )


async def start_child(pipeline_id: str, request: DeploymentRequest) -> Child:
    """Raises WorkflowAlreadyStartedError. ABANDON: a pipeline that is terminated leaves a deployment that ends as every
    other does."""
    pipeline = SearchAttributePair(temporal.PIPELINE, pipeline_id)
    return await workflow.start_child_workflow(
        WORKFLOW_OF_STRATEGY[request.strategy],
        request,
        id=deployment_workflow_id(request.environment, request.plugin),
        result_type=DeploymentProgress,
        parent_close_policy=ParentClosePolicy.ABANDON,
        memo={launch.MEMO_DEPLOYMENT: request.deployment_id},
        search_attributes=launch.search_attributes(request).updated(pipeline),
        static_summary=launch.summary(request),
        static_details=f"{launch.details(request)}\n\n**Stage of** {pipeline_id}",
        task_timeout=launch.TASK_TIMEOUT,
    )
