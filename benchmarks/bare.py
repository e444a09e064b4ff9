"""The yardsticks of the other benchmarks: workflows of no-op activities and nothing else."""

import asyncio
from datetime import timedelta

from temporalio import activity, workflow


@activity.defn
async def no_op() -> None:
    """The cheapest activity there is."""


@workflow.defn
class BareWorkflow:
    """As many activities as a deployment has, one after the other, doing nothing."""

    @workflow.run
    async def run(self, activities: int) -> None:
        for _ in range(activities):
            await workflow.execute_activity(no_op, start_to_close_timeout=timedelta(seconds=10))


@workflow.defn
class BareFanOut:
    """A verdict and the orders that follow it, without either: one no-op activity, then one on every queue at once."""

    @workflow.run
    async def run(self, queues: list[str]) -> None:
        await workflow.execute_activity(no_op, start_to_close_timeout=timedelta(seconds=10))
        await asyncio.gather(
            *(
                workflow.execute_activity(no_op, task_queue=queue, start_to_close_timeout=timedelta(seconds=10))
                for queue in queues
            )
        )


@workflow.defn
class BarePaused:
    """As many activities as a deployment has had when it is paused; then it waits. `pause` answers once they are done."""

    def __init__(self) -> None:
        self._done = False
        self._ended = False

    @workflow.run
    async def run(self, activities: int) -> None:
        for _ in range(activities):
            await workflow.execute_activity(no_op, start_to_close_timeout=timedelta(seconds=10))
        self._done = True
        await workflow.wait_condition(lambda: self._ended)

    @workflow.update
    async def pause(self) -> None:
        await workflow.wait_condition(lambda: self._done)

    @workflow.signal
    def end(self) -> None:
        self._ended = True
