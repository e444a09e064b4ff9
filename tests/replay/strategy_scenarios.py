"""Endings of Rolling, BlueGreen and ABTesting whose histories are kept. tests.replay.scenarios lists them."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import WorkflowHandle

from hotswap.domain.deployment import DeploymentProgress
from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.strategies import FallsSick, ab_test, blue_green, rolling
from tests.workflow.world import Arm, World, direct, send, until

Handle = WorkflowHandle[object, DeploymentProgress]

LONG = timedelta(hours=1)
B_WINS = {"1.0.0": Arm(errors=16), "2.0.0": Arm(errors=0)}


async def _rolling_completed(world: World) -> Handle:
    return await world.start(world.request(rolling()))


async def _rolling_verdict_failed(world: World) -> Handle:
    world.figures.arms["2.0.0"] = Arm(requests=200, errors=60)
    return await world.start(world.request(rolling()))


async def _rolling_unhealthy_batch(world: World) -> Handle:
    """Its worker polls already: only what it answers changes."""
    world.nodes[1].__class__ = FallsSick
    world.nodes[1].sick, world.nodes[1].probes = True, 0  # type: ignore[attr-defined]
    return await world.start(world.request(rolling()))


async def _rolling_aborted(world: World) -> Handle:
    handle = await world.start(world.request(rolling(wait_between_batches=LONG)))
    await until(handle, lambda p: p.set_weight_percent == 50)
    await send(handle, "abort", reason="enough")
    return handle


async def _blue_green_completed(world: World) -> Handle:
    return await world.start(world.request(blue_green()))


async def _blue_green_smoke_failed(world: World) -> Handle:
    world.nodes[1].fail_smoke.add("2.0.0")
    return await world.start(world.request(blue_green()))


async def _blue_green_verdict_failed(world: World) -> Handle:
    world.figures.arms["2.0.0"] = Arm(requests=200, errors=60)
    return await world.start(world.request(blue_green(warmup_period=timedelta(0))))


async def _blue_green_aborted(world: World) -> Handle:
    handle = await world.start(world.request(blue_green(warmup_period=LONG)))
    await until(handle, lambda p: p.step_title.startswith("warm up"))
    await send(handle, "abort", reason="enough")
    return handle


async def _blue_green_switched_back(world: World) -> Handle:
    done = await world.deploy(world.request(blue_green(warmup_period=timedelta(0))))
    return await world.start(world.request(direct(), version="1.0.0", rollback_of=done.deployment_id))


async def _ab_test_b_promoted(world: World) -> Handle:
    world.figures.arms = dict(B_WINS)
    return await world.start(world.request(ab_test(auto_promote=True)))


async def _ab_test_person_promoted(world: World) -> Handle:
    world.figures.arms = dict(B_WINS)
    handle = await world.start(world.request(ab_test()))
    await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
    await send(handle, "promote")
    return handle


async def _ab_test_no_winner(world: World) -> Handle:
    return await world.start(world.request(ab_test()))


async def _ab_test_guard_failed(world: World) -> Handle:
    world.figures.arms["2.0.0"] = Arm(requests=200, errors=60)
    return await world.start(world.request(ab_test()))


async def _ab_test_aborted(world: World) -> Handle:
    handle = await world.start(world.request(ab_test(test_duration=LONG)))
    await until(handle, lambda p: p.step_title.startswith("compare"))
    await send(handle, "abort", reason="enough")
    return handle


STRATEGY_SCENARIOS: dict[str, Callable[[World], Awaitable[Handle]]] = {
    "rolling-completed": _rolling_completed,
    "rolling-verdict-failed": _rolling_verdict_failed,
    "rolling-unhealthy-batch": _rolling_unhealthy_batch,
    "rolling-aborted": _rolling_aborted,
    "blue-green-completed": _blue_green_completed,
    "blue-green-smoke-failed": _blue_green_smoke_failed,
    "blue-green-verdict-failed": _blue_green_verdict_failed,
    "blue-green-aborted": _blue_green_aborted,
    "blue-green-switched-back": _blue_green_switched_back,
    "ab-test-b-promoted": _ab_test_b_promoted,
    "ab-test-person-promoted": _ab_test_person_promoted,
    "ab-test-no-winner": _ab_test_no_winner,
    "ab-test-guard-failed": _ab_test_guard_failed,
    "ab-test-aborted": _ab_test_aborted,
    # Since a write of routes names the nodes; those above were recorded when the run asked for them after it.
    "blue-green-verdict-failed-nodes-named": _blue_green_verdict_failed,
    "blue-green-completed-nodes-named": _blue_green_completed,
    "rolling-verdict-failed-nodes-named": _rolling_verdict_failed,
}
