"""One place, several deployments: who waits, who goes first, who makes way. On a real Temporal server."""

import asyncio
from datetime import timedelta

from hotswap.domain.deployment import OnConflict
from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.queue import asked, current, ended, enqueue
from tests.workflow.world import World, canary, direct, send, until

HOUR = timedelta(hours=1)
SUPERSEDE = OnConflict.SUPERSEDE


async def test_a_queued_deployment_waits_for_the_running_one_and_then_runs(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        running = await world.start(first := asked(world, canary((50, 100), period=HOUR), 0))
        await until(running, lambda p: p.set_weight_percent == 50)
        waiter = await enqueue(world, second := asked(world, direct(), 1))
        waiting = await until(waiter, lambda p: first.deployment_id in p.waiting_for)
        assert waiting.status is DeploymentStatus.PENDING
        assert waiting.waiting_for == f"its turn behind {first.deployment_id}"
        await send(running, "abort", reason="make way")
        assert (await running.result()).status is DeploymentStatus.ABORTED
        progress = await ended(world, waiter, second.deployment_id)
    assert progress.status is DeploymentStatus.COMPLETED
    assert progress.deployment_id == second.deployment_id
    async with world.records.unit_of_work() as uow:
        row = await uow.deployments.get(second.deployment_id)
        events = await uow.deployments.events(second.deployment_id)
    assert row.progress == progress
    assert row.workflow_id == running.id
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.kind for event in events[:3]] == ["queue", "queue", "status"]


async def test_a_free_place_is_taken_at_once(world: World) -> None:
    async with world.working():
        waiter = await enqueue(world, request := asked(world, direct(), 0, version="1.0.0"))
        progress = await ended(world, waiter, request.deployment_id)
    assert progress.status is DeploymentStatus.COMPLETED


async def test_eight_queued_at_once_run_one_after_the_other_in_the_order_they_were_asked_for(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        running = await world.start(asked(world, canary((50, 100), period=HOUR), 0))
        await until(running, lambda p: p.set_weight_percent == 50)
        requests = [
            asked(world, direct(), second, version="2.0.0" if second % 2 else "1.0.0") for second in range(1, 9)
        ]
        waiters = await asyncio.gather(*(enqueue(world, request) for request in reversed(requests)))
        for waiter in waiters:
            await until(waiter, lambda p: "its turn behind" in p.waiting_for)
        await send(running, "abort", reason="make way")
        async with asyncio.timeout(60):
            ends = [
                await ended(world, waiter, request.deployment_id)
                for waiter, request in zip(reversed(waiters), requests, strict=True)
            ]
    assert [end.status for end in ends] == [DeploymentStatus.COMPLETED] * 8
    begun = [end.started_at for end in ends]
    over = [end.finished_at for end in ends]
    assert all(start and end and start >= end for start, end in zip(begun[1:], over, strict=False))
    async with world.records.unit_of_work() as uow:
        assert await uow.deployments.unfinished("Development", world.name) == []


async def test_a_queued_deployment_can_be_aborted_and_changes_nothing(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        running = await world.start(asked(world, canary((50, 100), period=HOUR), 0))
        second = await enqueue(world, middle := asked(world, direct(), 1))
        third = await enqueue(world, last := asked(world, direct(), 2))
        await until(third, lambda p: middle.deployment_id in p.waiting_for)
        refused = await send(second, "abort", reason="not needed any more")
        assert refused.message.startswith("undoing")
        given_up = await second.result()
        assert given_up.status is DeploymentStatus.ABORTED
        assert given_up.outcome_reason == "aborted by ada: not needed any more"
        assert given_up.finished_at is not None
        await until(third, lambda p: middle.deployment_id not in p.waiting_for)
        await send(running, "abort", reason="make way")
        assert (await ended(world, third, last.deployment_id)).status is DeploymentStatus.COMPLETED
        async with world.records.unit_of_work() as uow:
            assert (await uow.deployments.get(middle.deployment_id)).progress == given_up


async def test_cancelling_a_waiter_from_the_web_ui_is_an_abort(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        running = await world.start(asked(world, canary((50, 100), period=HOUR), 0))
        waiter = await enqueue(world, asked(world, direct(), 1))
        await until(waiter, lambda p: "behind" in p.waiting_for)
        await waiter.cancel()
        await until(waiter, lambda p: p.status is DeploymentStatus.ABORTED)
        await send(running, "abort", reason="over")
        await running.result()


async def test_a_superseding_deployment_takes_the_place_once_the_traffic_was_given_back(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        running = await world.start(first := asked(world, canary((50, 100), period=HOUR), 0))
        await until(running, lambda p: p.set_weight_percent == 50)
        waiter = await enqueue(world, second := asked(world, direct(), 1, SUPERSEDE))
        before = await running.result()
        progress = await ended(world, waiter, second.deployment_id)
    assert before.status is DeploymentStatus.SUPERSEDED
    assert before.outcome_reason == f"superseded by dana: {second.deployment_id} (2.0.0) takes its place"
    assert before.rolled_back_at is not None
    assert progress.status is DeploymentStatus.COMPLETED
    assert progress.started_at is not None
    assert before.finished_at is not None
    assert progress.started_at >= before.finished_at
    applied = [order.state for what, order in world.nodes[0].orders if what == "apply"]
    assert [state.candidate_weight for state in applied][1:3] == [5_000, 0], "its traffic went back first"
    assert first.deployment_id != second.deployment_id


async def test_a_superseding_deployment_goes_before_those_that_queue(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        running = await world.start(asked(world, canary((50, 100), period=HOUR), 0))
        await until(running, lambda p: p.set_weight_percent == 50)
        queued = await enqueue(world, patient := asked(world, direct(), 1, version="1.0.0"))
        await until(queued, lambda p: "behind" in p.waiting_for)
        hasty = await enqueue(world, urgent := asked(world, direct(), 2, SUPERSEDE))
        assert (await running.result()).status is DeploymentStatus.SUPERSEDED
        first = await ended(world, hasty, urgent.deployment_id)
        second = await ended(world, queued, patient.deployment_id)
    assert (first.status, second.status) == (DeploymentStatus.COMPLETED, DeploymentStatus.COMPLETED)
    assert first.finished_at is not None
    assert second.started_at is not None
    assert first.finished_at <= second.started_at


async def test_of_two_superseding_ones_the_younger_runs(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        world.nodes[0].hold_stage = asyncio.Event()
        running = await world.start(asked(world, canary((50, 100), period=HOUR), 0))
        older = await enqueue(world, first := asked(world, canary((50, 100), period=HOUR), 1, SUPERSEDE))
        younger = await enqueue(world, second := asked(world, direct(), 2, SUPERSEDE))
        world.nodes[0].hold_stage.set()
        assert (await running.result()).status is DeploymentStatus.SUPERSEDED
        assert (await ended(world, younger, second.deployment_id)).status is DeploymentStatus.COMPLETED
        assert (await ended(world, older, first.deployment_id)).status is DeploymentStatus.SUPERSEDED
    assert all(node.loaded == {"2.0.0"} for node in world.nodes)


async def test_a_rollback_that_runs_is_waited_for_and_not_superseded(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct()))
        world.nodes[0].hold_stage = asyncio.Event()
        rollback = asked(world, direct(), 0, version="1.0.0").model_copy(update={"rollback_of": "dep_before"})
        running = await world.start(rollback)
        await until(running, lambda p: p.step_title.startswith("load beside"))
        waiter = await enqueue(world, second := asked(world, direct(), 1, SUPERSEDE))
        await until(waiter, lambda p: "behind" in p.waiting_for)
        world.nodes[0].hold_stage.set()
        world.nodes[0].hold_stage = None
        assert (await running.result()).status is DeploymentStatus.COMPLETED
        assert (await ended(world, waiter, second.deployment_id)).status is DeploymentStatus.COMPLETED


async def test_the_death_of_the_one_in_front_is_noticed(world: World) -> None:
    """Terminated, it told nobody and its row never ends: whoever stands behind goes past it."""
    async with world.working():
        await world.serve_first_version()
        running = await world.start(asked(world, canary((50, 100), period=HOUR), 0))
        dead = await enqueue(world, asked(world, direct(), 1))
        await until(dead, lambda p: "behind" in p.waiting_for)
        await dead.terminate()
        last = await enqueue(world, request := asked(world, direct(), 2))
        await until(last, lambda p: "behind" in p.waiting_for)
        await send(running, "abort", reason="make way")
        assert (await ended(world, last, request.deployment_id)).status is DeploymentStatus.COMPLETED


async def test_commands_follow_the_deployment_from_the_line_to_the_place(world: World) -> None:
    """promote-full given while it waits holds when it runs; a command to the place goes by the record."""
    async with world.working():
        await world.serve_first_version()
        running = await world.start(asked(world, canary((50, 100), period=HOUR), 0))
        waiter = await enqueue(world, request := asked(world, canary((50, 100), period=HOUR), 1))
        await until(waiter, lambda p: "behind" in p.waiting_for)
        await send(waiter, "promote-full", reason="it was seen elsewhere")
        await send(running, "abort", reason="make way")
        await waiter.result()
        handle = await current(world, request.deployment_id)
        assert handle.id == running.id
        progress = await ended(world, waiter, request.deployment_id)
    assert progress.status is DeploymentStatus.COMPLETED
