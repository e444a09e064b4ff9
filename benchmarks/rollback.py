"""How soon every node serves the old version again once a verdict has failed: canaries and blue-green on ten real nodes.

A version that fails every tenant is rolled out under traffic until its verdict fails. Both ends of the time are events of
the workflow's history: the failing judge_version completed, the last node's apply_routes of the old routes completed.
A blue-green deployment that has completed is taken back by a person too, from the api's being asked.
The traffic checks it: nothing sent after that acknowledgement may be answered by the new version. Each rollback is
followed by a bare fan-out to ten queues on the same server, so that the ratio says what the machine cannot.
Run: make bench NAME=rollback; with ARGS=10 only so many rollbacks
"""

import asyncio
import itertools
import math
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from benchmarks.bare import BareFanOut, no_op
from benchmarks.figures import figure
from hotswap import temporal
from hotswap.demo.lines import Node
from hotswap.domain.analysis import InconclusivePolicy, Thresholds
from hotswap.domain.deployment import (
    BlueGreenConfig,
    CanaryConfig,
    DeploymentProgress,
    DeploymentRequest,
    DirectConfig,
    Environment,
    StrategyConfig,
)
from hotswap.domain.ids import deployment_workflow_id, new_id
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.embedded.stack import EmbeddedStack
from hotswap.routing.decide import in_cohort
from tests.chaos.lane import ANSWER
from tests.e2e.live import Live, live_settings
from workflows.messages import WORKFLOW_OF_STRATEGY

NODES = 10
ROLLBACKS = 50
BLUE_GREENS = 12
COMMANDS = 6
OLD, GOOD, NEW = "1.0.0", "1.1.0", "2.0.0"
BUDGET = 95.0
"""Seconds of measuring: on a machine so busy that 50 take longer there are fewer, and `n` says so."""

EVERY = 0.05
"""Seconds between two requests to a node: 200 requests a second in all."""

INTERVAL = timedelta(milliseconds=200)
THRESHOLDS = Thresholds(min_sample=10)

CANARY = CanaryConfig(
    steps=(50, 100),
    evaluation_period=timedelta(seconds=20),
    evaluation_interval=INTERVAL,
    thresholds=THRESHOLDS,
    drain_grace=timedelta(seconds=1),
)
BLUE_GREEN = BlueGreenConfig(
    warmup_period=timedelta(0),
    monitoring_period=timedelta(seconds=10),  # looked at ten times, so once a second
    thresholds=THRESHOLDS,
    drain_grace=timedelta(seconds=1),
)
GOOD_BLUE_GREEN = BLUE_GREEN.model_copy(
    update={"monitoring_period": timedelta(milliseconds=500), "on_inconclusive": InconclusivePolicy.CONTINUE}
)


@dataclass(frozen=True)
class Answer:
    """One request to a node: Unix seconds, and the version that answered."""

    node: int
    sent: float
    received: float
    version: str


@dataclass(frozen=True)
class Rollback:
    """Unix seconds: when the verdict had failed (or a person asked), when the last node acknowledged, when traffic saw
    every node back."""

    began: float
    acknowledged: float
    seen: float
    late: int
    """Requests that were sent after the last acknowledgement and answered by the new version all the same."""

    @property
    def seconds(self) -> float:
        return self.acknowledged - self.began


class CohortTraffic:
    """A request to every node each 50 ms, for tenants that are the first to get the new version."""

    def __init__(self, live: Live, plugin: str) -> None:
        urls = [node["routerUrl"] for node in live.stack.info["nodes"]]
        self._nodes = [Node(url, live.stack.info["tenantToken"]) for url in urls]
        names = (f"tenant-{number}" for number in itertools.count())
        cohort = (name for name in names if in_cohort(f"{plugin}:{NEW}", name, 5_000))
        self._paths = [f"/invoke/{name}/{plugin}/greet" for name in itertools.islice(cohort, 50)]
        self.answers: list[Answer] = []

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._ask(index)) for index in range(len(self._nodes))]
            try:
                yield
            finally:
                for task in asking:
                    task.cancel()
        for node in self._nodes:
            await node.close()

    async def _ask(self, index: int) -> None:
        await asyncio.sleep(EVERY * index / len(self._nodes))
        for path in itertools.cycle(self._paths):
            sent = time.time()
            answer = await self._nodes[index].post(path, b'{"name": "Ada"}', timeout=10)
            self.answers.append(Answer(index, sent, time.time(), answer.headers.get("x-hotswap-version", "")))
            await asyncio.sleep(max(0.0, sent + EVERY - time.time()))

    def seen_back(self, taken_back: str) -> float:
        """When the last node gave its first old answer after its last one of the version that was taken back."""
        moments = []
        for index in range(len(self._nodes)):
            mine = [answer for answer in self.answers if answer.node == index]
            last_new = max((answer.sent for answer in mine if answer.version == taken_back), default=0.0)
            moments += [min(answer.received for answer in mine if answer.version == OLD and answer.sent > last_new)]
        return max(moments)

    def late(self, taken_back: str, acknowledged: float) -> int:
        return sum(answer.version == taken_back and answer.sent > acknowledged for answer in self.answers)


async def main(rollbacks: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        stack = EmbeddedStack(Path(scratch) / "stack", NODES, Environment.DEVELOPMENT, progress=_say)
        await stack.start()
        try:
            settings = live_settings(stack, os.environ.__setitem__)
            async with Live(stack, Path(scratch), settings) as live:
                await measure(live, await temporal.connect(settings.temporal), rollbacks)
        finally:
            await stack.stop()


async def measure(live: Live, client: Client, rollbacks: int) -> None:
    plugin = await live.new_plugin(OLD, GOOD, NEW, code=failing_for_tenants)
    await deploy(live, client, plugin, OLD, DirectConfig())
    traffic = CohortTraffic(live, plugin)
    canaries: list[Rollback] = []
    blue_greens: list[Rollback] = []
    commanded: list[Rollback] = []
    bare: list[float] = []
    async with traffic.flowing(), bare_nodes(client) as queues:
        await roll_back(live, client, plugin, CANARY, traffic)  # warm: every node has fetched and unpacked both bundles
        await switch_back(live, client, plugin, traffic)
        await fan_out(client, queues)
        deadline = time.monotonic() + BUDGET
        for turn in range(rollbacks):
            if time.monotonic() > deadline and canaries and blue_greens and commanded:
                break
            canaries.append(await roll_back(live, client, plugin, CANARY, traffic))
            bare.append(await fan_out(client, queues))
            if spread(BLUE_GREENS, turn, rollbacks):
                blue_greens.append(await roll_back(live, client, plugin, BLUE_GREEN, traffic))
            if spread(COMMANDS, turn, rollbacks):
                commanded.append(await switch_back(live, client, plugin, traffic))
            _say(f"{turn + 1}/{rollbacks}: {canaries[-1].seconds * 1000:.0f} ms, bare {bare[-1] * 1000:.0f} ms")
    tell(canaries, blue_greens, commanded, bare)


def spread(times: int, turn: int, turns: int) -> bool:
    """Whether it is the turn for one of `times` things that are spread evenly over all turns."""
    return turn * times // turns < (turn + 1) * times // turns


def tell(
    canaries: Sequence[Rollback], blue_greens: Sequence[Rollback], commanded: Sequence[Rollback], bare: Sequence[float]
) -> None:
    seconds = [one.seconds for one in canaries]
    switched = [one.seconds for one in blue_greens]
    asked = [one.seconds for one in commanded]
    seen = [one.seen - one.began for one in canaries]
    against = f"a bare workflow: one no-op activity, then one on each of {NODES} queues at once, on the same server"
    ratio = statistics.median(one / other for one, other in zip(seconds, bare, strict=True))
    figure("rollback.seconds_p50", statistics.median(seconds), "s", len(seconds), "")
    figure("rollback.seconds_p99", percentile(seconds, 0.99), "s", len(seconds), "")
    figure("rollback.seen_by_traffic_seconds_p50", statistics.median(seen), "s", len(seen), "")
    figure("rollback.ratio_to_bare_fan_out", ratio, "ratio", len(seconds), against)
    figure("rollback.blue_green_seconds_p50", statistics.median(switched), "s", len(switched), "")
    figure("rollback.blue_green_seconds_p99", percentile(switched, 0.99), "s", len(switched), "")
    figure("rollback.blue_green_by_command_seconds_p50", statistics.median(asked), "s", len(asked), "")
    figure("rollback.blue_green_by_command_seconds_p99", percentile(asked, 0.99), "s", len(asked), "")
    every = (*canaries, *blue_greens, *commanded)
    late = sum(one.late for one in every)
    figure("rollback.late_answers", late, "requests", len(every), "")
    if late:
        sys.exit(f"{late} requests were answered by the new version after every node had acknowledged the old routes")


async def roll_back(
    live: Live, client: Client, plugin: str, config: StrategyConfig, traffic: CohortTraffic
) -> Rollback:
    """Roll the failing version out and have it taken back; what both witnesses saw."""
    traffic.answers.clear()
    handle, progress = await deploy(live, client, plugin, NEW, config)
    if progress.status is not DeploymentStatus.ROLLED_BACK:
        sys.exit(f"the deployment ended {progress.status} instead of RolledBack: {progress.outcome_reason}")
    failed, acknowledged = ends_of_undo([event async for event in handle.fetch_history_events()])
    return Rollback(failed, acknowledged, traffic.seen_back(NEW), traffic.late(NEW, acknowledged))


async def switch_back(live: Live, client: Client, plugin: str, traffic: CohortTraffic) -> Rollback:
    """A good version is in place, the old colour warm; a person asks the api to go back."""
    _, progress = await deploy(live, client, plugin, GOOD, GOOD_BLUE_GREEN)
    if progress.status is not DeploymentStatus.COMPLETED:
        sys.exit(f"the deployment ended {progress.status} instead of Completed: {progress.outcome_reason}")
    traffic.answers.clear()
    asked = time.time()
    await live.api.command(progress.deployment_id, "rollback", "the benchmark asks", "")
    handle = client.get_workflow_handle(deployment_workflow_id(Environment.DEVELOPMENT, plugin))
    await handle.result()
    _, acknowledged = ends_of_undo([event async for event in handle.fetch_history_events()])
    return Rollback(asked, acknowledged, traffic.seen_back(GOOD), traffic.late(GOOD, acknowledged))


def ends_of_undo(history: Iterable[HistoryEvent]) -> tuple[float, float]:
    """When the last verdict completed, and when the last node acknowledged the routes that followed it."""
    names: dict[int, str] = {}
    judged = applied = 0.0
    for event in history:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            names[event.event_id] = event.activity_task_scheduled_event_attributes.activity_type.name
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            name = names[event.activity_task_completed_event_attributes.scheduled_event_id]
            judged = _unix(event) if name == "judge_version" else judged
            applied = _unix(event) if name == "apply_routes" else applied
    if applied <= judged:
        sys.exit("the history has no apply_routes after its last verdict")
    return judged, applied


async def deploy(
    live: Live, client: Client, plugin: str, version: str, config: StrategyConfig
) -> tuple[WorkflowHandle[object, DeploymentProgress], DeploymentProgress]:
    request = DeploymentRequest(
        deployment_id=new_id("dep"),
        plugin=plugin,
        version=version,
        environment=Environment.DEVELOPMENT,
        config=config,
        initiated_by="benchmark",
        requested_at=datetime.now(UTC),
    )
    handle: WorkflowHandle[object, DeploymentProgress] = await client.start_workflow(
        WORKFLOW_OF_STRATEGY[request.strategy],
        request,
        id=deployment_workflow_id(request.environment, plugin),
        task_queue=live.settings.temporal.task_queue,
        result_type=DeploymentProgress,
    )
    return handle, await handle.result()


@asynccontextmanager
async def bare_nodes(client: Client) -> AsyncIterator[list[str]]:
    """Queues with a worker each, as the nodes have, and a worker for the bare workflow."""
    queues = [f"bench-node-{number}" for number in range(NODES)]
    async with AsyncExitStack() as workers:
        for queue in queues:
            await workers.enter_async_context(Worker(client, task_queue=queue, activities=[no_op]))
        await workers.enter_async_context(
            Worker(client, task_queue="bench-bare", workflows=[BareFanOut], activities=[no_op])
        )
        yield queues


async def fan_out(client: Client, queues: list[str]) -> float:
    """Seconds from the end of the first activity until the last queue's has completed."""
    handle = await client.start_workflow(BareFanOut.run, queues, id=f"bare-{uuid.uuid4().hex}", task_queue="bench-bare")
    await handle.result()
    completed = EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
    moments = [_unix(event) async for event in handle.fetch_history_events() if event.event_type == completed]
    return max(moments) - min(moments)


def failing_for_tenants(source: str) -> str:
    """The template's plugin, failing for every tenant but the trial's."""
    return source.replace(
        ANSWER, f'if context.tenant.startswith("tenant-"):\n            raise ValueError("bad")\n        {ANSWER}'
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def _unix(event: HistoryEvent) -> float:
    return event.event_time.seconds + event.event_time.nanos / 1e9


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROLLBACKS))
    sys.stdout.flush()
    os._exit(0)  # sdk-python #300: an interpreter that ends right after a worker may abort
