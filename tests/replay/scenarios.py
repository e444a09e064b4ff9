"""Every strategy x ending whose history is kept: what is recorded by tests.replay.record and replayed by test_replay."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import WorkflowHandle

from hotswap.domain.deployment import DeploymentProgress, Environment, StrategyConfig
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.metrics import MetricSpec
from hotswap.ports.sandbox import TrialReport
from tests.replay.aftercare import AFTERCARE_SCENARIOS
from tests.replay.command_scenarios import COMMAND_SCENARIOS
from tests.replay.promotion_scenarios import PROMOTION_SCENARIOS
from tests.replay.sandbox_scenarios import SANDBOX_SCENARIOS
from tests.replay.strategy_scenarios import STRATEGY_SCENARIOS
from tests.workflow.strategies import ab_test, blue_green, rolling
from tests.workflow.world import Arm, World, canary, direct, send, until

Handle = WorkflowHandle[object, DeploymentProgress]
Scenario = Callable[[World], Awaitable[Handle]]

LONG = timedelta(hours=1)


def _strategies() -> dict[str, Callable[[], StrategyConfig]]:
    return {"direct": direct, "canary": lambda: canary((50, 100))}


def _standing() -> dict[str, Callable[[], StrategyConfig]]:
    """With tenants on the new version for as long as nobody ends it."""
    return {
        "direct": lambda: direct(monitoring_period=LONG),
        "rolling": lambda: rolling(wait_between_batches=LONG),
        "blue-green": lambda: blue_green(warmup_period=timedelta(0), monitoring_period=LONG),
        "ab-test": lambda: ab_test(test_duration=LONG),
    }


def _completed(config: Callable[[], StrategyConfig]) -> Scenario:
    async def scenario(world: World) -> Handle:
        return await world.start(world.request(config()))

    return scenario


def _rejected(config: Callable[[], StrategyConfig]) -> Scenario:
    async def scenario(world: World) -> Handle:
        handle = await world.start(world.request(config(), environment=Environment.STAGING))
        await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        await send(handle, "reject", reason="no")
        return handle

    return scenario


def _approved(config: Callable[[], StrategyConfig]) -> Scenario:
    """Approved after staging nodes exist for Staging: none do, so the wave fails and it is undone."""

    async def scenario(world: World) -> Handle:
        handle = await world.start(world.request(config(), environment=Environment.STAGING))
        await until(handle, lambda p: p.status is DeploymentStatus.AWAITING_APPROVAL)
        await send(handle, "approve")
        return handle

    return scenario


def _trial_failed(config: Callable[[], StrategyConfig]) -> Scenario:
    async def scenario(world: World) -> Handle:
        world.trial.report = TrialReport(passed=False, sandbox_tier="standard", limit="TIMEOUT", detail="hung")
        return await world.start(world.request(config()))

    return scenario


def _load_failed(config: Callable[[], StrategyConfig]) -> Scenario:
    async def scenario(world: World) -> Handle:
        world.nodes[0].fail_to_load.add("2.0.0")
        return await world.start(world.request(config()))

    return scenario


def _undo_failed(config: Callable[[], StrategyConfig]) -> Scenario:
    async def scenario(world: World) -> Handle:
        world.nodes[0].fail_to_load.add("2.0.0")
        world.nodes[1].fail_to_apply = lambda order: order.state.candidate is None
        return await world.start(world.request(config()))

    return scenario


def _superseded(config: Callable[[], StrategyConfig]) -> Scenario:
    async def scenario(world: World) -> Handle:
        handle = await world.start(world.request(config()))
        await until(handle, lambda p: p.set_weight_percent > 0)
        await send(handle, "supersede", reason="a newer version goes first")
        return handle

    return scenario


async def _ab_test_rejected(world: World) -> Handle:
    """It needs a version in place, so Staging takes over Development's route."""
    async with world.records.unit_of_work() as uow:
        await uow.routes.write(Environment.STAGING, world.name, 0, await world.route(), "dep_before")
        await uow.commit()
    return await _rejected(ab_test)(world)


async def _canary_rolled_back_by_verdict(world: World) -> Handle:
    world.figures.arms["2.0.0"] = Arm(requests=200, errors=60)
    return await world.start(world.request(canary((50, 100))))


async def _canary_aborted(world: World) -> Handle:
    handle = await world.start(world.request(canary((50, 100), period=LONG)))
    await until(handle, lambda p: p.set_weight_percent == 50)
    await send(handle, "abort", reason="enough")
    return handle


async def _canary_rolled_back_by_a_person(world: World) -> Handle:
    handle = await world.start(world.request(canary((50, 100), period=LONG)))
    await until(handle, lambda p: p.set_weight_percent == 50)
    await send(handle, "rollback", reason="tenant complains")
    return handle


async def _canary_paused_and_resumed(world: World) -> Handle:
    world.figures.silent = True
    handle = await world.start(world.request(canary((50, 100))))
    await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
    world.figures.silent = False
    await send(handle, "resume")
    return handle


async def _canary_cancelled(world: World) -> Handle:
    handle = await world.start(world.request(canary((50, 100), period=LONG)))
    await until(handle, lambda p: p.set_weight_percent == 50)
    await handle.cancel()
    return handle


def _own_metric(**more: object) -> MetricSpec:
    base = {"name": "tickets", "provider": "prometheus", "query": "tickets", "operator": "<=", "threshold": 5}
    return MetricSpec.model_validate({**base, **more})


async def _canary_own_metric_failed(world: World) -> Handle:
    world.metrics.tell("tickets", 9)
    return await world.start(world.request(canary((50, 100), metrics=(_own_metric(consecutiveFailureLimit=2),))))


async def _canary_metric_error_limit(world: World) -> Handle:
    """Held by the limit, resumed when the provider is back."""
    world.metrics.go_away()
    # A second, so that there are few looks while it is held.
    config = canary((50, 100), period=timedelta(seconds=1), metrics=(_own_metric(errorLimit=2),))
    handle = await world.start(world.request(config))
    await until(handle, lambda p: p.status is DeploymentStatus.PAUSED)
    world.metrics.come_back()
    world.metrics.tell("tickets", 1)
    await send(handle, "resume")
    return handle


SCENARIOS: dict[str, Scenario] = (
    {
        f"{strategy}-{ending}": make(config)
        for strategy, config in _strategies().items()
        for ending, make in {
            "completed": _completed,
            "rejected": _rejected,
            "approved-without-nodes": _approved,
            "trial-failed": _trial_failed,
            "load-failed": _load_failed,
            "undo-failed": _undo_failed,
        }.items()
    }
    | {
        "rolling-rejected": _rejected(rolling),
        "blue-green-rejected": _rejected(blue_green),
        "ab-test-rejected": _ab_test_rejected,
        "rolling-undo-failed": _undo_failed(rolling),
        "blue-green-undo-failed": _undo_failed(blue_green),
        "ab-test-undo-failed": _undo_failed(ab_test),
    }
    | {f"{strategy}-superseded": _superseded(config) for strategy, config in _standing().items()}
    | {
        "canary-verdict-failed": _canary_rolled_back_by_verdict,
        "canary-verdict-failed-nodes-named": _canary_rolled_back_by_verdict,
        "canary-aborted": _canary_aborted,
        "canary-rolled-back-by-person": _canary_rolled_back_by_a_person,
        "canary-paused-resumed": _canary_paused_and_resumed,
        "canary-cancelled": _canary_cancelled,
        **COMMAND_SCENARIOS,
        "canary-own-metric-failed": _canary_own_metric_failed,
        "canary-metric-error-limit": _canary_metric_error_limit,
        **AFTERCARE_SCENARIOS,
        **PROMOTION_SCENARIOS,
        **SANDBOX_SCENARIOS,
    }
    | STRATEGY_SCENARIOS
)
