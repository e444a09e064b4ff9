"""A deployment runs before it is on record: what is answered, and what is written down, when PostgreSQL goes away between."""

import asyncio
from typing import Any

import pytest

from api.services import recorder
from hotswap.adapters.memory.records import MemoryUnitOfWork
from hotswap.domain.errors import Unavailable
from hotswap.ports.records import UnitOfWork
from tests.http.site import API, Site

DEPLOYMENTS = f"{API}/deployments"


async def test_a_start_that_meets_a_restarting_database_is_on_record_when_it_is_answered(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the first try was committed and only its answer was lost."""
    await site.ship()
    commit, losses = MemoryUnitOfWork.commit, iter([True])

    async def commit_and_lose_the_answer(uow: MemoryUnitOfWork) -> None:
        await commit(uow)
        if next(losses, False):
            raise Unavailable("PostgreSQL is stopping or starting")

    monkeypatch.setattr(MemoryUnitOfWork, "commit", commit_and_lose_the_answer)
    made = (await site.deploy()).json()["deploymentId"]
    assert (await site.admin.get(f"{DEPLOYMENTS}/{made}")).status_code == 200
    kept = [entry.event_type for entry in site.records.committed.audit.values() if entry.entity_id == made]
    assert kept.count("deployment.requested") == 1
    assert next(losses, None) is None


async def test_a_start_that_cannot_be_recorded_is_still_the_truth(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workflow runs; a refusal would be a lie. It is recorded as soon as PostgreSQL is back, without a repeat."""
    monkeypatch.setattr(recorder, "PATIENCE", 0.2)
    await site.ship()
    start = site.rollouts.start

    async def start_then_lose_the_database(request: Any) -> Any:
        handle = await start(request)
        site.records.away = True
        return handle

    monkeypatch.setattr(site.rollouts, "start", start_then_lose_the_database)
    made = await site.deploy(headers={"Idempotency-Key": "k"})
    assert made.status_code == 202
    path = f"{DEPLOYMENTS}/{made.json()['deploymentId']}"
    assert (await site.viewer.get(path)).status_code == 503
    site.records.away = False
    monkeypatch.undo()
    async with asyncio.timeout(10):
        while (await site.viewer.get(path)).status_code != 200:
            await asyncio.sleep(0.02)
    asked = [entry for entry in site.records.committed.audit.values() if entry.event_type == "deployment.requested"]
    assert [entry.entity_id for entry in asked] == [made.json()["deploymentId"]]
    again = await site.deploy(headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["deploymentId"]) == (202, made.json()["deploymentId"])
    assert len(site.rollouts.started) == 1


async def test_what_an_api_that_stops_has_not_recorded_is_told_in_its_log(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "PATIENCE", 0.0)
    writer = recorder.Recorder(site.container.unit_of_work)
    site.records.away = True

    async def nothing(uow: UnitOfWork, again: bool) -> None:
        del uow, again

    await writer.commit(nothing, "dep_lost")
    await writer.close()
    assert "dep_lost was not recorded: the api is stopping" in caplog.text
    await writer.close()
