"""A world whose clock jumps to the next timer whenever everybody waits: real durations of days in milliseconds."""

import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from temporalio import workflow
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from hotswap import temporal
from tests.workflow.world import World

NAPS = "naps"


@workflow.defn(name="Nap", sandboxed=False)
class Nap:
    @workflow.run
    async def run(self, duration: timedelta) -> None:
        await workflow.sleep(duration)


async def skip(world: World, duration: timedelta) -> None:
    """Let the clock jump, past every timer on its way (the server's own sleep call hangs at times)."""
    await world.client.execute_workflow(Nap.run, duration, id=f"nap-{uuid.uuid4().hex}", task_queue=NAPS)


@asynccontextmanager
async def skipping_world(tmp_path: Path) -> AsyncIterator[World]:
    server = str(Path(sys.executable).with_name("temporal-test-server"))
    async with await WorkflowEnvironment.start_time_skipping(
        data_converter=pydantic_data_converter, test_server_existing_path=server
    ) as environment:
        await temporal.add_search_attributes(environment.client, [key.name for key in temporal.SEARCH_ATTRIBUTES])
        made = World(environment.client, tmp_path)
        await made.fill()
        async with Worker(environment.client, task_queue=NAPS, workflows=[Nap]):
            yield made
