"""What stands between a version and its tenants, on a real Temporal server: status, dependencies, and retention's schedule."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.service import RPCError

from hotswap.domain.ids import artifact_key
from hotswap.domain.lifecycle import VersionStatus
from hotswap.domain.manifest import Dependency, Manifest
from hotswap.domain.registry import Plugin, PluginVersion
from hotswap.domain.routes import RouteState
from tests.workflow.world import NOW, World, canary, direct, until
from workflows.retention_start import keep_retention


async def serve_other(world: World, name: str, version: str, *dependencies: Dependency) -> None:
    """Another plugin's version serves everybody in Development, however it got there."""
    manifest = Manifest.model_validate(
        {"name": name, "version": version, "entryPoint": "m:C", "methods": [{"name": "run"}]}
    ).model_copy(update={"dependencies": dependencies})
    row = PluginVersion(
        plugin=name, version=version, manifest=manifest, digest="d" * 64, size_bytes=1, created_by="dev", created_at=NOW
    )
    async with world.records.unit_of_work() as uow:
        if (name, version) not in world.records.committed.versions:
            if name not in world.records.committed.plugins:
                await uow.plugins.add(Plugin(name=name, display_name=name, created_at=NOW, updated_at=NOW))
            await uow.versions.add(row)
        current = await uow.routes.current("Development", name)
        generation = current.generation if current else 0
        await uow.routes.write("Development", name, generation, RouteState(stable=row.ref), "dep_other")
        await uow.commit()


async def change(world: World, version: str, **changes: Any) -> None:
    versions = world.records.committed.versions
    found = versions[(world.name, version)]
    if needs := changes.pop("needs", None):
        changes["manifest"] = found.manifest.model_copy(update={"dependencies": (needs,)})
    versions[(world.name, version)] = found.model_copy(update=changes)


def needs(name: str, constraint: str) -> Dependency:
    return Dependency(name=name, version_constraint=constraint)


@pytest.mark.parametrize("strategy", ["canary", "direct"])
async def test_what_a_version_needs_is_looked_at_again_before_its_first_tenant(world: World, strategy: str) -> None:
    tax = f"{world.name}-tax"
    async with world.working():
        await world.serve_first_version()
        await serve_other(world, tax, "1.0.0")
        await change(world, "2.0.0", needs=needs(tax, "^1"))
        staged = world.nodes[0].hold_stage = asyncio.Event()
        request = world.request(canary((50, 100)) if strategy == "canary" else direct())
        handle = await world.start(request)
        await until(handle, lambda p: p.route_generation >= 2)
        await serve_other(world, tax, "2.0.0")  # somebody moves what it needs while it is loaded
        staged.set()
        progress = await handle.result()
    assert progress.status == "RolledBack"
    assert f"{world.name} 2.0.0 needs {tax} ^1, but 2.0.0 serves" in progress.outcome_reason
    weights = [order.state.candidate_weight for node in world.nodes for _, order in node.orders]
    assert set(weights) == {0}
    route = await world.route()
    assert route.stable is not None
    assert (route.stable.version, route.candidate) == ("1.0.0", None)


async def test_a_deployment_that_would_break_a_dependent_is_refused_and_the_way_back_is_not(world: World) -> None:
    reports = f"{world.name}-reports"
    async with world.working():
        await world.serve_first_version()
        taken = world.request(direct())
        assert (await world.deploy(taken)).status == "Completed"
        await serve_other(world, reports, "3.0.0", needs(world.name, "^2"))
        refused = await world.deploy(world.request(direct(), version="1.0.0"))
        back = await world.deploy(world.request(direct(), version="1.0.0", rollback_of=taken.deployment_id))
    assert (refused.status, refused.step_count) == ("RolledBack", 0)  # refused before there was a plan
    assert f"{reports} 3.0.0 serves and needs {world.name} ^2" in refused.outcome_reason
    assert back.status == "Completed"


@pytest.mark.parametrize(
    ("changes", "more", "said"),
    [
        ({"status": VersionStatus.ARCHIVED}, {}, "is Archived and may not be deployed to Development"),
        ({"status": VersionStatus.DEPRECATED}, {}, "allowDeprecated"),
        ({"status": VersionStatus.DEPRECATED}, {"allow_deprecated": True}, ""),
        ({"status": VersionStatus.DRAFT}, {}, ""),
    ],
)
async def test_the_status_of_a_version_is_asked_when_it_is_planned(
    world: World, changes: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    async with world.working():
        await world.serve_first_version()
        await change(world, "2.0.0", **changes)
        progress = await world.deploy(world.request(direct(), **more))
    assert progress.status == ("RolledBack" if said else "Completed")
    assert said in progress.outcome_reason


async def test_retention_runs_on_its_schedule_and_stops_with_it(world: World) -> None:
    schedule, hour = f"retention-{world.name}", timedelta(hours=1)
    handle = world.client.get_schedule_handle(schedule)
    archived = {"status": VersionStatus.ARCHIVED, "archived_at": NOW - hour}
    key = artifact_key(world.name, world.records.committed.versions[(world.name, "2.0.0")].digest)

    async def sweep() -> None:
        done = (await handle.describe()).info.num_actions
        await handle.trigger()
        async with asyncio.timeout(60):
            while True:
                info = (await handle.describe()).info
                if info.num_actions > done and not info.running_actions:
                    return
                await asyncio.sleep(0.05)

    async with world.working():
        await world.serve_first_version()
        await change(world, "2.0.0", **archived)
        await keep_retention(world.client, world.queue, hour, 2 * hour, schedule)
        await sweep()
        assert key in world.store.objects  # not archived for long enough
        await keep_retention(world.client, world.queue, hour, hour, schedule)
        await sweep()
        assert key not in world.store.objects
        gone = world.records.committed.versions[(world.name, "2.0.0")]
        assert gone.artifact_removed_at == NOW
        for _ in range(2):
            await keep_retention(world.client, world.queue, timedelta(0), hour, schedule)
        with pytest.raises(RPCError):
            await handle.describe()
