"""Many deployments at once: thousands paused and a hundred running on one embedded stack, and what they cost the worker.

The paused ones wait where a person stopped them before any tenant was touched (every plugin in four environments, as a
place takes one deployment at a time); the running ones are real canaries with a host each. While both stand, the
worker's memory is read; then the running ones must complete, and every paused one must obey an abort.
Run: make bench NAME=scale (500 paused, two minutes); with ARGS=2000 the whole of it (seven minutes on two busy cores).
"""

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.worker import Worker

from benchmarks.bare import BarePaused, no_op
from benchmarks.figures import figure
from hotswap import temporal
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.analysis import InconclusivePolicy
from hotswap.domain.deployment import CanaryConfig, DeploymentProgress, DeploymentRequest, Environment, Role
from hotswap.domain.ids import deployment_workflow_id, new_id
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.embedded.stack import EmbeddedStack
from tests.e2e.live import Live, live_settings
from workflows import launch
from workflows.messages import WORKFLOW_OF_STRATEGY, Command, CommandResult

T = TypeVar("T")
R = TypeVar("R")

PAUSED = 500
RUNNING = 100
AT_ONCE = 16
"""Requests of this benchmark under way: enough to keep the worker busy, few enough to leave it the machine."""

BARE = 200
"""Bare workflows for the ratio of starts."""

BARE_QUEUE = "bench-bare"

SETTLE = 3.0
"""Seconds before memory is read, so that what was under way is done."""

PAUSES = CanaryConfig(steps=(10, 100), drain_grace=timedelta(seconds=1))
RUNS = CanaryConfig(
    steps=(100,),
    evaluation_period=timedelta(seconds=30),
    evaluation_interval=timedelta(seconds=10),
    on_inconclusive=InconclusivePolicy.CONTINUE,
    drain_grace=timedelta(seconds=1),
)
BY = {"by": "benchmark", "roles": (Role.ADMIN,)}


async def main(paused: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        stack = EmbeddedStack(Path(scratch) / "stack", nodes=1, environment=Environment.DEVELOPMENT, progress=_say)
        await stack.start()
        try:
            settings = live_settings(stack, os.environ.__setitem__)
            async with Live(stack, Path(scratch), settings) as live:
                await Scale(live, await temporal.connect(settings.temporal)).measure(paused)
        finally:
            await stack.stop()


class Scale:
    def __init__(self, live: Live, client: Client) -> None:
        self._live = live
        self._client = client
        self._worker_pid = live.stack.pid("worker")

    async def measure(self, paused: int) -> None:
        environments = list(Environment)
        plugins = await in_turn(range(-(-paused // len(environments))), lambda _: self._live.new_plugin("1.0.0"))
        places = [(plugin, environment) for plugin in plugins for environment in environments][:paused]
        runners = await in_turn(range(RUNNING), lambda _: self._live.new_plugin("1.0.0"))
        _say(f"{len(plugins) + len(runners)} plugins are registered")

        warm = await in_turn(places[:AT_ONCE], lambda place: self._paused(*place))
        before = self._worker_memory()
        began = time.perf_counter()
        handles = await in_turn(places[AT_ONCE:], lambda place: self._paused(*place))
        starting = (time.perf_counter() - began) / len(handles)
        activities = await self._activities(handles[0])
        _say(f"{paused} are paused after {activities} activities each, {starting * 1000:.0f} ms for one")
        await asyncio.sleep(SETTLE)
        standing = self._worker_memory()
        bare = await self._bare(activities)
        _say(f"{BARE} bare workflows took {bare * 1000:.0f} ms each")

        running = await in_turn(runners, lambda plugin: self._start(plugin, Environment.DEVELOPMENT, RUNS))
        most = await self._most_at_once(paused)
        _all(DeploymentStatus.COMPLETED, await asyncio.gather(*(handle.result() for handle in running)))
        _say(f"{len(running)} have completed beside {paused} paused ones")
        in_the_end = self._worker_memory()
        _all(DeploymentStatus.ABORTED, await in_turn([*warm, *handles], self._aborted))
        _say(f"{paused} paused ones have obeyed an abort")

        against = f"bare workflows that run {activities} no-op activities and wait, started and asked in the same way"
        figure("scale.paused_at_once", paused, "deployments", paused, "")
        figure("scale.running_at_once", most, "deployments", RUNNING, f"beside {paused} paused ones")
        figure("scale.worker_bytes_per_paused_deployment", (standing - before) / len(handles), "bytes", paused, "")
        figure("scale.worker_growth_by_running", in_the_end / standing - 1, "share", RUNNING, "memory before they ran")
        figure("scale.worker_mib", in_the_end / 2**20, "MiB", paused, "")
        figure("scale.starts_per_second", 1 / starting, "deployments/s", paused, "")
        figure("scale.starts_ratio_to_bare_workflow", starting / bare, "ratio", paused, against)

    async def _start(self, plugin: str, environment: Environment, config: CanaryConfig) -> WorkflowHandle[Any, Any]:
        """As the facade does."""
        request = DeploymentRequest(
            deployment_id=new_id("dep"),
            plugin=plugin,
            version="1.0.0",
            environment=environment,
            config=config,
            initiated_by="benchmark",
            requested_at=datetime.now(UTC),
        )
        return await self._client.start_workflow(
            WORKFLOW_OF_STRATEGY[request.strategy],
            request,
            id=deployment_workflow_id(environment, plugin),
            task_queue=self._live.settings.temporal.task_queue,
            result_type=DeploymentProgress,
            search_attributes=launch.search_attributes(request),
            static_summary=launch.summary(request),
        )

    async def _paused(self, plugin: str, environment: Environment) -> WorkflowHandle[Any, Any]:
        handle = await self._start(plugin, environment, PAUSES)
        while True:
            try:
                await handle.execute_update("pause", Command(**BY), result_type=CommandResult)
                return handle
            except WorkflowUpdateFailedError:  # it has not begun yet
                await asyncio.sleep(0.01)

    async def _aborted(self, handle: WorkflowHandle[Any, Any]) -> DeploymentProgress:
        await handle.execute_update("abort", Command(reason="the benchmark ends", **BY), result_type=CommandResult)
        progress: DeploymentProgress = await handle.result()
        return progress

    async def _most_at_once(self, paused: int) -> int:
        """The most that Temporal lists as in progress beside all the paused ones, looked at until all run or one ends."""
        most = 0
        async with asyncio.timeout(120):
            while most < RUNNING:
                most = max(most, await self._count(DeploymentStatus.IN_PROGRESS))
                await asyncio.sleep(0.2)
        held = await self._count(DeploymentStatus.PAUSED)
        if held != paused:
            sys.exit(f"{held} deployments are paused instead of {paused}")
        return most

    async def _count(self, status: DeploymentStatus) -> int:
        query = f'ExecutionStatus = "Running" AND HotSwapStatus = "{status}"'
        return (await self._client.count_workflows(query)).count

    async def _activities(self, handle: WorkflowHandle[Any, Any]) -> int:
        scheduled = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        return sum([event.event_type == scheduled async for event in handle.fetch_history_events()])

    async def _bare(self, activities: int) -> float:
        """Seconds for one bare workflow, many started in the same way."""

        async def one(number: int) -> None:
            handle = await self._client.start_workflow(
                BarePaused.run, activities, id=f"bare-{uuid.uuid4().hex}", task_queue=BARE_QUEUE
            )
            await handle.execute_update(BarePaused.pause)
            await handle.signal(BarePaused.end)

        async with bare_worker(self._live.settings.temporal):
            await in_turn(range(AT_ONCE), one)
            began = time.perf_counter()
            await in_turn(range(BARE), one)
            return (time.perf_counter() - began) / BARE

    def _worker_memory(self) -> int:
        """Bytes that are the worker's alone."""
        if self._live.stack.pid("worker") != self._worker_pid:
            sys.exit("the worker has died under the load")
        lines = Path(f"/proc/{self._worker_pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


@asynccontextmanager
async def bare_worker(settings: TemporalSettings) -> AsyncIterator[None]:
    """A process of its own, as the worker is."""
    process = multiprocessing.get_context("spawn").Process(target=_serve_bare, args=(settings,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        await asyncio.to_thread(process.join)


def _serve_bare(settings: TemporalSettings) -> None:
    async def serve() -> None:
        client = await temporal.connect(settings)
        await Worker(client, task_queue=BARE_QUEUE, workflows=[BarePaused], activities=[no_op]).run()

    asyncio.run(serve())


async def in_turn(items: Iterable[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """All of them, AT_ONCE at a time, results in order."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> R:
        async with places:
            return await work(item)

    return await asyncio.gather(*(one(item) for item in items))


def _all(wanted: DeploymentStatus, ended: Sequence[DeploymentProgress]) -> None:
    others = [one for one in ended if one.status is not wanted]
    if others:
        sys.exit(f"{len(others)} ended otherwise than {wanted}: {others[0].status}, {others[0].outcome_reason}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PAUSED))
    sys.stdout.flush()
    os._exit(0)  # sdk-python #300: an interpreter that ends right after a worker may abort
