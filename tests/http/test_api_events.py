"""The event stream of a deployment, read to its end in memory; a stopping server is tested in test_api_process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from api.services.event_stream import EventStreams
from hotswap.domain.deployment import TimelineEvent
from hotswap.domain.lifecycle import DeploymentStatus
from tests.http.site import API, Site, error_of, fields_of

S = DeploymentStatus


def event(sequence: int, message: str = "something happened") -> TimelineEvent:
    return TimelineEvent(sequence=sequence, at=datetime.now(UTC), kind="status", message=message)


def parsed(text: str) -> list[dict[str, str]]:
    """Server-sent events as dicts; comments under the key ''."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = (line.partition(":") for line in block.splitlines())
        found.append({name: value.removeprefix(" ") for name, _, value in lines})
    return found


def names(text: str) -> list[str]:
    return [item["event"] for item in parsed(text) if "event" in item]


@pytest.fixture
async def running(site: Site) -> str:
    await site.ship()
    return str((await site.deploy()).json()["deploymentId"])


def path(deployment_id: str) -> str:
    return f"{API}/deployments/{deployment_id}/events"


async def until_watched(site: Site, deployment_id: str, watchers: int = 1) -> None:
    async with asyncio.timeout(5):  # the bus has nobody to tell that a subscriber came
        while len(site.events._inboxes.get(f"deployment:{deployment_id}", ())) < watchers:
            await asyncio.sleep(0.005)


def streams(site: Site, **timing: float) -> None:
    """Other timing than the real one."""
    made = site.container
    made.streams = EventStreams(made.unit_of_work, made.events, made.deployments, made.metrics, **timing)


async def test_a_finished_deployment_is_told_whole_and_ended(site: Site, running: str) -> None:
    await site.project(running, event(1, "begun"), event(2), status=S.IN_PROGRESS)
    await site.project(running, event(3, "done"), status=S.COMPLETED)
    answer = await site.viewer.get(path(running))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    assert names(answer.text) == ["timeline", "timeline", "timeline", "status", "end"]
    told = parsed(answer.text)
    assert [item["id"] for item in told if item.get("event") == "timeline"] == ["1", "2", "3"]
    timeline = json.loads(told[1]["data"])
    assert (timeline["sequence"], timeline["message"], timeline["kind"]) == (1, "begun", "status")
    status = next(json.loads(item["data"]) for item in told if item.get("event") == "status")
    read = (await site.viewer.get(f"{API}/deployments/{running}")).json()
    assert status == read
    assert json.loads(told[-1]["data"]) == {"status": "Completed"}
    assert not [item for item in told if item.get("event") == "status" and "id" in item]


async def test_a_watcher_that_comes_back_goes_on_behind_its_last_event(site: Site, running: str) -> None:
    await site.project(running, event(1), event(2), event(3), status=S.COMPLETED)
    answer = await site.viewer.get(path(running), headers={"Last-Event-ID": "2"})
    assert [item["id"] for item in parsed(answer.text) if item.get("event") == "timeline"] == ["3"]
    for wrong in ("-1", "abc", "99999999999"):
        error = error_of(
            await site.viewer.get(path(running), headers={"Last-Event-ID": wrong}), 400, "VALIDATION_ERROR"
        )
        assert fields_of(error).keys() == {"Last-Event-ID"}


async def test_changes_are_told_at_once_when_the_bus_wakes(site: Site, running: str) -> None:
    streams(site, poll_seconds=60)
    watching = asyncio.create_task(site.viewer.get(path(running)))
    await until_watched(site, running)
    await site.project(running, event(1), status=S.IN_PROGRESS)
    await site.project(running, event(2), status=S.COMPLETED)
    answer = await asyncio.wait_for(watching, 5)
    assert names(answer.text)[-1] == "end"
    assert names(answer.text).count("timeline") == 2


async def test_a_bus_that_is_away_costs_only_the_poll(site: Site, running: str) -> None:
    streams(site, poll_seconds=0.02)
    site.events.go_away()
    watching = asyncio.create_task(site.viewer.get(path(running)))
    await asyncio.sleep(0)
    await site.project(running, event(1), status=S.COMPLETED)
    assert names((await asyncio.wait_for(watching, 5)).text)[-1] == "end"


async def test_a_bus_lost_in_the_middle_costs_only_the_poll(site: Site, running: str) -> None:
    streams(site, poll_seconds=0.02)
    watching = asyncio.create_task(site.viewer.get(path(running)))
    await until_watched(site, running)
    site.events.go_away()
    await site.project(running, event(1), status=S.COMPLETED)
    assert names((await asyncio.wait_for(watching, 5)).text)[-1] == "end"


async def test_a_database_that_is_away_is_a_comment_and_not_the_end(site: Site, running: str) -> None:
    streams(site, poll_seconds=0.01)
    chunks = site.container.streams.watch(running, 0)
    seen = [await anext(chunks), await anext(chunks)]
    site.records.away = True
    while b"away" not in seen[-1]:
        seen.append(await asyncio.wait_for(anext(chunks), 5))
    assert seen[-1].startswith(b": ")
    site.records.away = False
    await site.project(running, event(1), status=S.FAILED)
    rest = [chunk async for chunk in chunks]
    assert names(b"".join([*seen, *rest]).decode()) == ["status", "timeline", "status", "end"]


async def test_silence_is_filled_with_heartbeats(site: Site, running: str) -> None:
    streams(site, poll_seconds=0.01, heartbeat_seconds=0.03)
    chunks = site.container.streams.watch(running, 0)
    seen = [await asyncio.wait_for(anext(chunks), 5) for _ in range(4)]
    assert seen[2:] == [b": heartbeat\n\n"] * 2
    await chunks.aclose()  # type: ignore[attr-defined]


async def test_more_events_than_one_page_are_all_told_before_the_end(
    site: Site, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.services.event_stream.PAGE", 3)
    await site.project(running, *(event(number) for number in range(1, 9)), status=S.COMPLETED)
    answer = await site.viewer.get(path(running))
    told = [item["id"] for item in parsed(answer.text) if item.get("event") == "timeline"]
    assert told == [str(number) for number in range(1, 9)]
    assert names(answer.text)[-1] == "end"


async def test_what_happens_before_the_bus_listens_is_not_missed(
    site: Site, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look came before the end, the subscription after it: the poll, here a minute, must not be needed."""
    streams(site, poll_seconds=60)
    subscribe = site.events.subscribe

    @asynccontextmanager
    async def late(topic: str) -> AsyncIterator[AsyncIterator[str]]:
        await asyncio.sleep(0.05)
        await site.project(running, event(1), status=S.COMPLETED)
        async with subscribe(topic) as messages:
            yield messages

    monkeypatch.setattr(site.events, "subscribe", late)
    answer = await asyncio.wait_for(site.viewer.get(path(running)), 5)
    assert names(answer.text) == ["status", "timeline", "status", "end"]


async def test_closing_ends_every_stream(site: Site, running: str) -> None:
    streams(site, poll_seconds=60)
    watching = [asyncio.create_task(site.viewer.get(path(running))) for _ in range(3)]
    await until_watched(site, running, watchers=3)
    assert "event_streams_open 3.0" in (await site.nobody.get("/metrics")).text
    site.container.streams.close()
    answers: list[httpx.Response] = await asyncio.wait_for(asyncio.gather(*watching), 5)
    assert all("the api is stopping" in answer.text for answer in answers)
    assert "event_streams_open 0.0" in (await site.nobody.get("/metrics")).text
    assert not site.events._inboxes


async def test_a_watcher_that_leaves_frees_what_it_held(site: Site, running: str) -> None:
    streams(site, poll_seconds=60)
    gone = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer token-of-viewer"), (b"host", b"api.test")]
    scope = {
        "type": "http",
        "method": "GET",
        "path": path(running),
        "raw_path": path(running).encode(),
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("api.test", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    watching = asyncio.create_task(site.app(scope, receive, send))
    await until_watched(site, running)
    gone.set()
    await asyncio.wait_for(watching, 5)
    assert sent[0]["status"] == 200
    assert not site.events._inboxes


async def test_a_bus_that_loses_a_cancellation_does_not_hold_the_stream(
    site: Site, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis-py does while it connects."""
    streams(site, poll_seconds=0.02)
    subscribe, connecting = site.events.subscribe, asyncio.Event()

    @asynccontextmanager
    async def deaf(topic: str) -> AsyncIterator[AsyncIterator[str]]:
        with suppress(asyncio.CancelledError):
            connecting.set()
            await asyncio.Event().wait()
        async with subscribe(topic) as messages:
            yield messages

    monkeypatch.setattr(site.events, "subscribe", deaf)
    watching = asyncio.create_task(site.viewer.get(path(running)))
    await asyncio.wait_for(connecting.wait(), 5)
    await site.project(running, event(1), status=S.COMPLETED)
    assert names((await asyncio.wait_for(watching, 5)).text)[-1] == "end"
    assert not site.events._inboxes


async def test_an_unknown_deployment_is_a_404_and_not_a_stream(site: Site) -> None:
    error_of(await site.viewer.get(path(f"dep_{'0' * 32}")), 404, "NOT_FOUND")
    error_of(await site.nobody.get(path(f"dep_{'0' * 32}")), 401, "UNAUTHORIZED")
