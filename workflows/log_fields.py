"""What a workflow logs says which plugin, version, environment and deployment it is about, by its search attributes.

Neighbours: worker.py gives it to every control worker, hotswap.activity_tracing does the same for activities.
"""

from typing import Any

from temporalio import workflow
from temporalio.worker import (
    ExecuteWorkflowInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

with workflow.unsafe.imports_passed_through():
    from hotswap import temporal
    from hotswap.log_fields import bind_log_fields

_FIELDS = {
    "plugin": temporal.PLUGIN,
    "version": temporal.VERSION,
    "environment": temporal.ENVIRONMENT,
    "deployment": temporal.DEPLOYMENT,
}


class WorkflowLogFields(Interceptor):
    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        return _Bound


class _Bound(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        _bind()
        return await super().execute_workflow(input)

    async def handle_signal(self, input: HandleSignalInput) -> None:
        _bind()
        await super().handle_signal(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        _bind()
        return await super().handle_update_handler(input)


def _bind() -> None:
    """For the rest of this task, which belongs to the workflow alone."""
    known = workflow.info().typed_search_attributes
    bind_log_fields(**{name: str(value) for name, key in _FIELDS.items() if (value := known.get(key))})
