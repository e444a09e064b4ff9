"""One contract for tenants' quotas: PostgreSQL and its in-memory twin."""

import psycopg
import pytest

from hotswap.adapters.postgres.database import Database
from hotswap.domain.errors import InvalidInput, NotFound
from hotswap.domain.quota import Quota, QuotaOverride, TenantQuota
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import make_plugin, make_version

PLUGIN = "exporter"


@pytest.fixture
async def registered(unit_of_work: UnitOfWorkFactory) -> UnitOfWorkFactory:
    async with unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        await uow.versions.add(make_version(PLUGIN, "1.0.0"))
        await uow.commit()
    return unit_of_work


async def test_what_is_set_is_listed_and_may_be_taken_back(registered: UnitOfWorkFactory) -> None:
    big = QuotaOverride(requests_per_minute=5000, execution_seconds=2.5)
    async with registered() as uow:
        assert await uow.quotas.list() == []
        await uow.quotas.set("globex", PLUGIN, QuotaOverride(concurrent=1), "ada")
        await uow.quotas.set("acme", PLUGIN, QuotaOverride(concurrent=3), "ada")
        await uow.quotas.set("acme", PLUGIN, big, "ada")
        await uow.commit()
    async with registered() as uow:
        assert await uow.quotas.list() == [
            TenantQuota(tenant="acme", plugin=PLUGIN, override=big),
            TenantQuota(tenant="globex", plugin=PLUGIN, override=QuotaOverride(concurrent=1)),
        ]
        await uow.quotas.set("globex", PLUGIN, None, "ada")
        await uow.quotas.set("nobody", PLUGIN, None, "ada")
        assert [quota.tenant for quota in await uow.quotas.list()] == ["acme"]


async def test_lists_go_on_where_they_ended_and_the_stamp_tells_of_every_change(registered: UnitOfWorkFactory) -> None:
    stamps = []
    async with registered() as uow:
        stamps.append(await uow.quotas.stamp())
        for tenant in ("a", "b", "c", "d"):
            await uow.quotas.set(tenant, PLUGIN, QuotaOverride(concurrent=1), "ada")
        stamps.append(await uow.quotas.stamp())
        assert await uow.quotas.stamp() == stamps[-1]
        first = await uow.quotas.list(limit=3)
        rest = await uow.quotas.list(("c", PLUGIN), limit=3)
        assert [quota.tenant for quota in (*first, *rest)] == ["a", "b", "c", "d"]
        await uow.quotas.set("b", PLUGIN, QuotaOverride(concurrent=2), "ada")
        stamps.append(await uow.quotas.stamp())
        await uow.quotas.set("b", PLUGIN, None, "ada")
        stamps.append(await uow.quotas.stamp())
    assert len(set(stamps)) == 4


async def test_a_quota_and_a_pin_of_one_tenant_do_not_touch_each_other(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        await uow.pins.pin("acme", PLUGIN, "1.0.0", "ada")
        await uow.quotas.set("acme", PLUGIN, QuotaOverride(concurrent=3), "ada")
        assert set(await uow.pins.pins(PLUGIN)) == {"acme"}
        await uow.pins.pin("acme", PLUGIN, None, "ada")
        assert [quota.override.concurrent for quota in await uow.quotas.list()] == [3]
        await uow.quotas.set("acme", PLUGIN, None, "ada")
        assert await uow.quotas.list() == []


async def test_an_unknown_plugin_is_not_found_and_a_deleted_one_takes_its_quotas_along(
    registered: UnitOfWorkFactory,
) -> None:
    async with registered() as uow:
        with pytest.raises(NotFound, match="'unknown' is not registered"):
            await uow.quotas.set("acme", "unknown", QuotaOverride(concurrent=1), "ada")
        with pytest.raises(InvalidInput, match="tenant"):
            await uow.quotas.set("a" * 256, PLUGIN, QuotaOverride(concurrent=1), "ada")
        await uow.quotas.set("acme", PLUGIN, QuotaOverride(concurrent=1), "ada")
        await uow.plugins.delete(PLUGIN)
        assert await uow.quotas.list() == []


@pytest.mark.stack
async def test_a_row_that_somebody_else_wrote_names_its_fault_and_hides_no_other(
    database: Database, database_url: str
) -> None:
    async with database.unit_of_work() as uow:
        await uow.plugins.add(make_plugin(PLUGIN))
        for tenant in ("a", "b", "c", "d"):
            await uow.quotas.set(tenant, PLUGIN, QuotaOverride(concurrent=1), "ada")
        await uow.commit()
    for tenant, quotas in (("a", '{"concurrent": 0}'), ("b", '{"requests": 5}'), ("c", '"many"')):
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(
                "UPDATE tenant_plugin_configs SET quotas = %s::jsonb WHERE tenant_id = %s", (quotas, tenant)
            )
    async with database.unit_of_work() as uow:
        a, b, c, d = await uow.quotas.list()
    assert a.fault.startswith("concurrent: ")
    assert b.fault.startswith("requests: ")
    assert c.fault.startswith("quotas: ")
    assert (d.fault, d.override.concurrent) == ("", 1)
    assert {quota.override for quota in (a, b, c)} == {QuotaOverride()}


def test_an_override_replaces_only_what_it_names() -> None:
    default = Quota(requests_per_minute=7)
    assert QuotaOverride().over(default) == default
    assert QuotaOverride(memory_mb=9).over(default) == Quota(requests_per_minute=7, memory_mb=9)
