"""`python -m tests.deploy.sdk_metrics ADDRESS NAMESPACE`: what a worker serves once it has seen one of each, the SDK's and ours.

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

from hotswap.adapters.memory.records import MemoryRecords
from hotswap.domain.deployment import CanaryConfig, DeploymentRequest, Environment
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.standing_figures import StandingFigures
from hotswap.temporal import make_runtime
from workflows.counting import HISTOGRAM_LIMITS, announce, count_ending
from workflows.state import DeploymentState


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
        if how == "end":
            count_ending(_ended(), workflow.now())
        await workflow.execute_activity(
            work, how, start_to_close_timeout=timedelta(seconds=30), retry_policy=RetryPolicy(maximum_attempts=1)
        )


def _ended() -> DeploymentState:
    """A rollout that was undone, and could not be."""
    now = workflow.now()
    request = DeploymentRequest(
        deployment_id="dep_1",
        plugin="invoice",
        version="2.0.0",
        environment=Environment.PRODUCTION,
        config=CanaryConfig(),
        initiated_by="dana",
        requested_at=now,
    )
    times = {"started_at": now, "finished_at": now, "rolled_back_at": now}
    return DeploymentState(request=request, status=DeploymentStatus.FAILED, **times)


async def page(address: str, namespace: str) -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        served = f"127.0.0.1:{probe.getsockname()[1]}"
    runtime = make_runtime(served, HISTOGRAM_LIMITS)
    client = await Client.connect(address, namespace=namespace, runtime=runtime)
    announce(runtime.metric_meter, namespace, "hotswap")
    await StandingFigures(MemoryRecords().unit_of_work, runtime.metric_meter).look()
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
