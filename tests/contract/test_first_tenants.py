"""Two plugins that are tied get their first tenants at the same moment: the second is judged beside the first (ADR 31)."""

import asyncio

import pytest
from temporalio.exceptions import ApplicationError

from activities.dependencies import admit
from activities.routing import RouteWritten, RoutingActivities, WriteRoutes
from hotswap.adapters.postgres.database import Database
from hotswap.dependencies.models import Release
from hotswap.domain.deployment import Environment
from hotswap.domain.manifest import Dependency
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from tests.contract.factories import make_manifest, make_plugin, make_route, make_version

BLOCKED = 0.3
"""Seconds in which a write that waits for nobody is long done."""


def needs(name: str, constraint: str = "*", *conflicts: str) -> Dependency:
    return Dependency(name=name, version_constraint=constraint, conflicts=conflicts)


async def register(unit_of_work: UnitOfWorkFactory) -> UnitOfWorkFactory:
    """tax serves 1.0.0 and is to go to 2.0.0. billing needs tax 1; report works with no tax 2; other and third need base."""
    releases: dict[str, dict[str, tuple[Dependency, ...]]] = {
        "tax": {"1.0.0": (), "2.0.0": ()},
        "base": {"1.0.0": ()},
        "billing": {"1.0.0": (needs("tax", "^1"),)},
        "report": {"1.0.0": (needs("base", "*", "tax@^2"),)},
        "other": {"1.0.0": (needs("base"),)},
        "third": {"1.0.0": (needs("base"),)},
    }
    async with unit_of_work() as uow:
        for plugin, versions in releases.items():
            await uow.plugins.add(make_plugin(plugin))
            for version, dependencies in versions.items():
                manifest = make_manifest(plugin, version, dependencies=dependencies)
                await uow.versions.add(make_version(plugin, version, manifest=manifest))
        for plugin in ("tax", "base"):
            await uow.routes.write("QA", plugin, 0, make_route(plugin, "1.0.0"), "dep-0")
        await uow.commit()
    return unit_of_work


@pytest.fixture
async def registered(unit_of_work: UnitOfWorkFactory) -> UnitOfWorkFactory:
    return await register(unit_of_work)


async def give_first_tenant(uow: UnitOfWork, plugin: str, version: str, generation: int) -> None:
    """What write_routes does before it commits."""
    found = await uow.versions.get(plugin, version)
    await admit(uow, Release(plugin=plugin, version=version, dependencies=found.manifest.dependencies), Environment.QA)
    await uow.routes.write("QA", plugin, generation, make_route(plugin, version), f"dep-{plugin}")


def write(
    unit_of_work: UnitOfWorkFactory, plugin: str, version: str, generation: int
) -> "asyncio.Future[RouteWritten]":
    order = WriteRoutes(
        environment="QA",
        plugin=plugin,
        deployment_id=f"dep-{plugin}",
        expected_generation=generation,
        state=make_route(plugin, version),
        admit=version,
    )
    return asyncio.ensure_future(RoutingActivities(unit_of_work).write_routes(order))


@pytest.mark.parametrize("dependent", ["billing", "report"])
@pytest.mark.parametrize("dependent_first", [True, False])
async def test_the_second_of_two_that_break_each_other_is_refused(
    registered: UnitOfWorkFactory, dependent: str, dependent_first: bool
) -> None:
    both = [(dependent, "1.0.0", 0), ("tax", "2.0.0", 1)]
    first, second = both if dependent_first else reversed(both)
    async with registered() as uow:
        await give_first_tenant(uow, *first)
        waiting = write(registered, *second)
        await asyncio.wait({waiting}, timeout=BLOCKED)
        await uow.commit()
    with pytest.raises(ApplicationError) as refused:
        await waiting
    assert refused.value.type == "DependencyConflict"
    async with registered() as uow:
        there = await uow.routes.current("QA", second[0])
    assert (there.generation if there else 0) == second[2], "nothing was written"


async def test_a_first_that_fails_leaves_the_way_to_the_second(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        await give_first_tenant(uow, "billing", "1.0.0", 0)
        waiting = write(registered, "tax", "2.0.0", 1)
        await asyncio.wait({waiting}, timeout=BLOCKED)
    assert (await waiting).generation == 2


@pytest.mark.stack
async def test_plugins_that_merely_need_the_same_one_wait_for_nobody(database: Database) -> None:
    """On PostgreSQL: the twin lets one write at a time."""
    registered = await register(database.unit_of_work)
    async with registered() as uow:
        await give_first_tenant(uow, "other", "1.0.0", 0)
        assert (await write(registered, "third", "1.0.0", 0)).generation == 1
        assert (await write(registered, "billing", "1.0.0", 0)).generation == 1
        await uow.commit()


async def test_many_at_once_end_without_a_deadlock(registered: UnitOfWorkFactory) -> None:
    """All of them at once, many times: somebody always gets through, and what serves fits."""
    for turn in range(5):
        generations = {}
        async with registered() as uow:
            for plugin in ("billing", "report", "other", "third", "tax"):
                current = await uow.routes.current("QA", plugin)
                generations[plugin] = current.generation if current else 0
        writes = [
            write(registered, plugin, "2.0.0" if plugin == "tax" and turn % 2 else "1.0.0", generation)
            for plugin, generation in generations.items()
        ]
        ended = await asyncio.gather(*writes, return_exceptions=True)
        faults = [one for one in ended if isinstance(one, BaseException)]
        assert {getattr(one, "type", repr(one)) for one in faults} <= {"DependencyConflict"}
        async with registered() as uow:
            serving = await uow.dependencies.serving("QA")
        dependents = {"billing", "report"} & serving.keys()
        assert not dependents or [one.version for one in serving["tax"]] == ["1.0.0"]
