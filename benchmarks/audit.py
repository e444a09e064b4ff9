"""What the audit's hash chain costs: audited transactions with the sealing trigger, without it, and with a lock from append on.

Each is 16 writers (and one) on the same embedded PostgreSQL, round by round in turn; ratios are medians of rounds. The third
way is what the trigger was chosen over: the application locks, reads the last seal and writes its own, then commits.
Run: make bench NAME=audit
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.figures import figure
from hotswap.adapters.postgres.database import Database
from hotswap.adapters.postgres.url import engine_url
from hotswap.config import PostgresSettings
from hotswap.domain.audit import ChainCheck, Head
from hotswap.domain.deployment import Environment
from hotswap.domain.registry import AuditEntry
from hotswap.embedded.stack import EmbeddedStack

WRITERS = 16
ENTRIES = 20  # of each writer and round
ROUNDS = 5
ENTRY = AuditEntry(
    event_type="deployment.status",
    entity_type="deployment",
    entity_id="dep_" + "0" * 32,
    user="hotswap",
    details={"message": "2.0.0 serves all tenants", "from": "InProgress", "to": "Completed", "plugin": "greeter"},
    at=datetime(2026, 1, 31, tzinfo=UTC),
)
_LAST = "SELECT hash FROM audit_chain ORDER BY position DESC LIMIT 1"
_OWN = (
    "INSERT INTO audit_logs (event_type, entity_type, entity_id, user_id, details)"
    " VALUES ('deployment.status', 'deployment', :entity, 'hotswap', CAST(:details AS jsonb))"
)


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        stack = EmbeddedStack(
            Path(scratch) / "stack", 0, Environment.DEVELOPMENT, progress=lambda line: print(line, file=sys.stderr)
        )
        await stack.start()
        try:
            await measure(stack.environment["HOTSWAP_POSTGRES__URL"])
        finally:
            await stack.stop()


async def measure(url: str) -> None:
    database = Database(PostgresSettings(url=SecretStr(url), pool_size=WRITERS))
    engine = create_async_engine(engine_url(url), pool_size=WRITERS, max_overflow=0)
    ways: dict[str, tuple[str, Callable[[], Awaitable[None]]]] = {
        "sealed": ("ENABLE", lambda: _append(database)),
        "unsealed": ("DISABLE", lambda: _append(database)),
        "locked": ("DISABLE", lambda: _append_by_hand(engine)),
    }
    rates: dict[tuple[str, int], list[float]] = {(way, n): [] for way in ways for n in (1, WRITERS)}
    for turn in range(ROUNDS + 1):
        for way, (switch, write) in ways.items():
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"ALTER TABLE audit_logs {switch} TRIGGER audit_logs_sealed".encode())
            for writers in (1, WRITERS):
                began = time.perf_counter()
                await asyncio.gather(*(_writer(write) for _ in range(writers)))
                if turn:  # the first round warms up
                    rates[way, writers].append(writers * ENTRIES / (time.perf_counter() - began))
    for writers in (1, WRITERS):
        sealed = rates["sealed", writers]
        n = ROUNDS * ENTRIES * writers
        figure(f"audit.commits_per_second_{writers}_writers", statistics.median(sealed), "1/s", n, "")
        for way in ("unsealed", "locked"):
            ratio = statistics.median(a / b for a, b in zip(sealed, rates[way, writers], strict=True))
            against = "no chain at all" if way == "unsealed" else "a lock held from append to commit"
            figure(f"audit.sealed_ratio_to_{way}_{writers}_writers", ratio, "ratio", n, against)
    await _verify(database)
    await engine.dispose()
    await database.close()


async def _writer(write: Callable[[], Awaitable[None]]) -> None:
    for _ in range(ENTRIES):
        await write()


async def _append(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await uow.audit.append(ENTRY)
        await uow.now()  # what a service does between its entry and its commit: keep the answer to the Idempotency-Key
        await uow.commit()


async def _append_by_hand(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
        await connection.execute(text(_LAST))
        await connection.execute(text(_OWN), {"entity": ENTRY.entity_id, "details": '{"to": "Completed"}'})
        await connection.execute(text("SELECT clock_timestamp()"))
        await connection.commit()


async def _verify(database: Database) -> None:
    check = ChainCheck(Head())
    began = time.perf_counter()
    while True:
        async with database.unit_of_work() as uow:
            sealed = await uow.audit.sealed(check.head.position, 500, lost=True)
        check.follow(sealed)
        if len(sealed) < 500:
            break
    assert not check.faults, check.faults
    rate = check.entries / (time.perf_counter() - began)
    figure("audit.verified_per_second", rate, "1/s", check.entries, "")


if __name__ == "__main__":
    asyncio.run(main())
