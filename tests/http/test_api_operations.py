"""Health, readiness by dependency, metrics by route, nodes, environments, the audit log."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.services.readiness import KeyCheck
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Unavailable
from hotswap.domain.registry import NodeRecord
from hotswap.ports.keys import WrappedKey
from tests.http.site import API, Site, error_of, fields_of, make_site


async def test_all_dependencies_are_named_with_their_state(site: Site) -> None:
    answer = await site.nobody.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    states = {name: told["state"] for name, told in answer.json()["dependencies"].items()}
    assert states == {"postgres": "ok", "temporal": "ok", "artifacts": "ok", "events": "ok"}


@pytest.mark.parametrize(
    ("away", "status", "word"),
    [("postgres", 503, "away"), ("temporal", 503, "away"), ("artifacts", 200, "degraded"), ("events", 200, "degraded")],
)
async def test_what_is_away_is_named_and_only_the_needed_makes_it_unready(
    site: Site, away: str, status: int, word: str
) -> None:
    match away:
        case "postgres":
            site.records.away = True
        case "temporal":
            site.rollouts.away = True
        case "artifacts":
            site.artifacts.reachable = False
        case "events":
            site.events.go_away()
    answer = await site.nobody.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (status, word)
    assert {name for name, told in answer.json()["dependencies"].items() if told["state"] != "ok"} == {away}
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "nowhere" not in answer.text
    assert (await site.nobody.get("/health")).status_code == 200


async def test_a_dependency_that_hangs_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.services.readiness.CHECK_SECONDS", 0.05)
    name = "events"
    checks = site.container.readiness._checks
    checks[name] = (checks[name][0], asyncio.Event().wait)  # type: ignore[assignment]
    answer = await asyncio.wait_for(site.nobody.get("/ready"), 5)
    assert answer.json()["dependencies"][name]["state"] == "away"


async def test_one_that_does_not_even_stop_when_told_to_holds_nobody_up_and_is_not_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As psycopg over a server that hangs, which it asks to cancel, for ten seconds."""
    monkeypatch.setattr("api.services.readiness.CHECK_SECONDS", 0.05)
    asked, let_go = 0, asyncio.Event()

    async def stubborn() -> None:
        nonlocal asked
        asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()

    site.container.readiness._checks["postgres"] = (True, stubborn)
    for _ in range(3):
        answer = await asyncio.wait_for(site.nobody.get("/ready"), 5)
        assert (answer.status_code, answer.json()["dependencies"]["postgres"]["state"]) == (503, "away")
    assert asked == 1
    let_go.set()
    await asyncio.wait(site.container.readiness._asking.values())


class Provider:
    """A key provider that may be away, hang, or have lost its key. Counts how often it is asked."""

    def __init__(self, mood: str = "well") -> None:
        self.mood = mood
        self.asked = 0

    async def wrap(self, data_key: bytes, context: str) -> WrappedKey:
        self.asked += 1
        if self.mood == "away":
            raise Unavailable("vault at https://vault.internal answers nothing")
        if self.mood == "hangs":
            await asyncio.Event().wait()
        return WrappedKey(data_key.hex(), "key-1", context)

    async def unwrap(self, keys: Sequence[WrappedKey]) -> Sequence[bytes | None]:
        return [bytes.fromhex(key.wrapped) if self.mood == "well" else None for key in keys]

    async def close(self) -> None: ...


@pytest.mark.parametrize("mood", ["away", "hangs", "lost its key"])
async def test_a_key_provider_that_cannot_wrap_is_named_and_asked_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mood: str
) -> None:
    monkeypatch.setattr("api.services.readiness.CHECK_SECONDS", 0.2)
    provider = Provider(mood)
    site = make_site(tmp_path, keys=provider)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://api.test") as client:
        for _ in range(3):
            answer = await asyncio.wait_for(client.get("/ready"), 20)
            assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
            assert answer.json()["dependencies"]["keys"]["state"] == "away"
            assert "vault" not in answer.text
    assert provider.asked == 1


async def test_a_key_provider_that_is_well_again_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Provider("away")
    check = KeyCheck(provider)
    with pytest.raises(Unavailable):
        await check.ready()
    provider.mood = "well"
    with pytest.raises(Unavailable):
        await check.ready()
    monkeypatch.setattr("api.services.readiness.KEYS_SECONDS", 0.0)
    await check.ready()


async def test_requests_are_counted_by_route_and_strangers_do_not_grow_the_labels(site: Site) -> None:
    await site.ship()
    for path in ("/nowhere", "/somewhere", f"{API}/plugins/greeter", f"{API}/plugins/ghost"):
        await site.admin.get(path)
    figures = (await site.nobody.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="/api/v1/plugins/{pluginId}",status="200"} 1.0' in figures
    assert 'http_requests_total{method="GET",route="/api/v1/plugins/{pluginId}",status="404"} 1.0' in figures
    assert 'http_requests_total{method="(any)",route="(none)",status="404"} 2.0' in figures
    assert "nowhere" not in figures
    assert 'http_request_duration_seconds_count{method="POST",route="/api/v1/plugins"} 1.0' in figures
    assert "plugins_registered_total 1.0" in figures


def node(node_id: str, environment: Environment) -> NodeRecord:
    return NodeRecord(
        node_id=node_id,
        environment=environment,
        boot_id="boot",
        router_url=f"http://{node_id}:1",
        admin_url=f"http://{node_id}:2",
        sandbox_tier="standard",
        last_seen_at=datetime.now(UTC),
    )


async def test_nodes_are_listed_by_environment(site: Site) -> None:
    async with site.records.unit_of_work() as uow:
        for number in (1, 2):
            await uow.nodes.register(node(f"node-{number}", Environment.STAGING))
        await uow.nodes.register(node("node-3", Environment.QA))
        await uow.commit()
    page = (await site.viewer.get(f"{API}/nodes")).json()
    assert [item["nodeId"] for item in page["items"]] == ["node-1", "node-2", "node-3"]
    assert page["items"][0]["routerUrl"] == "http://node-1:1"
    page = (await site.viewer.get(f"{API}/nodes", params={"environment": "Staging", "limit": 1})).json()
    assert ([item["nodeId"] for item in page["items"]], page["total"], page["nextOffset"]) == (["node-1"], 2, 1)
    error = error_of(await site.viewer.get(f"{API}/nodes?environment=Moon"), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"environment"}


async def test_environments_come_in_their_order_of_promotion(site: Site) -> None:
    page = (await site.viewer.get(f"{API}/environments")).json()
    assert [item["name"] for item in page["items"]] == ["Development", "QA", "Staging", "Production"]
    assert page["items"][3]["requiredApprovals"] == 2


@pytest.mark.parametrize(
    ("query", "events"),
    [
        ({}, ["plugin.registered", "plugin.registered"]),
        ({"entity": "one"}, ["plugin.registered"]),
        ({"user": "developer"}, ["plugin.registered"]),
        ({"entity": "one", "user": "developer"}, []),
    ],
)
async def test_the_audit_log_is_filtered(site: Site, query: dict[str, Any], events: list[str]) -> None:
    await site.admin.post(f"{API}/plugins", json={"name": "one"})
    await site.developer.post(f"{API}/plugins", json={"name": "two"})
    page = (await site.admin.get(f"{API}/audit-logs", params=query)).json()
    assert [item["eventType"] for item in page["items"]] == events
    assert page["total"] == len(events)
