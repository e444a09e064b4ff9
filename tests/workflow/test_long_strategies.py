"""Strategies that last: an A/B test of three days, and a rolling deployment's deadline, with time skipped."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from hotswap.domain.analysis import Thresholds
from hotswap.domain.deployment import DeploymentProgress
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import NodeRecord
from hotswap.ports.metrics import Readings
from hotswap.ports.node_runtime import NodeReport
from tests.workflow.skipping import skip
from tests.workflow.strategies import FallsSick, ab_test, rolling
from tests.workflow.world import Arm, ScriptedFigures, World, send, until
from workflows import gates

DAYS_3 = timedelta(days=3)


async def runs(world: World, handle: WorkflowHandle[Any, Any]) -> list[int]:
    """Events of every run of a deployment, first to last."""
    lengths, run_id = [], handle.first_execution_run_id
    while run_id:
        history = await world.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
        lengths.append(len(history.events))
        last = history.events[-1]
        continued = last.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
        run_id = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id if continued else ""
    return lengths


@pytest.mark.parametrize(
    ("looks_every", "limit"),
    [
        pytest.param(timedelta(minutes=15), 2_000, id="by-a-lower-limit"),
        pytest.param(timedelta(minutes=5), gates.HISTORY_LIMIT, id="as-it-is", marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(240)
async def test_a_test_of_three_days_keeps_every_history_small_and_adds_up_its_chapters(
    skipping: World, monkeypatch: pytest.MonkeyPatch, looks_every: timedelta, limit: int
) -> None:
    monkeypatch.setattr(gates, "HISTORY_LIMIT", limit)
    skipping.figures.arms = {"1.0.0": Arm(requests=100, errors=2), "2.0.0": Arm(requests=100, errors=1)}
    async with skipping.working():
        await skipping.serve_first_version()
        config = ab_test(test_duration=DAYS_3, evaluation_interval=looks_every, auto_promote=True)
        handle = await skipping.start(skipping.request(config))
        progress = await handle.result()
        lengths = await runs(skipping, handle)
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert progress.started_at is not None
    assert progress.finished_at is not None
    assert progress.finished_at - progress.started_at >= DAYS_3
    assert progress.experiment is not None
    evidence = progress.experiment.metrics[0]
    # Two nodes say 100 requests at every look, so each of the 72 chapters (give or take their ends) adds 200.
    assert 68 * 200 <= evidence.b_n <= 73 * 200
    assert evidence.a_estimate == pytest.approx(0.02)
    assert len(lengths) >= 2, "it never continued as new"
    assert max(lengths) < 1.25 * limit, lengths  # 10,000 as it is


@pytest.mark.timeout(240)
async def test_no_command_is_lost_while_a_test_continues_as_new(
    skipping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "HISTORY_LIMIT", 120)
    people = [f"person-{number:02}" for number in range(12)]
    async with skipping.working():
        await skipping.serve_first_version()
        request = skipping.request(ab_test(test_duration=DAYS_3, evaluation_interval=timedelta(minutes=10)))
        handle = await skipping.start(request)
        await until(handle, lambda p: p.step_title.startswith("compare"))
        for person in people:
            await send(handle, "pause", by=person)
            await send(handle, "resume", by=person)
            await skip(skipping, timedelta(hours=2))
        await send(handle, "pause", by="last")
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        await send(handle, "abort", by="last", reason="seen enough")
        progress: DeploymentProgress = await handle.result()
        lengths = await runs(skipping, handle)
        async with skipping.records.unit_of_work() as uow:
            events = await uow.deployments.events(request.deployment_id)
    assert progress.status is DeploymentStatus.ABORTED
    assert len(lengths) >= 3, lengths
    said = [event.message for event in events if event.kind == "command"]
    for person in people:
        assert [line.split(f" by {person}")[0] for line in said if f" by {person}" in line] == [
            "pause ordered",
            "resumed",
        ]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert all(node.loaded == {"1.0.0"} for node in skipping.nodes)


class TurnsBad(ScriptedFigures):
    """100 requests an hour on each version and node; after `bad_after` every one of the new version fails."""

    def __init__(self, bad_after: timedelta) -> None:
        super().__init__()
        self._bad_after = bad_after
        self._began: datetime | None = None

    async def read(self, nodes: Sequence[NodeRecord], plugin: str, since: datetime) -> Readings:
        now = activity.info().scheduled_time  # of the server, whose clock jumps
        self._began = self._began or since
        window, bad = now - since, now - max(since, self._began + self._bad_after)
        hourly = timedelta(hours=1) / 100
        requests = max(window // hourly, 0)
        self.arms = {"1.0.0": Arm(requests), "2.0.0": Arm(requests, errors=min(max(bad // hourly, 0), requests))}
        return await super().read(nodes, plugin, since)


async def test_a_version_that_turns_bad_on_the_third_day_is_seen_within_the_hour(skipping: World) -> None:
    """Guards look at the present chapter: two good days do not hide it."""
    hosts = skipping.figures.hosts
    skipping.figures = TurnsBad(timedelta(hours=60))
    skipping.figures.hosts = hosts
    async with skipping.working():
        await skipping.serve_first_version()
        alone = Thresholds(max_error_rate_increase=0.9)  # so that only the limit of 5 % can find it
        config = ab_test(test_duration=DAYS_3, evaluation_interval=timedelta(minutes=10), thresholds=alone)
        progress = await skipping.deploy(skipping.request(config))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "the verdict failed at 50 %" in progress.outcome_reason
    assert progress.started_at is not None
    assert progress.rolled_back_at is not None
    assert timedelta(hours=60) < progress.rolled_back_at - progress.started_at < timedelta(hours=61)


async def test_no_progress_within_the_deadline_undoes_the_batch(skipping: World) -> None:
    skipping.nodes[1] = FallsSick(skipping.nodes[1].node_id)
    async with skipping.working():
        await skipping.serve_first_version()
        progress = await skipping.deploy(skipping.request(rolling(health_check_timeout=timedelta(hours=2))))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "batch 2 made no progress within 0:10:00" in progress.outcome_reason
    assert f"{skipping.nodes[1].node_id} finds 2.0.0 Unhealthy" in progress.outcome_reason
    assert all(node.loaded == {"1.0.0"} for node in skipping.nodes)


async def test_a_pause_of_an_hour_does_not_eat_the_progress_deadline(skipping: World) -> None:
    sick = skipping.nodes[1] = FallsSick(skipping.nodes[1].node_id)
    async with skipping.working():
        await skipping.serve_first_version()
        handle = await skipping.start(skipping.request(rolling(health_check_timeout=timedelta(minutes=9))))
        await until(handle, lambda p: p.waiting_for.startswith("health: "))
        await send(handle, "pause")
        paused = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        before = sick.probes
        await skip(skipping, timedelta(hours=1))
        still = await until(handle, lambda p: True)
        assert (still.status, still.set_weight_percent) == (DeploymentStatus.PAUSED, paused.set_weight_percent)
        assert sick.probes == before
        sick.sick = False
        await send(handle, "resume")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert progress.started_at is not None
    assert progress.finished_at is not None
    assert progress.finished_at - progress.started_at > timedelta(hours=1)


async def test_watching_between_batches_does_not_eat_the_progress_deadline(skipping: World) -> None:
    async with skipping.working():
        await skipping.serve_first_version()
        progress = await skipping.deploy(skipping.request(rolling(wait_between_batches=timedelta(minutes=30))))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert progress.started_at is not None
    assert progress.finished_at is not None
    assert progress.finished_at - progress.started_at >= timedelta(hours=1)


async def test_a_hung_switch_ends_with_the_deadline(skipping: World) -> None:
    class Hangs(type(skipping.nodes[1])):  # type: ignore[misc]
        async def apply(self, order: Any) -> NodeReport:
            if order.state.switched_nodes:
                await asyncio.sleep(3600)
            return await super().apply(order)

    skipping.nodes[1].__class__ = Hangs
    async with skipping.working():
        await skipping.serve_first_version()
        progress = await skipping.deploy(skipping.request(rolling(progress_deadline=timedelta(seconds=5))))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "batch 2 made no progress within 0:00:05" in progress.outcome_reason
    assert all(node.loaded == {"1.0.0"} for node in skipping.nodes)


@pytest.mark.timeout(240)
async def test_rolling_continues_as_new_between_batches_and_forgets_none(
    skipping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "HISTORY_LIMIT", 100)
    async with skipping.working():
        await skipping.serve_first_version()
        config = rolling(wait_between_batches=timedelta(minutes=30))
        handle = await skipping.start(skipping.request(config))
        progress = await handle.result()
        lengths = await runs(skipping, handle)
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert len(lengths) >= 2, lengths
    switched = [order.state.switched_nodes for what, order in skipping.nodes[1].orders if order.state.switched_nodes]
    assert switched == [tuple(skipping.node_ids)]
