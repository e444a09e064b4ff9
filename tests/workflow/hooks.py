"""What happens at the very instant of something: an interceptor that obeys a script before activities and child starts."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

Act = Callable[[], Awaitable[Any]]


class Hooks(Interceptor):
    """`before`: activity -> what is awaited before each of its attempts, one entry an attempt. `at_child_start` is awaited,
    once, inside of the workflow task that starts a child; the task is not answered before it is over."""

    def __init__(self) -> None:
        self.before: dict[str, list[Act]] = {}
        self.at_child_start: Act | None = None
        self._loop = asyncio.get_running_loop()

    def refuse(self, name: str, times: int = 1) -> None:
        """The next attempts of the activity fail in a way that no repeat mends."""

        async def refused() -> None:
            raise ApplicationError("a row that cannot be", type="Refused", non_retryable=True)

        self.before.setdefault(name, []).extend([refused] * times)

    def once(self, name: str, act: Act) -> None:
        self.before.setdefault(name, []).append(act)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Activities(next, self)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        hooks = self

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(_Outbound(outbound, hooks))

        return Inbound

    def hold_task(self) -> None:
        """On the workflow's thread: the test's loop does what was scripted."""
        act, self.at_child_start = self.at_child_start, None
        if act is None or workflow.unsafe.is_replaying():
            return
        over: Future[None] = Future()

        async def run() -> None:
            try:
                over.set_result(await act())
            except Exception as fault:  # noqa: BLE001 - raised on the workflow's thread
                over.set_exception(fault)

        assert threading.current_thread() is not threading.main_thread()
        asyncio.run_coroutine_threadsafe(run(), self._loop)
        over.result(timeout=30)


class _Activities(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, hooks: Hooks) -> None:
        super().__init__(next)
        self._hooks = hooks

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        if script := self._hooks.before.get(activity.info().activity_type):
            await script.pop(0)()
        return await super().execute_activity(input)


class _Outbound(WorkflowOutboundInterceptor):
    def __init__(self, next: WorkflowOutboundInterceptor, hooks: Hooks) -> None:
        super().__init__(next)
        self._hooks = hooks

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:
        self._hooks.hold_task()
        return await super().start_child_workflow(input)
