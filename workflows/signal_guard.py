"""Drops signals that fit no handler's parameters. Neighbours: worker.py gives it to every control worker.

A payload that does not decode is dropped by the SDK, but no payload at all (the Web UI's default), or one too many, reaches
the handler as it is: its TypeError fails the workflow task, again and again, and the deployment takes no command any more.
"""

from typing import Any

from temporalio import workflow
from temporalio.worker import (
    HandleSignalInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

with workflow.unsafe.imports_passed_through():
    import inspect
    from collections.abc import Callable, Sequence


class SignalGuard(Interceptor):
    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        return _Guarded


class _Guarded(WorkflowInboundInterceptor):
    async def handle_signal(self, input: HandleSignalInput) -> None:
        handler = workflow.get_signal_handler(input.signal)
        if handler is not None and not _fits(handler, input.args):
            workflow.logger.warning(
                "signal '%s' came with %d payloads, which its handler does not take; it was dropped",
                input.signal,
                len(input.args),
            )
            return
        await super().handle_signal(input)


def _fits(handler: "Callable[..., Any]", arguments: "Sequence[Any]") -> bool:
    try:
        inspect.signature(handler).bind(*arguments)
    except TypeError:
        return False
    return True
