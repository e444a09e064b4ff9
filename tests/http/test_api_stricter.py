"""A version whose configurationSchema is stricter than what tenants have stored is refused before it can reach them."""

from typing import Any

import pytest

from activities import configurations
from hotswap.domain.routes import RouteState
from tests.http.bundles import bundle
from tests.http.site import API, Site, error_of, fields_of

LAX: dict[str, Any] = {"type": "object"}
STRICT: dict[str, Any] = {
    "type": "object",
    "properties": {"region": {"enum": ["eu", "us"]}, "mode": {"type": "string", "default": "fast"}},
    "required": ["region", "mode"],
}


async def upload(site: Site, version: str, schema: dict[str, Any]) -> None:
    answer = await site.admin.post(
        f"{API}/plugins/greeter/versions",
        data={"version": version},
        files={"binary": ("plugin.zip", bundle("greeter", version, configurationSchema=schema), "application/zip")},
    )
    assert answer.status_code == 201, answer.text


async def configure(site: Site, tenant: str, **configuration: Any) -> None:
    path = f"{API}/tenants/{tenant}/plugins/greeter/config"
    answer = await site.admin.put(path, json={"configuration": configuration})
    assert answer.status_code == 200, answer.text


@pytest.fixture
async def served(site: Site) -> Site:
    """1.0.0 takes every configuration and serves; acme's is from Mars, globex' is fine, initech has none."""
    await site.register()
    await upload(site, "1.0.0", LAX)
    await upload(site, "2.0.0", STRICT)
    async with site.records.unit_of_work() as uow:
        stable = (await uow.versions.get("greeter", "1.0.0")).ref
        await uow.routes.write("Development", "greeter", 0, RouteState(stable=stable), "dep_1")
        await uow.commit()
    await configure(site, "acme", region="mars")
    await configure(site, "globex", region="eu")
    return site


@pytest.mark.parametrize("path", ["deployments", "deployments/plan"])
async def test_tenants_and_fields_are_named_with_the_remedy_and_without_their_values(served: Site, path: str) -> None:
    body: dict[str, Any] = {"pluginId": "greeter", "version": "2.0.0", "environment": "Development"}
    error = error_of(await served.developer.post(f"{API}/{path}", json=body), 409, "CONFLICT")
    assert list(fields_of(error)) == ["tenants.acme.configuration.region"]
    assert "greeter 2.0.0 refuses what tenants have configured (acme: configuration.region)" in error["message"]
    assert "pin these tenants" in error["message"]
    assert "mars" not in str(error)
    assert served.rollouts.started == []


async def test_what_fits_or_is_pinned_or_serves_already_holds_nothing_up(served: Site) -> None:
    await served.approve("1.0.0")
    pin = await served.admin.put(f"{API}/tenants/acme/plugins/greeter/pin", json={"version": "1.0.0"})
    assert pin.status_code == 200, pin.text
    assert (await served.deploy("2.0.0")).status_code == 202


async def test_mending_the_configuration_lets_the_version_in(served: Site) -> None:
    await configure(served, "acme", region="us")
    assert (await served.deploy("2.0.0")).status_code == 202


async def test_the_same_schema_is_not_asked_again(served: Site) -> None:
    await upload(served, "1.1.0", LAX)

    class Never:
        async def fields(self, *_: Any) -> Any:
            raise AssertionError("judged again")

    served.container.deployments._judge = Never()  # type: ignore[assignment]
    assert (await served.deploy("1.1.0")).status_code == 202


async def test_a_refusal_names_so_many_tenants_and_no_more(served: Site) -> None:
    async with served.records.unit_of_work() as uow:
        for number in range(configurations.NAMED + 5):
            row = await uow.tenants.hold(f"tenant-{number:02}", "greeter", "ada")
            await uow.tenants.save(row.model_copy(update={"configuration": {"region": number}}))
        await uow.commit()
    error = error_of(await served.deploy("2.0.0"), 409, "CONFLICT")
    assert len(fields_of(error)) == configurations.NAMED
    assert "; ..." in error["message"]
