"""The health monitor and the rollback window it ends. Days pass in skipped time where they can."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from activities.monitor import MONITOR
from hotswap.domain.analysis import HostReport
from hotswap.domain.deployment import DeploymentProgress
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import Page
from hotswap.ports.metrics import Readings
from hotswap.ports.records import DeploymentFilter
from tests.workflow.aftercare import held, monitor_of, monitor_state, tell
from tests.workflow.skipping import skip
from tests.workflow.world import Arm, World, canary, direct, send, until
from workflows import monitor, outlive

HOUR = timedelta(hours=1)
QUICK = timedelta(seconds=1)


def sick(world: World, ill: Callable[[], bool], version: str = "2.0.0") -> None:
    """Every node's host of `version` is down while `ill` says so."""
    well = world.figures.hosts

    def hosts(node_id: str, plugin: str) -> tuple[HostReport, ...]:
        found = well(node_id, plugin)
        if not ill():
            return found
        down = {"state": "Crashed", "crashes": 7, "last_error": "exit code 1"}
        return tuple(host.model_copy(update=down) if host.version == version else host for host in found)

    world.figures.hosts = hosts


async def deployments(world: World) -> list[DeploymentProgress]:
    async with world.records.unit_of_work() as uow:
        rows, _ = await uow.deployments.list(DeploymentFilter(plugin=world.name), Page(limit=100))
    return [row.progress for row in rows]


async def rollbacks(world: World) -> list[DeploymentProgress]:
    return [progress for progress in await deployments(world) if progress.initiated_by == MONITOR]


async def the_rollback(world: World, within: float = 20) -> DeploymentProgress:
    """The one that the monitor ordered; its own workflow records it, a moment after it was started."""
    async with asyncio.timeout(within):
        while not (found := await rollbacks(world)):
            await asyncio.sleep(0.02)
    [one] = found
    return one


async def audited(world: World, entity: str) -> list[str]:
    async with world.records.unit_of_work() as uow:
        entries, _ = await uow.audit.list(entity, MONITOR, Page(limit=100))
    return [entry.event_type for entry in entries]


async def until_over(world: World, deployment_id: str, within: float = 20) -> DeploymentProgress:
    """Of a deployment that somebody else started: its record says how it ended."""
    async with asyncio.timeout(within):
        while True:
            for progress in await deployments(world):
                if progress.deployment_id == deployment_id and progress.finished_at is not None:
                    return progress
            await asyncio.sleep(0.02)


# --- the monitor -----------------------------------------------------------------------------------------------------


async def test_a_sustained_fault_is_taken_back_once_and_the_version_is_held(skipping: World) -> None:
    world, ill = skipping, [False]
    sick(world, lambda: ill[0])
    async with world.working():
        await world.serve_first_version()
        request = world.request(direct(rollback_window=HOUR, monitor_interval=QUICK))
        assert (await world.deploy(request)).status is DeploymentStatus.COMPLETED
        ill[0] = True
        await tell(world)
        ending = await ending_of(world)
        back = await the_rollback(world)
        back = await until_over(world, back.deployment_id)
        assert (back.status, back.to_version) == (DeploymentStatus.COMPLETED, "1.0.0")
        assert "3 looks in a row" in back.reason
        assert "2 of 2 hosts of 2.0.0 are faulty" in back.reason
        assert back.deployment_id in ending
        assert all(node.loaded == {"1.0.0"} for node in world.nodes)
    hold = await held(world)
    assert hold is not None
    assert hold.deployment_id == request.deployment_id
    assert await audited(world, request.deployment_id) == ["deployment.taken-back"]
    assert (await audited(world, back.deployment_id)).count("deployment.requested") == 1
    assert len(await rollbacks(world)) == 1


async def test_going_back_to_a_warm_version_is_one_switch(skipping: World) -> None:
    world, ill = skipping, [False]
    sick(world, lambda: ill[0])
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(rollback_window=HOUR, monitor_interval=QUICK)))
        node = world.nodes[0]
        assert node.loaded == {"1.0.0", "2.0.0"}
        node.orders.clear()
        ill[0] = True
        await tell(world)
        await ending_of(world)
        back = await the_rollback(world)
        await until_over(world, back.deployment_id)
    assert [what for what, _ in node.orders] == ["apply", "retire"]


@pytest.mark.parametrize("bad_looks", [1, 2])
async def test_a_fault_that_passes_is_no_reason_to_go_back(skipping: World, bad_looks: int) -> None:
    world = skipping
    looks = {"bad": 0, "well": 0}
    started = [False]
    well = world.figures.read

    async def read(nodes, plugin, since):
        if started[0]:
            kind = "bad" if looks["bad"] < bad_looks else "well"
            looks[kind] += 1
        return await well(nodes, plugin, since)

    world.figures.read = read  # type: ignore[method-assign]
    sick(world, lambda: started[0] and looks["well"] == 0)
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct()))
        started[0] = True
        while looks["well"] < 50:
            await tell(world)
            await monitor_state(world)  # it has heard: a signal that comes as a timer fires can upset the test server
            await skip(world, timedelta(minutes=1))
        state = await monitor_state(world)
        assert state.failing == 0
        assert state.looks >= 50
    assert not await rollbacks(world)


async def test_it_sleeps_while_nobody_tells_of_a_fault(skipping: World) -> None:
    world = skipping
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(monitor_interval=QUICK)))
        await skip(world, HOUR)
        state = await monitor_state(world)
        assert 1 < state.looks < 20, "an hour of looks a second would be 3,600"
        await tell(world)
        await skip(world, timedelta(seconds=5))
        told = await monitor_state(world)
        assert told.looks > state.looks
        assert not told.awake, "one look found all well"


async def test_a_fault_of_a_version_that_is_no_longer_in_place_wakes_nobody(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(monitor_interval=HOUR)))
        await tell(world, version="1.0.0")
        assert not (await monitor_state(world)).awake
        await tell(world)
        assert (await monitor_state(world)).awake


async def test_many_nodes_that_tell_at_once_do_not_hurry_it(world: World) -> None:
    sick(world, lambda: True)
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(monitor_interval=HOUR)))
        for _ in range(20):
            await tell(world)
        async with asyncio.timeout(20):
            while (await monitor_state(world)).failing < 1:
                await asyncio.sleep(0.05)
        for _ in range(20):
            await tell(world)
        state = await monitor_state(world)  # answered when every signal was heard
        history = await monitor_of(world).fetch_history()
    assert state.failing == 1
    looks = [event for event in history.events if event.HasField("activity_task_scheduled_event_attributes")]
    assert len(looks) == 1


async def test_a_fault_that_no_node_can_tell_is_found_in_the_end(
    skipping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when every node serves the plugin and does not have the version at all."""
    monkeypatch.setattr(monitor, "RESTING", timedelta(seconds=10))
    world, ill = skipping, [False]
    sick(world, lambda: ill[0])
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(rollback_window=HOUR, monitor_interval=QUICK)))
        ill[0] = True
        await ending_of(world)
        assert (await the_rollback(world)).to_version == "1.0.0"


async def ending_of(world: World) -> str:
    """Skip until the monitor has ended; says how. In small steps: with an abandoned child this server stops skipping."""
    for _ in range(100):
        if (await monitor_of(world).describe()).status != WorkflowExecutionStatus.RUNNING:
            return await monitor_of(world).result()
        await skip(world, timedelta(seconds=1))
    raise AssertionError("the monitor goes on")


async def test_silence_is_neither_a_fault_nor_the_end_of_one(skipping: World) -> None:
    world = skipping
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct()))
        world.figures.silent = True
        await tell(world)
        await skip(world, timedelta(minutes=10))
        state = await monitor_state(world)
        assert state.looks >= 10, "nobody has said yet that all is well"
        assert state.failing == 0
        assert "did not answer" in state.last
    assert not await rollbacks(world)


async def test_the_window_ends_after_days_and_the_warm_version_is_retired(skipping: World) -> None:
    world = skipping
    async with world.working():
        await world.serve_first_version()
        request = world.request(direct(rollback_window=timedelta(days=3), monitor_interval=HOUR))
        await world.deploy(request)
        await skip(world, timedelta(days=2))  # the clock may run on by a look or two before it is asked
        assert all(node.loaded == {"1.0.0", "2.0.0"} for node in world.nodes)
        await skip(world, timedelta(days=1, hours=1))
        assert (await world.route()).warm == ()
        assert all(node.loaded == {"2.0.0"} for node in world.nodes)
        state = await monitor_state(world)
        assert not state.window_open, "it watches on after the window"
    assert "deployment.window-closed" in await audited(world, request.deployment_id)


async def test_a_newer_version_ends_the_old_watch_and_begins_its_own(skipping: World) -> None:
    world = skipping
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(rollback_window=HOUR)))
        newer = world.request(direct(), version="1.0.0")
        await world.deploy(newer)
        await skip(world, timedelta(minutes=5))
        state = await monitor_state(world)
        assert state.subject.deployment_id == newer.deployment_id
        assert state.looks == 1
        sick(world, lambda: True)  # 2.0.0 would be ill, but nobody is served by it any more
        await skip(world, timedelta(minutes=5))
    assert not await rollbacks(world)


async def test_a_rollback_ends_the_watch_and_is_not_watched_itself(
    skipping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "RESTING", timedelta(seconds=10))
    world = skipping
    async with world.working():
        await world.serve_first_version()
        request = world.request(direct(rollback_window=HOUR, monitor_interval=QUICK))
        await world.deploy(request)
        back = world.request(direct(), version="1.0.0", rollback_of=request.deployment_id)
        await world.deploy(back)
        assert await ending_of(world) == "another version is in place"
        sick(world, lambda: True, version="1.0.0")
        await skip(world, HOUR)
        described = await monitor_of(world).describe()
    assert described.status == WorkflowExecutionStatus.COMPLETED
    assert not await rollbacks(world)


async def test_an_undone_newer_deployment_leaves_the_watch_as_it_was(skipping: World) -> None:
    world = skipping
    async with world.working():
        await world.serve_first_version()
        request = world.request(direct(rollback_window=HOUR))
        await world.deploy(request)
        world.figures.arms["1.0.0"] = Arm(requests=400, errors=200)
        undone = await world.deploy(world.request(direct(bake_period=HOUR), version="1.0.0"))
        assert undone.status is DeploymentStatus.ROLLED_BACK
        await skip(world, timedelta(minutes=5))
        state = await monitor_state(world)
        assert state.subject.deployment_id == request.deployment_id
        await skip(world, 2 * HOUR)
        assert (await world.route()).warm == ()
        assert all(node.loaded == {"2.0.0"} for node in world.nodes)


async def test_a_monitor_runs_for_days_and_its_histories_stay_small(
    skipping: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = skipping
    monkeypatch.setattr(outlive, "HISTORY_LIMIT", 150)
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(monitor_interval=HOUR)))
        first = (await monitor_of(world).describe()).run_id
        await skip(world, timedelta(days=5))
        later = await monitor_of(world).describe()
        assert later.run_id != first, "it never continued as new"
        assert later.history_length < 250
        assert (await monitor_state(world)).looks >= 100


async def test_a_newer_subject_that_comes_as_a_run_ends_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlive, "HISTORY_LIMIT", 10)  # after each look
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(monitor_interval=QUICK)))
        subject = (await monitor_state(world)).subject
        newer = subject.model_copy(update={"deployment_id": f"dep_{'f' * 32}"})
        told: list[str] = []

        def tell_in_the_middle_of_a_look(node_id: str, plugin: str) -> tuple[HostReport, ...]:
            if not told:
                told.append(node_id)
                signals.append(asyncio.create_task(monitor_of(world).signal("watch", newer)))
            return well(node_id, plugin)

        signals: list[asyncio.Task[None]] = []
        read = world.figures.read

        async def slowly(*asked: Any) -> Readings:
            readings = await read(*asked)
            await asyncio.gather(*signals)
            return readings

        well, world.figures.hosts = world.figures.hosts, tell_in_the_middle_of_a_look
        monkeypatch.setattr(world.figures, "read", slowly)
        async with asyncio.timeout(20):
            while not told or (await monitor_state(world)).looks == 0:
                await asyncio.sleep(0.02)
            while (await monitor_state(world)).subject.deployment_id == subject.deployment_id:
                await asyncio.sleep(0.02)
        assert (await monitor_state(world)).subject.deployment_id == newer.deployment_id


async def test_the_window_waits_for_a_deployment_that_runs(skipping: World) -> None:
    world = skipping
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(rollback_window=HOUR)))
        handle = await world.start(world.request(canary((50, 100), period=3 * HOUR), version="1.0.0"))
        await until(handle, lambda p: p.set_weight_percent == 50)
        await skip(world, 2 * HOUR)
        assert [ref.version for ref in (await world.route()).warm] == ["1.0.0"], "not while it would be undone to this"
        await send(handle, "abort", reason="enough")
        assert (await handle.result()).status is DeploymentStatus.ABORTED
        await skip(world, timedelta(minutes=2))
        assert (await world.route()).warm == ()


async def test_a_monitor_survives_the_restart_of_its_worker(world: World) -> None:
    ill = [False]
    sick(world, lambda: ill[0])
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(monitor_interval=QUICK)))
        async with asyncio.timeout(20):
            while (await monitor_state(world)).looks < 1:
                await asyncio.sleep(0.05)
    ill[0] = True
    await tell(world)
    async with world.working():
        ending = await monitor_of(world).result()
        back = await the_rollback(world)
        assert back.deployment_id in ending
        assert (await until_over(world, back.deployment_id)).status is DeploymentStatus.COMPLETED


async def test_a_rollback_that_could_not_start_is_tried_at_the_next_look_and_never_twice(world: World) -> None:
    ill = [False]
    sick(world, lambda: ill[0])
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(direct(monitor_interval=QUICK)))
        handle = await world.start(world.request(canary((50, 100), period=HOUR), version="1.0.0"))
        await until(handle, lambda p: p.set_weight_percent == 50)
        ill[0] = True
        await tell(world)
        async with asyncio.timeout(20):
            while (await monitor_state(world)).failing < 4:
                await asyncio.sleep(0.05)
        assert not await rollbacks(world), "a deployment holds the place"
        await send(handle, "abort", reason="2.0.0 is ill")
        await handle.result()
        await monitor_of(world).result()
        await the_rollback(world)
