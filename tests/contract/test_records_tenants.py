"""One contract for tenants' plugins, their data keys and health checks: PostgreSQL and its in-memory twin."""

import uuid
from datetime import timedelta
from typing import Any

import pytest

from hotswap.domain.analysis import Health
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, InvalidInput, NotFound
from hotswap.domain.plugin_health import HealthCheck
from hotswap.domain.quota import QuotaOverride
from hotswap.domain.registry import Page
from hotswap.domain.routes import RouteState
from hotswap.domain.tenants import ChangeKind, DataKey, SealedSecret, TenantChange
from hotswap.ports.records import UnitOfWorkFactory
from hotswap.ports.tenants import HISTORY_KEPT
from tests.contract.factories import EPOCH, make_plugin, make_version

PLUGIN = "exporter"


def sealed(key_id: str) -> SealedSecret:
    return SealedSecret(key_id=key_id, sealed="bm9wZQ==", updated_at=EPOCH)


def make_key(key_id: str, tenant: str = "acme", **more: Any) -> DataKey:
    given = {"wrapped": f"wrapped {key_id}", "wrapped_by": "local:1", "created_at": EPOCH} | more
    return DataKey(key_id=key_id, tenant=tenant, **given)


def make_check(check_id: str, age: timedelta = timedelta(0), **more: Any) -> HealthCheck:
    given = {"plugin": PLUGIN, "version": "1.0.0", "environment": Environment.QA, "status": Health.HEALTHY} | more
    return HealthCheck(check_id=check_id, checked_at=EPOCH - age, figures={"node": "node-1"}, **given)


@pytest.fixture
async def registered(unit_of_work: UnitOfWorkFactory) -> UnitOfWorkFactory:
    async with unit_of_work() as uow:
        for name in (PLUGIN, "importer"):
            await uow.plugins.add(make_plugin(name))
        await uow.versions.add(make_version(PLUGIN, "1.0.0"))
        await uow.commit()
    return unit_of_work


async def test_a_row_is_made_when_it_is_held_and_comes_back_as_it_was_saved(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        assert await uow.tenants.find("acme", PLUGIN) is None
        row = await uow.tenants.hold("acme", PLUGIN, "ada")
        assert (row.enabled, row.configuration, row.secrets, row.pinned_version) == (True, None, {}, None)
        wanted = row.model_copy(
            update={
                "enabled": False,
                "pinned_version": "1.0.0",
                "configuration": {"größe": [1, None, {"a": 0.5}]},
                "secrets": {"key": sealed("dk_1")},
                "quotas": QuotaOverride(concurrent=3),
            }
        )
        saved = await uow.tenants.save(wanted)
        await uow.commit()
    assert row.updated_at is not None
    assert saved.updated_at is not None
    assert saved.updated_at >= row.updated_at
    async with registered() as uow:
        assert await uow.tenants.find("acme", PLUGIN) == saved
        assert saved.model_copy(update={"updated_at": None}) == wanted.model_copy(update={"updated_at": None})
        assert await uow.tenants.of_tenant("acme", [PLUGIN, "importer"]) == [saved]
        assert await uow.tenants.of_tenant("globex", [PLUGIN]) == []
        assert set(await uow.pins.pins(PLUGIN)) == {"acme"}, "a pin of the row is a pin of routing"
        await uow.pins.pin("acme", PLUGIN, None, "ada")
        again = await uow.tenants.hold("acme", PLUGIN, "bob")
        assert (again.pinned_version, again.configuration) == (None, saved.configuration)


async def test_what_is_unknown_is_refused_by_name(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        with pytest.raises(NotFound, match="ghost"):
            await uow.tenants.hold("acme", "ghost", "ada")
        row = await uow.tenants.hold("acme", PLUGIN, "ada")
        with pytest.raises(NotFound, match=r"9\.9\.9"):
            await uow.tenants.save(row.model_copy(update={"pinned_version": "9.9.9"}))
        with pytest.raises(InvalidInput, match="configuration"):
            await uow.tenants.save(row.model_copy(update={"configuration": {"a": "\0"}}))
        with pytest.raises(NotFound, match="hold it first"):
            await uow.tenants.save(row.model_copy(update={"tenant": "globex"}))


async def test_secrets_under_another_key_are_found(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        for tenant, plugin, key in (("acme", PLUGIN, "dk_1"), ("acme", "importer", "dk_2"), ("globex", PLUGIN, "dk_1")):
            row = await uow.tenants.hold(tenant, plugin, "ada")
            await uow.tenants.save(row.model_copy(update={"secrets": {"a": sealed("dk_2"), "b": sealed(key)}}))
        assert await uow.tenants.sealed_otherwise("acme", "dk_2", 10) == [PLUGIN]
        assert await uow.tenants.sealed_otherwise("acme", "dk_3", 10) == [PLUGIN, "importer"]
        assert await uow.tenants.sealed_otherwise("acme", "dk_3", 1) == [PLUGIN]


async def test_who_configured_a_plugin_and_may_be_moved(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        for tenant, changes in (
            ("acme", {"configuration": {"a": 1}}),
            ("bolt", {"configuration": {"b": 2}, "pinned_version": "1.0.0"}),
            ("core", {"enabled": False}),
            ("dyne", {"configuration": {}}),
        ):
            row = await uow.tenants.hold(tenant, PLUGIN, "ada")
            await uow.tenants.save(row.model_copy(update=changes))
        other = await uow.tenants.hold("acme", "importer", "ada")
        await uow.tenants.save(other.model_copy(update={"configuration": {"c": 3}}))
        assert list(await uow.tenants.configured(PLUGIN, "", 10)) == [("acme", {"a": 1}), ("dyne", {})]
        assert list(await uow.tenants.configured(PLUGIN, "", 1)) == [("acme", {"a": 1})]
        assert list(await uow.tenants.configured(PLUGIN, "acme", 10)) == [("dyne", {})]


async def test_the_latest_route_of_each_environment(registered: UnitOfWorkFactory) -> None:
    ref = make_version(PLUGIN, "1.0.0").ref
    async with registered() as uow:
        assert await uow.tenants.worn([PLUGIN]) == []
        for environment, times in ((Environment.PRODUCTION, 2), (Environment.QA, 1)):
            for generation in range(times):
                await uow.routes.write(environment, PLUGIN, generation, RouteState(stable=ref), f"dep_{generation}")
        found = await uow.tenants.routes([PLUGIN, "importer"])
        assert [(one.environment, one.generation) for one in found] == [("QA", 1), ("Production", 2)]


async def test_history_is_newest_first_and_bounded(registered: UnitOfWorkFactory) -> None:
    async with registered() as uow:
        for number in range(HISTORY_KEPT + 2):
            change = TenantChange(
                change_id=f"chg_{number:04}",
                tenant="acme",
                plugin=PLUGIN,
                kind=ChangeKind.CONFIGURED,
                by="ada",
                before={"configuration": number},
                at=EPOCH + timedelta(seconds=number),
            )
            await uow.tenants.record(change)
        found, total = await uow.tenants.history("acme", PLUGIN, Page(limit=2))
        assert (found[0], total) == (change, HISTORY_KEPT)
        oldest, _ = await uow.tenants.history("acme", PLUGIN, Page(limit=1, offset=HISTORY_KEPT - 1))
        assert oldest[0].change_id == "chg_0002"
        assert await uow.tenants.history("globex", PLUGIN, Page()) == ([], 0)
        await uow.plugins.delete(PLUGIN)
        assert await uow.tenants.history("acme", PLUGIN, Page()) == ([], 0)


async def test_data_keys_retire_and_are_rewrapped_once(registered: UnitOfWorkFactory) -> None:
    old, new = make_key("dk_b"), make_key("dk_a", created_at=EPOCH + timedelta(hours=1))
    async with registered() as uow:
        await uow.data_keys.lock("acme")
        for key in (old, new, make_key("dk_c", "globex")):
            await uow.data_keys.add(key)
        with pytest.raises(Conflict, match="dk_a"):
            await uow.data_keys.add(new)
        assert await uow.data_keys.current("acme") == new
        assert await uow.data_keys.of_tenant("acme") == [old, new]
        assert await uow.data_keys.find(["dk_b", "dk_x"]) == [old]
        assert [key.key_id for key in await uow.data_keys.page("dk_a", 1)] == ["dk_b"]
        fresh = old.model_copy(update={"wrapped": "anew", "wrapped_by": "local:2"})
        assert await uow.data_keys.rewrap(fresh, old.wrapped)
        assert not await uow.data_keys.rewrap(fresh, old.wrapped), "somebody was faster"
        assert await uow.data_keys.find(["dk_b"]) == [fresh]
        await uow.data_keys.retire(["dk_a"], EPOCH)
        await uow.data_keys.retire(["dk_a"], EPOCH + timedelta(days=9))
        assert await uow.data_keys.current("acme") == fresh
        assert await uow.data_keys.delete_retired("acme", EPOCH) == 0
        assert await uow.data_keys.delete_retired("acme", EPOCH + timedelta(seconds=1)) == 1
        assert await uow.data_keys.of_tenant("acme") == [fresh]


async def test_health_checks_are_kept_newest_first_and_forgotten_by_age(registered: UnitOfWorkFactory) -> None:
    checks = [make_check(f"hc_{uuid.uuid4().hex}", timedelta(minutes=age)) for age in range(3)]
    other = make_check("hc_other", environment=Environment.PRODUCTION, status=Health.UNHEALTHY, error="it died")
    async with registered() as uow:
        await uow.health.add([*checks, other, make_check("hc_ghost", plugin="ghost")])
        await uow.health.add([checks[0]])
        assert await uow.health.list(PLUGIN, Environment.QA, Page()) == (checks, 3)
        assert await uow.health.list(PLUGIN, Environment.PRODUCTION, Page()) == ([other], 1)
        assert (await uow.health.list(PLUGIN, None, Page(limit=1)))[1] == 4
        assert await uow.health.forget(timedelta(days=36_500), 10) == 0
        assert await uow.health.forget(timedelta(0), 2) == 2
        assert await uow.health.list(PLUGIN, Environment.QA, Page()) == (checks[:1], 1)
