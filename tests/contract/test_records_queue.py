"""One contract for what queued deployments ask of the record: who has not ended at a place, and who carries it on."""

from datetime import timedelta

import pytest

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import NotFound
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import EPOCH, make_deployment, make_plugin

PLUGIN = "exporter"


async def test_unfinished_are_those_of_one_place_oldest_request_first(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        await uow.plugins.add(make_plugin("other"))
        rows = [make_deployment(PLUGIN, requested_at=EPOCH + timedelta(seconds=age)) for age in (3, 1, 2)]
        for row in (
            *rows,
            make_deployment("other"),
            make_deployment(PLUGIN, environment=Environment.QA),
            *(make_deployment(PLUGIN, status=status) for status in sorted(TERMINAL)),
        ):
            await uow.deployments.open(row)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.deployments.unfinished("Development", PLUGIN) == [rows[1], rows[2], rows[0]]
        assert await uow.deployments.unfinished("Staging", PLUGIN) == []


@pytest.mark.parametrize("status", sorted(set(DeploymentStatus) - TERMINAL))
async def test_every_status_that_may_still_change_is_unfinished(
    unit_of_work: UnitOfWorkFactory, status: DeploymentStatus
) -> None:
    row = make_deployment(PLUGIN, status=status)
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        await uow.deployments.open(row)
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.deployments.unfinished("Development", PLUGIN) == [row]


async def test_a_deployment_that_is_handed_over_keeps_all_but_its_workflow(unit_of_work: UnitOfWorkFactory) -> None:
    row = make_deployment(PLUGIN)
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        await uow.deployments.open(row)
        await uow.deployments.hand_over(row.progress.deployment_id, "deployment/Development/exporter", "run-2")
        await uow.commit()
    async with unit_of_work() as uow:
        held = await uow.deployments.get(row.progress.deployment_id)
    assert held == row.model_copy(update={"workflow_id": "deployment/Development/exporter", "run_id": "run-2"})


async def test_nobody_can_carry_on_an_unknown_deployment(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        with pytest.raises(NotFound):
            await uow.deployments.hand_over("dep_nobody", "w", "r")
