"""Dependencies over HTTP: the tree of each environment, whether a version fits, and refusals with chain and remedy."""

from typing import Any

import pytest

from tests.http.bundles import bundle, sha256
from tests.http.site import API, Site, error_of, fields_of


async def ship(site: Site, name: str, version: str, *needs: tuple[str, str], **more: Any) -> None:
    if (await site.admin.get(f"{API}/plugins/{name}")).status_code == 404:
        await site.register(name)
    declared = [{"name": plugin, "versionConstraint": constraint, **more} for plugin, constraint in needs]
    content = bundle(name, version, dependencies=declared)
    path = f"{API}/plugins/{name}/versions"
    made = await site.developer.post(path, data={"version": version}, files={"binary": ("p.zip", content)})
    assert made.status_code == 201, made.text
    assert made.json()["digest"] == sha256(content)


@pytest.fixture
async def shop(site: Site) -> Site:
    """QA serves billing 1.4.0 and tax 2.0.0; reports 3.0.0 needs billing ^2.0, and billing 2.1.0 needs tax ^3."""
    await ship(site, "tax", "2.0.0")
    await ship(site, "tax", "3.0.1")
    await ship(site, "billing", "1.4.0")
    await ship(site, "billing", "2.1.0", ("tax", "^3"))
    await ship(site, "reports", "3.0.0", ("billing", "^2.0"))
    await site.serve("billing", "QA", "1.4.0", "dep_1")
    await site.serve("tax", "QA", "2.0.0", "dep_2")
    return site


async def start(site: Site, plugin: str, version: str, path: str = "", **more: Any) -> Any:
    body = {"pluginId": plugin, "version": version, "environment": "QA", **more}
    return await site.admin.post(f"{API}/deployments{path}", json=body)


async def test_a_deployment_that_lacks_something_is_refused_with_the_chain_and_what_to_do(shop: Site) -> None:
    for path in ("", "/plan"):
        error = error_of(await start(shop, "reports", "3.0.0", path), 400, "DEPENDENCY_CONFLICT")
        assert error["message"] == (
            "reports 3.0.0 does not fit QA: reports 3.0.0 needs billing ^2.0, but 1.4.0 serves. Chain: reports 3.0.0 -> "
            "billing ^2.0 (1.4.0 serves). To do: deploy tax 3.0.1, then billing 2.1.0 first"
        )
        assert list(fields_of(error)) == ["version"]
    assert shop.rollouts.started == []
    assert "tax ^3" in error_of(await start(shop, "billing", "2.1.0"), 400, "DEPENDENCY_CONFLICT")["message"]
    for plugin, version in (("tax", "3.0.1"), ("billing", "2.1.0")):
        assert (await start(shop, plugin, version)).status_code == 202
        await shop.serve(plugin, "QA", version, f"dep_{plugin}")
    assert (await start(shop, "reports", "3.0.0")).status_code == 202


async def test_a_deployment_that_would_break_a_dependent_names_it(shop: Site) -> None:
    await shop.serve("tax", "QA", "3.0.1", "dep_3")
    await shop.serve("billing", "QA", "2.1.0", "dep_4")
    error = error_of(await start(shop, "tax", "2.0.0"), 400, "DEPENDENCY_CONFLICT")
    assert "billing 2.1.0 serves and needs tax ^3" in error["message"]
    # elsewhere nobody minds
    assert (await start(shop, "tax", "2.0.0", environment="Development")).status_code == 202


async def test_what_waits_in_line_is_judged_when_its_turn_comes(shop: Site) -> None:
    assert (await start(shop, "reports", "3.0.0", environment="Development")).status_code == 400
    await ship(shop, "reports", "2.0.0")
    assert (await start(shop, "reports", "2.0.0")).status_code == 202
    queued = await start(shop, "reports", "3.0.0", onConflict="queue")
    assert queued.status_code == 202, queued.text


async def validate(site: Site, version: str, plugin: str = "reports", environment: str = "QA") -> dict[str, Any]:
    body = {"version": version, "environment": environment}
    answer = await site.viewer.post(f"{API}/plugins/{plugin}/validate-dependencies", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_validating_says_the_same_and_starts_nothing(shop: Site) -> None:
    found = await validate(shop, "3.0.0")
    assert (found["valid"], found["problems"][0]["kind"]) == (False, "Unsatisfied")
    assert found["first"] == [{"pluginId": "tax", "version": "3.0.1"}, {"pluginId": "billing", "version": "2.1.0"}]
    assert found["suggestion"] == "deploy tax 3.0.1, then billing 2.1.0 first"
    assert (await validate(shop, "1.4.0", "billing"))["valid"] is True
    async with shop.records.unit_of_work() as uow:
        await uow.pins.pin("acme", "billing", "1.4.0", "admin")
        await uow.commit()
    (warning,) = (await validate(shop, "3.0.0"))["warnings"]
    assert warning == "1 tenants are pinned to billing 1.4.0, which reports 3.0.0 does not take (^2.0)"
    assert "acme" not in warning
    path = f"{API}/plugins/reports/validate-dependencies"
    error_of(await shop.viewer.post(path, json={"version": "9.0.0", "environment": "QA"}), 404, "NOT_FOUND")
    error_of(await shop.viewer.post(path, json={"version": "3.0.0"}), 400, "VALIDATION_ERROR")


async def test_what_cannot_be_deployed_there_is_not_suggested(shop: Site) -> None:
    """tax 3.0.1 waits for its approval: nothing to deploy first in Production."""
    found = await validate(shop, "3.0.0", environment="Production")
    assert (found["valid"], found["first"]) == (False, [])
    assert "no registered versions fit together" in found["suggestion"]


async def test_the_tree_shows_what_serves_in_each_environment(shop: Site) -> None:
    await shop.serve("tax", "Staging", "3.0.1", "dep_3")
    await shop.serve("billing", "Staging", "2.1.0", "dep_4")
    await shop.serve("reports", "Staging", "3.0.0", "dep_5")
    path = f"{API}/plugins/reports/dependencies"
    found = {place["environment"]: place for place in (await shop.viewer.get(path)).json()["environments"]}
    assert list(found) == ["Development", "QA", "Staging", "Production"]
    staging = found["Staging"]
    assert (staging["serves"], staging["satisfied"]) == ("3.0.0", True)
    (billing,) = staging["dependencies"]
    assert (billing["name"], billing["versionConstraint"], billing["serves"]) == ("billing", "^2.0", ["2.1.0"])
    assert [(one["name"], one["serves"], one["satisfied"]) for one in billing["dependencies"]] == [
        ("tax", ["3.0.1"], True)
    ]
    assert (found["QA"]["serves"], found["QA"]["version"], found["QA"]["satisfied"]) == (None, "3.0.0", False)
    assert found["QA"]["dependencies"][0]["satisfied"] is False
    of_tax = (await shop.viewer.get(f"{API}/plugins/tax/dependencies", params={"environment": "Staging"})).json()
    assert [place["dependents"] for place in of_tax["environments"]] == [["billing 2.1.0"]]
    asked = (await shop.viewer.get(f"{API}/plugins/billing/dependencies", params={"version": "2.1.0"})).json()
    assert {place["version"] for place in asked["environments"]} == {"2.1.0"}
    error_of(await shop.viewer.get(f"{API}/plugins/ghost/dependencies"), 404, "NOT_FOUND")
    error_of(await shop.viewer.get(path, params={"version": "9.9.9"}), 404, "NOT_FOUND")
    error_of(await shop.viewer.get(path, params={"environment": "Moon"}), 400, "VALIDATION_ERROR")


async def test_a_plugin_without_versions_needs_nothing(site: Site) -> None:
    await site.register()
    places = (await site.viewer.get(f"{API}/plugins/greeter/dependencies")).json()["environments"]
    assert {place["version"] for place in places} == {None}
    assert all(place["satisfied"] and place["dependencies"] == [] for place in places)
