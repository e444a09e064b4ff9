"""A signal without the payload it needs, or with one too many, must not wedge the workflow it was sent to."""

import uuid
from typing import Any

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from workflows.signal_guard import SignalGuard

with workflow.unsafe.imports_passed_through():
    from workflows.messages import Command


@workflow.defn
class Listening:
    def __init__(self) -> None:
        self.heard: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: "bye" in self.heard)
        return self.heard

    @workflow.signal
    def abort(self, command: Command) -> None:
        self.heard.append(command.by)

    @workflow.signal
    def wake(self) -> None:
        self.heard.append("woken")


async def test_a_signal_that_fits_no_handler_is_dropped(temporal_client: Client) -> None:
    queue = f"guarded-{uuid.uuid4().hex}"
    command: Any = {"by": "eve"}
    async with Worker(temporal_client, task_queue=queue, workflows=[Listening], interceptors=[SignalGuard()]):
        handle = await temporal_client.start_workflow(Listening.run, id=queue, task_queue=queue)
        await handle.signal("abort")
        await handle.signal("abort", args=[command, command])
        await handle.signal("abort", "no command")
        await handle.signal("wake")
        await handle.signal("abort", {"by": "bye"})
        assert await handle.result() == ["woken", "bye"]
