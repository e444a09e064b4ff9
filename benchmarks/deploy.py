"""What a durable rollout costs: a Direct deployment on three nodes against a bare workflow with as many no-op activities.

Both run on the same embedded Temporal server, in turn, pair by pair; the ratio is the median of the pairs' ratios.
Run: make bench NAME=deploy
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import httpx
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.worker import Worker

from benchmarks.bare import BareWorkflow, no_op
from benchmarks.figures import figure
from hotswap import temporal
from hotswap.config import load_settings
from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest, DirectConfig, Environment
from hotswap.domain.ids import deployment_workflow_id, new_id
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.embedded.stack import EmbeddedStack
from hotswap.runtime.build import build_plugin, init_plugin

PLUGIN = "bench-echo"
NODES = 3
PAIRS = 15
WARM_UPS = 2


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        stack = EmbeddedStack(Path(scratch) / "stack", NODES, Environment.DEVELOPMENT, progress=_say)
        await stack.start()
        try:
            await measure(stack, Path(scratch))
        finally:
            await stack.stop()


async def measure(stack: EmbeddedStack, scratch: Path) -> None:
    os.environ.update(stack.environment)  # load_settings reads the environment
    settings = load_settings()
    await push_versions(stack, scratch)
    client = await temporal.connect(settings.temporal)
    async with Worker(client, task_queue="bench-bare", workflows=[BareWorkflow], activities=[no_op]):
        deployments, ratios, count = [], [], 0
        for turn in range(WARM_UPS + PAIRS):
            seconds, count = await deploy(client, settings.temporal.task_queue, f"1.0.{turn % 2}")
            bare = await run_bare(client, count)
            if turn >= WARM_UPS:
                deployments.append(seconds)
                ratios.append(seconds / bare)
    against = f"a bare workflow of {count} sequential no-op activities on the same server"
    figure("deploy.ratio_to_bare_workflow", statistics.median(ratios), "ratio", PAIRS, against)
    figure("deploy.direct_seconds_p50", statistics.median(deployments), "s", PAIRS, "")


async def push_versions(stack: EmbeddedStack, scratch: Path) -> None:
    """Two versions of the template plugin, through the api as anybody would."""
    token = next(user["token"] for user in stack.info["users"] if user["user"] == "admin")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"{stack.info['apiUrl']}/api/v1", headers=headers, timeout=30) as api:
        (await api.post("/plugins", json={"name": PLUGIN, "displayName": PLUGIN})).raise_for_status()
        for version in ("1.0.0", "1.0.1"):
            folder = scratch / version
            init_plugin(folder, PLUGIN)
            set_version(folder, version)
            built = build_plugin(folder, scratch / f"{version}.zip")
            with built.path.open("rb") as binary:
                answer = await api.post(
                    f"/plugins/{PLUGIN}/versions", data={"version": version}, files={"binary": binary}
                )
            answer.raise_for_status()


def set_version(folder: Path, version: str) -> None:
    manifest = folder / "plugin.toml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('version = "0.1.0"', f'version = "{version}"'), encoding="utf-8")


async def deploy(client: Client, queue: str, version: str) -> tuple[float, int]:
    """Seconds of one Direct deployment from start to its terminal state, and the activities it ran."""
    request = DeploymentRequest(
        deployment_id=new_id("dep"),
        plugin=PLUGIN,
        version=version,
        environment=Environment.DEVELOPMENT,
        config=DirectConfig(),
        initiated_by="benchmark",
        requested_at=datetime.now(UTC),
    )
    began = time.perf_counter()
    handle = await client.start_workflow(
        "DirectDeployment",
        request,
        id=deployment_workflow_id(request.environment, PLUGIN),
        task_queue=queue,
        result_type=DeploymentProgress,
    )
    progress = await handle.result()
    seconds = time.perf_counter() - began
    if progress.status is not DeploymentStatus.COMPLETED:
        sys.exit(f"the deployment ended {progress.status}: {progress.outcome_reason}")
    history = await handle.fetch_history()
    scheduled = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    return seconds, sum(event.event_type == scheduled for event in history.events)


async def run_bare(client: Client, activities: int) -> float:
    began = time.perf_counter()
    await client.execute_workflow(BareWorkflow.run, activities, id=f"bare-{uuid.uuid4().hex}", task_queue="bench-bare")
    return time.perf_counter() - began


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)  # sdk-python #300: an interpreter that ends right after a worker may abort
