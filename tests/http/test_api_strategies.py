"""Rolling, BlueGreen and ABTesting at the facade: defaults, plans, and refusals that name the field."""

from typing import Any

import pytest

from tests.http.site import Site, error_of, fields_of

DEPLOYMENTS = "/api/v1/deployments"


def asked(strategy: str, version: str = "2.0.0", environment: str = "Development", **config: Any) -> dict[str, Any]:
    return {
        "pluginId": "greeter",
        "version": version,
        "environment": environment,
        "strategy": strategy,
        "config": config,
    }


async def planned(site: Site, body: dict[str, Any]) -> list[str]:
    answer = await site.admin.post(f"{DEPLOYMENTS}/plan", json=body)
    assert answer.status_code == 200, answer.text
    return [step["step"]["kind"] for step in answer.json()["steps"]]


async def test_qa_and_staging_roll_by_default(site: Site) -> None:
    await site.ship()
    for environment in ("QA", "Staging"):
        body = {"pluginId": "greeter", "version": "1.0.0", "environment": environment}
        assert "switch-nodes" in await planned(site, body)


@pytest.mark.parametrize(
    ("strategy", "step"), [("Rolling", "switch-nodes"), ("BlueGreen", "smoke-nodes"), ("ABTesting", "experiment")]
)
async def test_every_strategy_is_planned_and_started(site: Site, strategy: str, step: str) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "Development", "1.0.0", "dep_0")
    assert step in await planned(site, asked(strategy))
    made = await site.admin.post(DEPLOYMENTS, json=asked(strategy))
    assert made.status_code == 202, made.text
    (request,) = site.rollouts.started
    assert request.config.kind == strategy
    assert made.json()["experiment"] is None


async def test_an_ab_test_without_a_version_in_place_is_a_conflict_that_starts_nothing(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    for path in (DEPLOYMENTS, f"{DEPLOYMENTS}/plan"):
        answer = await site.admin.post(path, json=asked("ABTesting"))
        assert "nothing to compare 2.0.0 with" in error_of(answer, 409, "CONFLICT")["message"]
    assert not site.rollouts.started


@pytest.mark.parametrize(
    ("config", "field"),
    [({"variantA": "1.5.0"}, "config.variantA"), ({"variantB": "1.0.0"}, "config.variantB")],
)
async def test_variants_that_are_not_at_hand_are_refused_by_field(
    site: Site, config: dict[str, str], field: str
) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "Development", "1.0.0", "dep_0")
    answer = await site.admin.post(DEPLOYMENTS, json=asked("ABTesting", **config))
    assert field in fields_of(error_of(answer, 400, "VALIDATION_ERROR"))
    assert not site.rollouts.started
