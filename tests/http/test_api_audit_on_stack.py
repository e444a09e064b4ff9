"""The audit over real PostgreSQL: what the server sealed verifies over HTTP, exports whole, truncates, and shows tampering."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from api.app import create_app
from api.dependencies import Container
from hotswap.adapters.local_limits import LocalRateLimiter
from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.adapters.memory.events import MemoryEventBus
from hotswap.adapters.postgres.database import Database
from hotswap.cli.export_check import check_export
from hotswap.config import PostgresSettings
from tests.contract.databases import execute
from tests.contract.factories import make_audit
from tests.http.fake_rollouts import FakeRollouts
from tests.http.site import API, make_settings

pytestmark = pytest.mark.stack

LOGS = f"{API}/audit-logs"
OLD = datetime.now(UTC) - timedelta(days=400)
HOSTILE = {"reason": 'a"b\\c\n🚀\u2028', "numbers": [1, 2.5, 1e22, 1e-7, -0.0], "deep": {"z": {}, "aa": [None]}, "": 1}


@pytest.fixture
async def admin(
    new_database: Callable[..., str], tmp_path: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, Database, str]]:
    """A facade of its own over a database of its own, so that the chain is this test's alone."""
    url = new_database(migrated=True)
    database = Database(PostgresSettings(url=SecretStr(url)))
    settings = make_settings(tmp_path, audit={"signing_key": "k" * 32})
    container = Container(
        settings=settings,
        unit_of_work=database.unit_of_work,
        artifacts=MemoryArtifactStore(),
        events=MemoryEventBus(),
        rollouts=FakeRollouts(),
        limiter=LocalRateLimiter(),
        close=database.close,
    )
    transport = httpx.ASGITransport(create_app(container))
    headers = {"Authorization": "Bearer token-of-admin"}
    async with httpx.AsyncClient(transport=transport, base_url="http://a.test", headers=headers, timeout=60) as client:
        yield client, database, url
    container.streams.close()
    await database.close()


async def test_the_servers_chain_is_followed_exported_truncated_and_found_broken(
    admin: tuple[httpx.AsyncClient, Database, str], tmp_path: Path
) -> None:
    client, database, url = admin
    async with database.unit_of_work() as uow:
        for number in range(30):
            await uow.audit.append(make_audit(at=OLD + timedelta(seconds=number), details=HOSTILE, address="::1"))
        await uow.commit()
    assert (await client.post(f"{API}/plugins", json={"name": "greeter"})).status_code == 201

    export = await client.get(f"{LOGS}/export")
    file = tmp_path / "audit.ndjson"
    file.write_bytes(export.content)
    offline = check_export(file, None, False)
    assert (offline["intact"], offline["entries"], offline["faults"]) == (True, 32, [])
    first = json.loads(export.content.splitlines()[0])
    assert first["entry"]["details"]["reason"] == HOSTILE["reason"]
    online = (await client.get(f"{LOGS}/verify")).json()
    assert (online["intact"], online["head"]) == (True, offline["head"]), online

    body = {"reason": "kept a year", "truncateBefore": (OLD + timedelta(days=30)).isoformat()}
    cut = await client.post(f"{LOGS}/checkpoints", json=body)
    assert (cut.status_code, cut.json()["removed"], cut.json()["more"]) == (201, 30, False), cut.text
    after = (await client.get(f"{LOGS}/verify")).json()
    assert (after["intact"], after["first"], after["entries"]) == (True, 31, 3), after
    known = {"expectPosition": offline["head"]["position"], "expectHash": offline["head"]["hash"]}
    assert (await client.get(f"{LOGS}/verify", params=known)).json()["intact"]

    execute(
        url,
        'ALTER TABLE audit_logs DISABLE TRIGGER USER; UPDATE audit_logs SET details = \'{"reason": "nothing"}\''
        " WHERE event_type = 'audit.truncated'",
    )
    found = (await client.get(f"{LOGS}/verify")).json()
    assert (found["intact"], len(found["faults"])) == (False, 1)
    assert "position 33" in found["faults"][0]
