"""Blue-green deployments on a real Temporal server: the idle colour is proven before it takes tenants, and the way back is a switch."""

import asyncio
from datetime import timedelta

import pytest

from hotswap.domain.analysis import HostReport
from hotswap.domain.deployment import Switchover
from hotswap.domain.lifecycle import DeploymentStatus
from tests.workflow.strategies import MOMENT, blue_green
from tests.workflow.world import Arm, World, direct, send, until


async def test_blue_green_warms_tests_switches_and_keeps_the_old_colour_warm(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        for node in world.nodes:
            node.orders.clear()
        progress = await world.deploy(world.request(blue_green()))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    for node in world.nodes:
        assert node.smoked == ["2.0.0"]
        assert [(what, order.state.candidate_weight) for what, order in node.orders] == [
            ("stage", 0),
            ("apply", 10_000),
            ("apply", 0),
            ("retire", 0),
        ]
        assert node.loaded == {"1.0.0", "2.0.0"}
    route = await world.route()
    assert (route.stable and route.stable.version, [ref.version for ref in route.warm]) == ("2.0.0", ["1.0.0"])


async def test_gradual_switchover_climbs_by_its_steps(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        world.nodes[0].orders.clear()
        config = blue_green(switchover=Switchover.GRADUAL, warmup_period=timedelta(0), keep_previous_environment=False)
        progress = await world.deploy(world.request(config))
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    weights = [order.state.candidate_weight for what, order in world.nodes[0].orders if what == "apply"]
    assert weights == [2_500, 5_000, 7_500, 10_000, 0]
    assert all(node.loaded == {"2.0.0"} for node in world.nodes)


async def test_a_crash_while_it_warms_up_is_undone_before_any_tenant(world: World) -> None:
    def crashed(node_id: str, plugin: str) -> tuple[HostReport, ...]:
        return (HostReport(plugin=plugin, version="2.0.0", state="Crashed", crashes=1, last_error="out of memory"),)

    async with world.working():
        await world.serve_first_version()
        world.figures.arms["2.0.0"] = Arm(requests=0)
        world.figures.hosts = crashed
        before = await world.route()
        world.nodes[0].orders.clear()
        progress = await world.deploy(world.request(blue_green()))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "the verdict failed at 0 %" in progress.outcome_reason
    assert "crashes" in progress.outcome_reason
    assert await world.route() == before
    assert all(order.state.candidate_weight == 0 for _, order in world.nodes[0].orders)
    assert world.nodes[0].smoked == []


async def test_a_failed_smoke_test_on_one_node_is_undone_before_any_tenant(world: World) -> None:
    world.nodes[1].fail_smoke.add("2.0.0")
    async with world.working():
        await world.serve_first_version()
        world.nodes[0].orders.clear()
        progress = await world.deploy(world.request(blue_green()))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert f"{world.nodes[1].node_id}: 2.0.0 failed there: smoke test of 'run'" in progress.outcome_reason
    assert all(order.state.candidate_weight == 0 for _, order in world.nodes[0].orders)
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)


async def test_a_failure_while_it_is_monitored_gives_all_tenants_back(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        before = await world.route()
        handle = await world.start(world.request(blue_green(monitoring_period=timedelta(hours=1))))
        await until(handle, lambda p: p.set_weight_percent == 100)
        world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
        async with asyncio.timeout(20):
            while not (await handle.query("status"))["stepTitle"].startswith("observe"):
                await asyncio.sleep(0.02)
        await send(handle, "promote")  # an early look; a Fail is never passed by it
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "the verdict failed at 100 %" in progress.outcome_reason
    assert await world.route() == before
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)


@pytest.mark.parametrize("warm", [True, False])
async def test_going_back_to_a_warm_colour_loads_nothing(world: World, warm: bool) -> None:
    async with world.working():
        await world.serve_first_version()
        done = await world.deploy(world.request(blue_green(keep_previous_environment=warm)))
        for node in world.nodes:
            node.orders.clear()
        request = world.request(direct(), version="1.0.0", rollback_of=done.deployment_id)
        progress = await world.deploy(request)
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    orders = [what for what, _ in world.nodes[0].orders]
    assert orders == (["apply", "retire"] if warm else ["stage", "apply", "retire"])
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)
    route = await world.route()
    assert route.stable is not None
    assert route.stable.version == "1.0.0"


async def test_going_back_that_a_node_refuses_is_undone(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        done = await world.deploy(world.request(blue_green()))
        before = await world.route()
        world.nodes[1].fail_to_apply = lambda order: (
            order.state.stable is not None and order.state.stable.version == "1.0.0"
        )
        request = world.request(direct(), version="1.0.0", rollback_of=done.deployment_id)
        progress = await world.deploy(request)
    assert progress.status is DeploymentStatus.ROLLED_BACK, "a half switched environment is never left behind"
    assert await world.route() == before


async def test_the_next_rollout_lets_the_warm_colour_go(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        await world.deploy(world.request(blue_green(warmup_period=MOMENT)))
        assert all(node.loaded == {"1.0.0", "2.0.0"} for node in world.nodes)
        await world.deploy(world.request(direct(), version="1.0.0"))
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)
