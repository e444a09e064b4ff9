"""Contract of the stores of the time after a rollout: held versions and drift reports, on PostgreSQL and its twin."""

from datetime import timedelta

import pytest

from hotswap.domain.deployment import Environment
from hotswap.domain.drift import DriftItem, DriftKind, DriftReport
from hotswap.domain.errors import InvalidInput, NotFound
from hotswap.domain.holds import HeldVersion
from hotswap.domain.registry import Page
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import EPOCH, make_plugin, make_version, unique


def made(plugin: str, version: str = "1.0.0", **changes: object) -> HeldVersion:
    given = {
        "environment": Environment.PRODUCTION,
        "deployment_id": "dep_1",
        "reason": "3 looks in a row found a fault",
        "held_by": "hotswap-monitor",
        "held_at": EPOCH,
    } | changes
    return HeldVersion.model_validate({"plugin": plugin, "version": version, **given})


async def registered(unit_of_work: UnitOfWorkFactory, *versions: str) -> str:
    name = unique()
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(name))
        for version in versions or ("1.0.0",):
            await uow.versions.add(make_version(name, version))
        await uow.commit()
    return name


async def test_a_held_version_is_found_where_it_is_held_and_nowhere_else(unit_of_work: UnitOfWorkFactory) -> None:
    name = await registered(unit_of_work, "1.0.0", "2.0.0")
    async with unit_of_work() as uow:
        await uow.held.hold(made(name))
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.held.find("Production", name, "1.0.0") == made(name)
        assert await uow.held.find("Staging", name, "1.0.0") is None
        assert await uow.held.find("Production", name, "2.0.0") is None


async def test_a_version_held_again_says_why_it_was_held_last(unit_of_work: UnitOfWorkFactory) -> None:
    name = await registered(unit_of_work)
    again = made(name, reason="it crashed again", deployment_id="dep_2", held_at=EPOCH + timedelta(days=1))
    async with unit_of_work() as uow:
        await uow.held.hold(made(name))
        await uow.held.hold(again)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.held.list(None, Page()) == ([again], 1)


async def test_a_lifted_hold_is_gone_and_lifting_again_says_so(unit_of_work: UnitOfWorkFactory) -> None:
    name = await registered(unit_of_work)
    async with unit_of_work() as uow:
        await uow.held.hold(made(name))
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.held.lift("Production", name, "1.0.0")
        await uow.commit()
    async with unit_of_work() as uow:
        assert not await uow.held.lift("Production", name, "1.0.0")
        assert await uow.held.find("Production", name, "1.0.0") is None


async def test_holds_are_listed_newest_first_by_environment(unit_of_work: UnitOfWorkFactory) -> None:
    name = await registered(unit_of_work, "1.0.0", "2.0.0", "3.0.0")
    rows = [
        made(name, "1.0.0", held_at=EPOCH),
        made(name, "2.0.0", held_at=EPOCH + timedelta(hours=2)),
        made(name, "3.0.0", held_at=EPOCH + timedelta(hours=1), environment=Environment.STAGING),
    ]
    async with unit_of_work() as uow:
        for row in rows:
            await uow.held.hold(row)
        await uow.commit()
    async with unit_of_work() as uow:
        found, total = await uow.held.list(None, Page())
        assert ([row.version for row in found], total) == (["2.0.0", "3.0.0", "1.0.0"], 3)
        found, total = await uow.held.list("Production", Page(limit=1))
        assert ([row.version for row in found], total) == (["2.0.0"], 2)


async def test_only_a_registered_version_can_be_held(unit_of_work: UnitOfWorkFactory) -> None:
    name = await registered(unit_of_work)
    async with unit_of_work() as uow:
        with pytest.raises(NotFound):
            await uow.held.hold(made(name, "9.9.9"))
        await uow.held.hold(made(name))
        await uow.commit()
    async with unit_of_work() as uow:
        assert (await uow.held.list(None, Page()))[1] == 1


async def test_a_deleted_plugin_takes_its_holds_along(unit_of_work: UnitOfWorkFactory) -> None:
    name = await registered(unit_of_work)
    async with unit_of_work() as uow:
        await uow.held.hold(made(name))
        await uow.commit()
    async with unit_of_work() as uow:
        await uow.plugins.delete(name)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.held.find("Production", name, "1.0.0") is None


async def test_what_no_row_can_hold_is_refused(unit_of_work: UnitOfWorkFactory) -> None:
    name = await registered(unit_of_work)
    async with unit_of_work() as uow:
        with pytest.raises(InvalidInput, match="heldBy"):
            await uow.held.hold(made(name, held_by="a\0b"))
        with pytest.raises(InvalidInput, match="deploymentId"):
            await uow.held.hold(made(name, deployment_id="d" * 300))


def drift(total: int = 1, minutes: int = 0, environment: Environment = Environment.QA) -> DriftReport:
    item = DriftItem(kind=DriftKind.EXTRA_HOST, node_id="node-1", plugin="p", version="1.0.0", expected="x", found="y")
    return DriftReport(
        environment=environment,
        taken_at=EPOCH + timedelta(minutes=minutes),
        nodes=3,
        plugins=5,
        total=total,
        items=(item,) * total,
    )


async def test_the_newest_report_of_an_environment_is_kept(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        assert await uow.drift.last("QA") is None
        await uow.drift.save(drift(1, minutes=1))
        await uow.drift.save(drift(2, minutes=2))
        await uow.drift.save(drift(0, minutes=0))
        await uow.drift.save(drift(5, minutes=9, environment=Environment.STAGING))
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.drift.last("QA") == drift(2, minutes=2)


async def test_a_report_that_was_not_committed_was_not_kept(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.drift.save(drift())
    async with unit_of_work() as uow:
        assert await uow.drift.last("QA") is None
