"""What must hold after every run and at the end, however many parts died: each fault found is a sentence."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowExecutionStatus

from activities.records import AUDITED
from hotswap.domain.deployment import TimelineEvent
from hotswap.domain.errors import Unavailable
from hotswap.domain.lifecycle import TERMINAL
from hotswap.domain.registry import Page
from hotswap.domain.routes import RouteRecord, RouteState
from tests.chaos.scenarios import BROKEN
from tests.e2e.live import ENVIRONMENT, Live, eventually

if TYPE_CHECKING:
    from tests.chaos.lane import Lane, Run

T = TypeVar("T")

READ_WITHIN = 60.0

NODES_FOLLOW_WITHIN = 75.0
"""Seconds for a node that missed an order: back within 10, and SURPLUS_LOOKS of 5 s before it unloads what is nobody's."""


async def check_run(live: Live, lane: "Lane", run: "Run") -> None:
    """The traces of one finished run: status, routes, generations, events, audit."""
    if run.status not in TERMINAL:
        run.faults.append(f"{run.status} is no terminal status")
        return
    if run.status == "Failed":
        run.faults.append("Failed: it needs a person")
    if run.status == "Completed" and run.after == BROKEN:
        run.faults.append("completed with the version that fails every tenant")
    state = await _check_generations(live, lane, run)
    _check_routes(run, state)
    await _check_events(live, run)
    if state.stable is not None:
        lane.serving = state.stable.version


def _check_routes(run: "Run", state: RouteState) -> None:
    serves = state.stable.version if state.stable else None
    expected = run.after if run.status == "Completed" else run.before
    if serves != expected:
        run.faults.append(f"{run.status}, but the routes say {serves} instead of {expected}")
    if state.candidate is not None:
        run.faults.append(f"{run.status}, but {state.candidate.version} is still a candidate in the routes")


async def _check_generations(live: Live, lane: "Lane", run: "Run") -> RouteState:
    """The routes as the run left them: a rollback of it may have begun to write its own."""
    records = await steadily(lambda: _records(live, run.plugin))
    own = [record for record in records if record.deployment_id == run.id]
    generations = [record.generation for record in own]
    if generations != list(range(lane.generation + 1, lane.generation + 1 + len(generations))):
        run.faults.append(f"generations {generations} do not follow {lane.generation}")
    if any(one.state == other.state for one, other in itertools.pairwise(own)):
        run.faults.append("the same route was written twice in a row")
    lane.generation = max(generations, default=lane.generation)
    return next(record.state for record in records if record.generation == lane.generation)


async def _records(live: Live, plugin: str) -> list[RouteRecord]:
    """The last hundred routes of a plugin, oldest first: one run writes at most ten."""
    async with live.database.unit_of_work() as uow:
        newest_first, _ = await uow.routes.history(ENVIRONMENT, plugin, Page(limit=100))
    return list(reversed(newest_first))


async def _check_events(live: Live, run: "Run") -> None:
    await _recorded(live, run)
    events = await steadily(lambda: live.events(run.id))
    if [event.sequence for event in events] != list(range(1, len(events) + 1)):
        run.faults.append(f"event numbers have gaps or repeats: {[event.sequence for event in events]}")
    wanted = Counter(f"deployment.{event.kind}" for event in events if event.kind in AUDITED)
    audited = Counter(entry.event_type for entry in await steadily(lambda: live.audit(run.id)))
    for kind, count in wanted.items():
        if audited[kind] != count:
            run.faults.append(f"{count} events of {kind}, but {audited[kind]} audit entries")
    ends = sum(_is_end(event) for event in events)
    if ends > 1:
        run.faults.append(f"{ends} events say that it ended")


async def _recorded(live: Live, run: "Run") -> None:
    """The api tells the workflow's own word; PostgreSQL's picture follows when PostgreSQL is there."""

    async def ended() -> bool:
        return any(_is_end(event) for event in await steadily(lambda: live.events(run.id)))

    try:
        await eventually(ended, f"the end of {run.id} in the record")
    except AssertionError as fault:
        run.faults.append(str(fault))


def _is_end(event: TimelineEvent) -> bool:
    return event.kind == "status" and event.data.get("to") in TERMINAL


async def check_end(live: Live, client: Client, lanes: Sequence["Lane"]) -> list[str]:
    """After the last kill: nodes follow the routes, the api lists what was accepted, Temporal runs nothing."""
    faults = []
    for lane in lanes:
        faults += await _check_nodes(live, lane)
        listed = (await live.api.deployments(pluginId=lane.plugin, limit=1))["total"]
        accepted = sum(bool(run.id) for run in lane.runs) + 1  # and the one that made the first version serve
        if listed != accepted:
            faults.append(f"{lane.plugin}: {accepted} deployments were accepted, {listed} are listed")
    for run in (run for lane in lanes for run in lane.runs if run.id):
        faults += await _check_workflow(client, run)
    return faults


async def _check_nodes(live: Live, lane: "Lane") -> list[str]:
    record = await live.route(lane.plugin)
    wanted = {ref.version for ref in record.state.versions()}
    seen: list[str] = []

    async def follow() -> bool:
        figures = await live.node_figures(lane.plugin)
        seen[:] = [
            f"{node.node_id}: generation {node.generation}, {[(host.version, host.state) for host in node.hosts]}"
            for node in figures
        ]
        return len(figures) == len(live.stack.info["nodes"]) and all(
            node.generation == record.generation
            and {host.version for host in node.hosts if host.state == "Ready"} == wanted
            for node in figures
        )

    try:
        await eventually(
            follow, f"all nodes at generation {record.generation} with {sorted(wanted)}", within=NODES_FOLLOW_WITHIN
        )
    except AssertionError as fault:
        return [f"{lane.plugin}: {fault}; they say {'; '.join(seen)}"]
    return []


async def _check_workflow(client: Client, run: "Run") -> list[str]:
    """Closed as completed, whatever the rollout's own status; and no task of it ever met code it cannot replay."""
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.run_id)

    async def closed() -> bool:
        return (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING

    await eventually(closed, f"{run.id} is closed in Temporal", within=20)
    faults = []
    status = (await handle.describe()).status
    if status not in (WorkflowExecutionStatus.COMPLETED, WorkflowExecutionStatus.CONTINUED_AS_NEW):
        faults.append(f"{run.id}: its workflow is {status.name if status else 'unknown'}")
    causes = [
        WorkflowTaskFailedCause.Name(event.workflow_task_failed_event_attributes.cause)
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]
    return faults + [f"{run.id}: a workflow task failed: {cause}" for cause in causes if "SHUTDOWN" not in cause]


async def steadily(read: Callable[[], Awaitable[T]]) -> T:
    """Read, and read again while PostgreSQL is away."""
    async with asyncio.timeout(READ_WITHIN):
        while True:
            try:
                return await read()
            except Unavailable:
                await asyncio.sleep(0.2)
