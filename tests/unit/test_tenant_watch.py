"""A node hears of changes to tenants' rows, looks again after every outage, and records health when it changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.adapters.memory.records import MemoryRecords
from hotswap.domain.analysis import Health, HostReport
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Unavailable
from hotswap.domain.plugin_health import health_of, worst
from hotswap.domain.registry import Page
from hotswap.node import health_log, tenant_watch
from hotswap.node.health_log import HealthLog
from hotswap.node.tenant_watch import TenantWatch
from tests.contract.factories import make_plugin
from tests.unit.node_fakes import FakeLauncher, eventually, make_supervisor


class Changes:
    """A TenantChanges that the test drives."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[bool] = asyncio.Queue()
        self.away = False
        self.bug = False
        self.listening = 0

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[None]]:
        if self.away:
            raise Unavailable("away")
        if self.bug:
            self.bug = False
            raise LookupError("nobody foresaw this")
        self.listening += 1
        yield self._changes()

    async def _changes(self) -> AsyncIterator[None]:
        while await self.told.get():
            yield
        raise Unavailable("lost")


async def test_every_change_and_every_pause_in_listening_is_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_watch, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(tenant_watch, "BETWEEN_LOOKS", 0.01)
    changes, looks = Changes(), []

    async def look() -> None:
        looks.append(1)

    watching = asyncio.create_task(TenantWatch(changes, look).run())
    await eventually(lambda: len(looks) == 1)
    changes.told.put_nowait(True)
    await eventually(lambda: len(looks) == 2)
    changes.told.put_nowait(False)
    await eventually(lambda: changes.listening == 2 and len(looks) == 3)
    changes.away = True
    changes.told.put_nowait(False)
    await asyncio.sleep(0)
    changes.away = False
    await eventually(lambda: changes.listening == 3 and len(looks) == 4)
    changes.bug = True
    changes.told.put_nowait(False)
    await eventually(lambda: changes.listening == 4 and len(looks) == 5)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


def host(state: str, version: str = "1.0.0", **more: object) -> HostReport:
    return HostReport.model_validate({"plugin": "invoice", "version": version, "state": state, **more})


@pytest.mark.parametrize(
    ("hosts", "health"),
    [
        ([], Health.UNHEALTHY),
        ([host("Ready"), host("Standby")], Health.HEALTHY),
        ([host("Evicted")], Health.HEALTHY),
        ([host("Ready", probe_failures=1)], Health.DEGRADED),
        ([host("Ready"), host("Crashed")], Health.DEGRADED),
        ([host("Crashed")], Health.UNHEALTHY),
        ([host("Starting")], Health.UNKNOWN),
    ],
)
def test_health_of_a_version_on_a_node(hosts: list[HostReport], health: Health) -> None:
    assert health_of(hosts) is health


def test_the_worst_is_what_a_person_should_hear_of() -> None:
    assert worst([]) is Health.UNKNOWN
    assert worst([Health.HEALTHY, Health.UNKNOWN]) is Health.UNKNOWN
    assert worst(list(Health)) is Health.UNHEALTHY


async def test_health_is_recorded_when_it_changes_and_now_and_then_and_old_rows_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, instant = [0.0], [datetime(2026, 1, 1, tzinfo=UTC)]
    records = MemoryRecords(clock=lambda: instant[0])
    async with records.unit_of_work() as uow:
        await uow.plugins.add(make_plugin("invoice"))
        await uow.commit()
    supervisor = make_supervisor(FakeLauncher())
    hosts = [host("Ready"), host("Stopped", "0.9.0")]

    async def reports() -> list[HostReport]:
        return hosts

    monkeypatch.setattr(supervisor, "reports", reports)
    log = HealthLog(supervisor, records.unit_of_work, Environment.QA, lambda: now[0])

    async def recorded() -> list[str]:
        async with records.unit_of_work() as uow:
            found, _ = await uow.health.list("invoice", "QA", Page())
        return [check.status.value for check in reversed(found)]

    await log.look()
    await log.look()
    assert await recorded() == ["Healthy"]
    instant[0] += timedelta(seconds=1)
    hosts[0] = host("Crashed", last_error="killed by signal 9")
    records.away = True
    with pytest.raises(Unavailable):
        await log.look()
    records.away = False
    await log.look()
    assert await recorded() == ["Healthy", "Unhealthy"]
    now[0] += health_log.RECORD_EVERY
    instant[0] += timedelta(minutes=30)
    await log.look()
    assert await recorded() == ["Healthy", "Unhealthy", "Unhealthy"]
    instant[0] += health_log.KEPT - timedelta(minutes=15)
    await log.forget()
    assert await recorded() == ["Unhealthy"]
