"""Waits of hours and days, with time skipped: real durations, expiry, and histories that stay small."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from hotswap.domain.deployment import CanaryConfig, Environment
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import NodeRecord
from hotswap.ports.metrics import Readings
from tests.workflow.skipping import skip
from tests.workflow.world import Arm, World, canary, direct, send, until
from workflows import gates


async def test_default_canary_takes_forty_minutes_and_ends_completed(skipping: World) -> None:
    async with skipping.working():
        await skipping.serve_first_version()
        progress = await skipping.deploy(skipping.request(CanaryConfig()))
    assert progress.status is DeploymentStatus.COMPLETED
    assert progress.started_at is not None
    assert progress.finished_at is not None
    assert timedelta(minutes=40) <= progress.finished_at - progress.started_at < timedelta(minutes=45)


async def test_nobody_approving_for_two_days_ends_rejected(skipping: World) -> None:
    async with skipping.working():
        progress = await skipping.deploy(skipping.request(direct(), environment=Environment.STAGING))
    assert progress.status is DeploymentStatus.REJECTED
    assert "nobody approved within 2 days" in progress.outcome_reason
    assert all(not node.orders for node in skipping.nodes)


async def test_long_rollout_continues_as_new_and_forgets_nothing(
    skipping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "HISTORY_LIMIT", 120)
    async with skipping.working():
        await skipping.serve_first_version()
        request = skipping.request(canary((10, 50, 100), period=timedelta(hours=6)))
        request = request.model_copy(
            update={"config": request.config.model_copy(update={"evaluation_interval": timedelta(minutes=10)})}
        )
        handle = await skipping.start(request)
        progress = await handle.result()
        description = await skipping.client.get_workflow_handle(handle.id).describe()
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert description.run_id != handle.first_execution_run_id, "the run never continued as new"
    assert [order.state.candidate_weight for what, order in skipping.nodes[0].orders if what == "apply"][1:] == [
        1_000,
        5_000,
        10_000,
        0,
    ]
    events = await _events(skipping, request.deployment_id)
    assert events == list(range(1, len(events) + 1)), "the timeline has a gap or a repeat"


async def test_rollback_after_continue_as_new_still_undoes(skipping: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "HISTORY_LIMIT", 120)
    async with skipping.working():
        await skipping.serve_first_version()
        config = canary((10, 100), period=timedelta(hours=6))
        request = skipping.request(config.model_copy(update={"evaluation_interval": timedelta(minutes=10)}))
        looks = skipping.figures

        class TurnsBad(type(looks)):  # type: ignore[misc]
            async def read(self, nodes, plugin, since):
                if self.looks > 60:
                    self.arms["2.0.0"] = Arm(requests=400, errors=200)
                return await super().read(nodes, plugin, since)

        looks.__class__ = TurnsBad
        progress = await skipping.deploy(request)
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert all(node.loaded == {"1.0.0"} for node in skipping.nodes)


async def test_who_resumes_after_a_weekend_of_doubt_gets_the_whole_step_again(
    skipping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evidence was not enough, so it held for a person; the run was continued as new before one came."""
    world = skipping
    monkeypatch.setattr(gates, "HISTORY_LIMIT", 120)
    async with world.working():
        await world.serve_first_version()
        quiet, world.figures.default = world.figures.default, Arm(requests=0)
        config = canary((50, 100), period=timedelta(hours=1), on_inconclusive="pause")
        handle = await world.start(
            world.request(config.model_copy(update={"evaluation_interval": timedelta(minutes=10)}))
        )
        await skip(world, timedelta(days=2))
        held = await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        assert "the evidence is inconclusive" in held.waiting_for
        latest = await world.client.get_workflow_handle(handle.id).describe()
        assert latest.run_id != handle.first_execution_run_id, "the run never continued as new"
        at_resume, read = world.figures.looks, world.figures.read

        async def tell_in_the_second_look(nodes: Sequence[NodeRecord], plugin: str, since: datetime) -> Readings:
            if world.figures.looks > at_resume:
                world.figures.default = quiet
            return await read(nodes, plugin, since)

        monkeypatch.setattr(world.figures, "read", tell_in_the_second_look)
        await send(handle, "resume", reason="look on")
        await skip(world, timedelta(hours=4))
        progress = await until(handle, lambda p: p.status is not DeploymentStatus.IN_PROGRESS)
    assert progress.status is DeploymentStatus.COMPLETED, progress.waiting_for


async def test_pause_of_a_day_does_not_eat_the_step(skipping: World) -> None:
    async with skipping.working():
        await skipping.serve_first_version()
        handle = await skipping.start(skipping.request(canary((50, 100), period=timedelta(hours=1))))
        await until(handle, lambda p: p.step_title == "observe at 50 %")
        await send(handle, "pause", reason="lunch")
        await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
        await send(handle, "resume")
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED


async def _events(world: World, deployment_id: str) -> list[int]:
    async with world.records.unit_of_work() as uow:
        return [event.sequence for event in await uow.deployments.events(deployment_id)]
