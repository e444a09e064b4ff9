"""`python -m tests.deploy.sdk_metrics ADDRESS NAMESPACE`: what a worker's Temporal SDK serves once it has seen one of each.

A process of its own: a runtime with metrics must be made before any other. Prints the page.
"""

import asyncio
import os
import socket
import sys
import urllib.request
import uuid
from contextlib import suppress
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from hotswap.temporal import runtime_with_metrics


@activity.defn
async def work(how: str) -> None:
    if how == "fail":
        raise ApplicationError("as asked", non_retryable=True)


@workflow.defn
class OneOfEach:
    @workflow.run
    async def run(self, how: str) -> None:
        if how == "bug":
            raise RuntimeError("a workflow task that fails and is tried again")
        if how == "again":
            workflow.continue_as_new("end")
        await workflow.execute_activity(
            work, how, start_to_close_timeout=timedelta(seconds=30), retry_policy=RetryPolicy(maximum_attempts=1)
        )


async def page(address: str, namespace: str) -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        served = f"127.0.0.1:{probe.getsockname()[1]}"
    client = await Client.connect(address, namespace=namespace, runtime=runtime_with_metrics(served))
    queue = f"metrics-{uuid.uuid4().hex[:8]}"
    async with Worker(
        client,
        task_queue=queue,
        workflows=[OneOfEach],
        activities=[work],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=1,
    ):
        for how in ("end", "again", "fail"):
            with suppress(WorkflowFailureError):
                await client.execute_workflow(OneOfEach.run, how, id=f"{queue}-{how}", task_queue=queue)
        with suppress(RPCError):
            await client.get_workflow_handle(f"{queue}-nobody").describe()
        stuck = await client.start_workflow(OneOfEach.run, "bug", id=f"{queue}-bug", task_queue=queue)
        text = ""
        while "temporal_workflow_task_execution_failed" not in text:
            await asyncio.sleep(0.1)
            text = await asyncio.to_thread(_read, f"http://{served}/metrics")
        await stuck.terminate("seen")
    return text


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    print(asyncio.run(page(*sys.argv[1:])))
    sys.stdout.flush()
    os._exit(0)  # an ordinary exit right after a Temporal worker aborts in a third of runs (sdk-python #300)
