"""Bake, versions that stay warm, versions that are held: what needs no monitor, on a real Temporal server."""

from datetime import timedelta

from activities.monitor import MONITOR
from hotswap.domain.deployment import Environment
from hotswap.domain.holds import HeldVersion
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.registry import Page
from tests.workflow.aftercare import held
from tests.workflow.world import NOW, Arm, World, direct, until

# --- bake ------------------------------------------------------------------------------------------------------------


async def test_a_baking_version_serves_all_while_the_old_one_stays_warm(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        handle = await world.start(world.request(direct(bake_period=timedelta(seconds=3))))
        baking = await until(handle, lambda p: p.step_title == "bake" and p.verdict is not None)
        route = await world.route()
        assert baking.status is DeploymentStatus.IN_PROGRESS
        assert route.stable is not None
        assert (route.stable.version, [ref.version for ref in route.warm]) == ("2.0.0", ["1.0.0"])
        assert all(node.loaded == {"1.0.0", "2.0.0"} for node in world.nodes)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.COMPLETED, progress.outcome_reason
    assert (await world.route()).warm == ()
    assert all(node.loaded == {"2.0.0"} for node in world.nodes)


async def test_a_version_that_fails_while_it_bakes_is_undone_without_loading(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        before = await world.route()
        handle = await world.start(world.request(direct(bake_period=timedelta(seconds=10))))
        await until(handle, lambda p: p.step_title == "bake")
        world.figures.arms["2.0.0"] = Arm(requests=400, errors=200)
        progress = await handle.result()
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "the verdict failed at 100 %" in progress.outcome_reason
    assert await world.route() == before
    assert [what for what, _ in world.nodes[0].orders][-2:] == ["apply", "retire"]
    assert all(node.loaded == {"1.0.0"} for node in world.nodes)


# --- holds -----------------------------------------------------------------------------------------------------------


async def hold(world: World) -> None:
    async with world.records.unit_of_work() as uow:
        await uow.held.hold(
            HeldVersion(
                environment=Environment.DEVELOPMENT,
                plugin=world.name,
                version="2.0.0",
                deployment_id="dep_1",
                reason="it crashed",
                held_by=MONITOR,
                held_at=NOW,
            )
        )
        await uow.commit()


async def test_a_held_version_does_not_come_again_by_itself(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        await hold(world)
        progress = await world.deploy(world.request(direct()))
    assert progress.status is DeploymentStatus.ROLLED_BACK
    assert "is held in Development" in progress.outcome_reason
    assert "overrideHold" in progress.outcome_reason


async def test_a_reason_lifts_the_hold_and_is_audited(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        await hold(world)
        request = world.request(direct(), override_hold="the node was broken, not the version")
        progress = await world.deploy(request)
    assert progress.status is DeploymentStatus.COMPLETED
    assert await held(world) is None
    async with world.records.unit_of_work() as uow:
        entries, _ = await uow.audit.list(request.deployment_id, "dana", Page(limit=100))
    [entry] = [entry for entry in entries if entry.event_type == "version.hold-overridden"]
    assert entry.details["reason"] == "the node was broken, not the version"


async def add_version(world: World, version: str) -> None:
    async with world.records.unit_of_work() as uow:
        await uow.versions.add(await world._version(version))
        await uow.commit()


async def test_revisions_stay_warm_for_as_many_rollouts_as_asked(world: World) -> None:
    async with world.working():
        await world.serve_first_version()
        config = direct(rollback_window_revisions=2)
        for version in ("2.0.0", "3.0.0", "4.0.0"):
            if version != "2.0.0":
                await add_version(world, version)
            assert (await world.deploy(world.request(config, version=version))).status is DeploymentStatus.COMPLETED
        route = await world.route()
    assert [ref.version for ref in route.warm] == ["3.0.0", "2.0.0"]
    assert all(node.loaded == {"4.0.0", "3.0.0", "2.0.0"} for node in world.nodes)
