"""Freezes over HTTP: make, list, lift, the stop switch, who may, what is audited, who is woken."""

from typing import Any

import pytest

from hotswap.domain.lifecycle import DeploymentStatus
from tests.http.fake_promotions import FakePromotions
from tests.http.site import API, Site, error_of, fields_of

WEEKEND = {
    "kind": "weekly",
    "days": ["Friday"],
    "start": "16:00",
    "endDay": "Monday",
    "end": "08:00",
    "timeZone": "Europe/Berlin",
}
OPEN = {"kind": "once", "starts": "2026-01-01T00:00:00Z"}


def promotions(site: Site) -> FakePromotions:
    found = site.container.promotions
    assert isinstance(found, FakePromotions)
    return found


async def make(site: Site, **changes: Any) -> dict[str, Any]:
    body = {"window": OPEN, "reason": "quarter close", **changes}
    answer = await site.admin.post(f"{API}/freezes", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def stands(site: Site, environment: str = "Development", plugin: str = "greeter") -> dict[str, Any]:
    query = {"environment": environment, "pluginId": plugin}
    answer = await site.viewer.get(f"{API}/freezes/standing", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_freeze_is_made_found_listed_and_audited(site: Site) -> None:
    await site.register()
    made = await make(site, window=WEEKEND, environment="Production", pluginId="greeter", reason="weekends")
    assert made["window"] == WEEKEND
    assert (made["kind"], made["createdBy"], made["liftedAt"]) == ("deny", "admin", None)
    found = await site.viewer.get(f"{API}/freezes/{made['freezeId']}")
    assert found.json() == made
    for query, expected in (
        ({}, 1),
        ({"environment": "Production", "pluginId": "greeter"}, 1),
        ({"environment": "QA"}, 0),
        ({"lifted": "true"}, 0),
    ):
        assert (await site.viewer.get(f"{API}/freezes", params=query)).json()["total"] == expected
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": made["freezeId"]})).json()["items"]
    assert [(item["eventType"], item["user"], item["details"]["reason"]) for item in log] == [
        ("freeze.made", "admin", "weekends")
    ]


async def test_what_stands_follows_what_is_made_and_lifted(site: Site) -> None:
    assert (await stands(site))["frozen"] is False
    freeze = await make(site, environment="Development")
    verdict = await stands(site)
    assert (verdict["frozen"], verdict["freezeId"], verdict["until"]) == (True, freeze["freezeId"], None)
    assert (await stands(site, environment="QA"))["frozen"] is False
    lifted = await site.admin.delete(f"{API}/freezes/{freeze['freezeId']}", params={"reason": "done early"})
    assert lifted.status_code == 204, lifted.text
    assert (await site.admin.delete(f"{API}/freezes/{freeze['freezeId']}")).status_code == 204
    assert (await stands(site))["frozen"] is False
    kept = (await site.viewer.get(f"{API}/freezes/{freeze['freezeId']}")).json()
    assert (kept["liftedBy"], kept["liftReason"]) == ("admin", "done early")
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": freeze["freezeId"]})).json()["items"]
    assert [item["eventType"] for item in log] == ["freeze.lifted", "freeze.made"]


async def test_a_repeat_under_the_same_key_makes_one_freeze(site: Site) -> None:
    body = {"window": OPEN, "reason": "once"}
    answers = [await site.admin.post(f"{API}/freezes", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert (await site.viewer.get(f"{API}/freezes")).json()["total"] == 1


async def test_there_is_one_stop_switch(site: Site) -> None:
    pressed = await site.admin.post(f"{API}/freezes/stop", json={"reason": "incident 7"})
    again = await site.admin.post(f"{API}/freezes/stop", json={"reason": "incident 8"})
    assert (pressed.status_code, again.status_code) == (201, 200)
    assert again.json() == pressed.json()
    verdict = await stands(site, "Production", "anything")
    assert (verdict["frozen"], verdict["stopped"], verdict["reason"]) == (True, True, "incident 7")
    released = await site.admin.post(f"{API}/freezes/stop/lift", json={"reason": "over"})
    assert (released.status_code, released.json()["liftedBy"]) == (200, "admin")
    assert (await stands(site))["frozen"] is False
    error_of(await site.admin.post(f"{API}/freezes/stop/lift", json={"reason": "over"}), 409, "CONFLICT")


async def test_what_is_held_is_told_when_freezes_change(site: Site) -> None:
    await site.ship("greeter", "1.0.0")
    held = (await site.deploy("1.0.0")).json()["deploymentId"]
    await site.project(held, status=DeploymentStatus.IN_PROGRESS, held_by="frz_x")
    freeze = await make(site, environment="Development")
    assert promotions(site).woken == ["deployment/Development/greeter"]
    await make(site, environment="QA")
    assert len(promotions(site).woken) == 1, "another environment's freeze is none of its business"
    await site.admin.delete(f"{API}/freezes/{freeze['freezeId']}")
    assert len(promotions(site).woken) == 2
    await site.project(held, held_by="")
    await site.admin.post(f"{API}/freezes/stop", json={"reason": "x"})
    assert len(promotions(site).woken) == 2, "who is not held asks by itself before it moves"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"reason": ""}, "reason"),
        ({"reason": "a\0"}, "reason"),
        ({"kind": "stop"}, "kind"),
        ({"kind": "maybe"}, "kind"),
        ({"window": {"kind": "daily", "start": "09:00", "end": "09:00", "timeZone": "UTC"}}, "window.daily"),
        ({"window": {"kind": "daily", "start": "9", "end": "10:00", "timeZone": "UTC"}}, "window.daily.start"),
        ({"window": {"kind": "daily", "start": "09:00", "end": "10:00", "timeZone": "Mars"}}, "window.daily.timeZone"),
        ({"window": {"kind": "once", "starts": "2026-01-01T00:00:00"}}, "window.once.starts"),
        ({"until": "x"}, "until"),
    ],
)
async def test_a_wrong_freeze_is_refused_by_field_and_leaves_nothing(
    site: Site, changes: dict[str, Any], field: str
) -> None:
    answer = await site.admin.post(f"{API}/freezes", json={"window": OPEN, "reason": "x", **changes})
    assert fields_of(error_of(answer, 400, "VALIDATION_ERROR")).keys() == {field}
    assert (await site.viewer.get(f"{API}/freezes")).json()["total"] == 0


async def test_unknown_freezes_and_plugins_are_not_found(site: Site) -> None:
    body = {"window": OPEN, "reason": "x", "pluginId": "nobody"}
    error_of(await site.admin.post(f"{API}/freezes", json=body), 404, "NOT_FOUND")
    error_of(await site.admin.delete(f"{API}/freezes/frz_{'0' * 32}"), 404, "NOT_FOUND")
    error_of(await site.viewer.get(f"{API}/freezes/frz_{'0' * 32}"), 404, "NOT_FOUND")


async def test_an_override_in_a_request_takes_an_admin_and_is_audited(site: Site) -> None:
    await site.ship("greeter", "1.0.0")
    refused = await site.deploy("1.0.0", client=site.developer, freezeOverrideReason="I want to")
    error_of(refused, 403, "FORBIDDEN")
    made = await site.deploy("1.0.0", freezeOverrideReason="agreed with the bank")
    assert made.status_code == 202, made.text
    assert site.rollouts.started[-1].freeze_override_reason == "agreed with the bank"
    log = (await site.admin.get(f"{API}/audit-logs", params={"entity": made.json()["deploymentId"]})).json()["items"]
    assert log[0]["details"]["freezeOverrideReason"] == "agreed with the bank"


async def test_an_override_by_command_needs_a_reason(site: Site) -> None:
    await site.ship("greeter", "1.0.0")
    deployment = (await site.deploy("1.0.0")).json()["deploymentId"]
    path = f"{API}/deployments/{deployment}/override-freeze"
    assert fields_of(error_of(await site.admin.post(path), 400, "VALIDATION_ERROR")).keys() == {"reason"}
    error_of(await site.developer.post(path, json={"reason": "x"}), 403, "FORBIDDEN")
    assert (await site.admin.post(path, json={"reason": "agreed"})).status_code == 200
    ((name, command, _),) = site.rollouts.sent
    assert (name, command.reason) == ("override-freeze", "agreed")
