"""One contract for versions: PostgreSQL and its in-memory twin. SemVer decides their order, not text."""

import asyncio

import pytest

from hotswap.domain.errors import Conflict, NotFound
from hotswap.domain.manifest import Method
from hotswap.domain.registry import Page, Plugin
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import make_manifest, make_plugin, make_version

EVERYTHING = Page(limit=100)


async def add(unit_of_work: UnitOfWorkFactory, *plugins: Plugin) -> None:
    async with unit_of_work() as uow:
        for plugin in plugins:
            await uow.plugins.add(plugin)
        await uow.commit()


async def test_a_version_comes_back_as_it_was_given(unit_of_work: UnitOfWorkFactory) -> None:
    schema = {"type": "object", "properties": {"größe": {"type": "number", "maximum": 1.5}}, "required": ["größe"]}
    manifest = make_manifest(
        "kept", "1.2.3-rc.1+build.5", methods=(Method(name="run", parameters=schema, idempotent=True),)
    )
    version = make_version("kept", "1.2.3-rc.1+build.5", manifest=manifest, release_notes="Notes: ' % \\ 🎉")
    await add(unit_of_work, make_plugin("kept"))
    async with unit_of_work() as uow:
        await uow.versions.add(version)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.versions.get("kept", "1.2.3-rc.1+build.5") == version
        assert (await uow.versions.list("kept", Page()))[0] == [version]


async def test_a_version_is_immutable(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, make_plugin("fixed"))
    async with unit_of_work() as uow:
        first = make_version("fixed")
        await uow.versions.add(first)
        with pytest.raises(Conflict, match=r"fixed 1\.0\.0 is there already"):
            await uow.versions.add(make_version("fixed", digest="f" * 64))
        assert await uow.versions.get("fixed", "1.0.0") == first


async def test_versions_of_no_plugin_are_not_found(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, make_plugin("empty"))
    async with unit_of_work() as uow:
        with pytest.raises(NotFound, match="'ghost'"):
            await uow.versions.add(make_version("ghost"))
        with pytest.raises(NotFound, match="'ghost'"):
            await uow.versions.list("ghost", Page())
        with pytest.raises(NotFound, match=r"version 9\.9\.9 of plugin 'empty'"):
            await uow.versions.get("empty", "9.9.9")
        assert await uow.versions.list("empty", Page()) == ([], 0)


async def test_versions_are_ordered_as_semver_orders_them(unit_of_work: UnitOfWorkFactory) -> None:
    rising = [
        "0.9.10",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.0+build.1",
        "1.2.0",
        "1.10.0",
        "10.0.0-0",
        "10.0.0",
        "100000000000000000000.0.0",
    ]
    await add(unit_of_work, make_plugin("many"))
    async with unit_of_work() as uow:
        for version in [*rising[::2], *reversed(rising[1::2])]:
            await uow.versions.add(make_version("many", version))
        await uow.commit()
        found, total = await uow.versions.list("many", EVERYTHING)
        assert [row.version for row in found] == rising[::-1]
        assert total == len(rising)
        page, total = await uow.versions.list("many", Page(limit=2, offset=1))
        assert [row.version for row in page] == ["10.0.0", "10.0.0-0"]
        assert (await uow.plugins.get("many")).current_version == rising[-1]


async def test_current_version_only_rises(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, make_plugin("rising"))
    for version, current in (("1.9.0", "1.9.0"), ("1.10.0", "1.10.0"), ("1.9.1", "1.10.0"), ("1.10.0-rc.1", "1.10.0")):
        async with unit_of_work() as uow:
            await uow.versions.add(make_version("rising", version))
            await uow.commit()
            assert (await uow.plugins.get("rising")).current_version == current


async def test_concurrent_uploads_leave_the_highest_version_current(unit_of_work: UnitOfWorkFactory) -> None:
    await add(unit_of_work, make_plugin("busy"))

    async def upload(number: int) -> None:
        async with unit_of_work() as uow:
            await uow.versions.add(make_version("busy", f"1.{number}.0"))
            await uow.commit()

    await asyncio.gather(*(upload(number) for number in (3, 12, 1, 9, 10, 2)))
    async with unit_of_work() as uow:
        assert (await uow.plugins.get("busy")).current_version == "1.12.0"
        assert (await uow.versions.list("busy", Page()))[1] == 6
