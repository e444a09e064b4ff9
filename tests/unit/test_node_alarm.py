"""When a node tells a version's monitor of a fault: when it lasts, not when a restart mended it, and not again and again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from temporalio.service import RPCError, RPCStatusCode

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import HostFailed
from hotswap.node.alarm import AGAIN_AFTER, DEATHS_WITHIN, LASTS, FaultAlarm, by_signal
from hotswap.node.supervisor import NodeSupervisor
from tests.unit.node_fakes import FakeLauncher, eventually, make_supervisor, order


class Ward:
    """An alarm over a node that serves invoice 1.0.0 and 2.0.0, and what it told."""

    def __init__(self, node: NodeSupervisor) -> None:
        self.node = node
        self.told: list[tuple[str, str]] = []
        self.now = 1000.0
        self.away = False
        self.deaf = ""
        """A version whose monitor takes no signal."""
        self.alarm = FaultAlarm(node, self._tell, lambda: self.now)

    async def _tell(self, plugin: str, version: str) -> None:
        if self.away or version == self.deaf:
            raise RPCError("no answer", RPCStatusCode.UNAVAILABLE, b"")
        self.told.append((plugin, version))

    async def looks(self, times: int, apart: float = 1.0) -> None:
        for _ in range(times):
            self.now += apart
            await self.alarm.look()


@pytest.fixture
async def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
async def ward(launcher: FakeLauncher) -> AsyncIterator[Ward]:
    node = make_supervisor(launcher)
    await node.stage(order(1, "1.0.0", "2.0.0"))
    yield Ward(node)
    await node.close()


def down(launcher: FakeLauncher, version: str = "2.0.0") -> None:
    """It dies and cannot be started again."""
    launcher.broken[version] = HostFailed("exit code 1")
    for host in launcher.live(version):
        host.die()


async def back(ward: Ward, launcher: FakeLauncher, version: str = "2.0.0") -> None:
    launcher.broken.pop(version, None)
    for host, _ in ward.node.loaded():
        host.hurry()
    await eventually(lambda: launcher.live(version))
    await eventually(lambda: not any(host.faulty for host, _ in ward.node.loaded()))


async def test_a_fault_that_lasts_is_told_of_that_version_only(ward: Ward, launcher: FakeLauncher) -> None:
    await ward.looks(10)
    assert ward.told == []
    down(launcher)
    await ward.looks(LASTS - 1)
    assert ward.told == []
    await ward.looks(1)
    assert ward.told == [("invoice", "2.0.0")]


async def test_a_fault_that_a_restart_mended_is_nobodys_business(ward: Ward, launcher: FakeLauncher) -> None:
    for _ in range(LASTS - 1):
        down(launcher)
        await ward.looks(LASTS - 1)
        await back(ward, launcher)
        await ward.looks(1)
    await ward.looks(20)
    assert ward.told == []


async def test_a_version_that_dies_again_and_again_is_told_though_it_always_comes_back(
    ward: Ward, launcher: FakeLauncher
) -> None:
    await ward.looks(1)
    for _ in range(LASTS):
        down(launcher)
        await back(ward, launcher)
        assert ward.told == []
        await ward.looks(1, apart=DEATHS_WITHIN / (LASTS + 1))
    assert ward.told == [("invoice", "2.0.0")]


async def test_slow_deaths_are_not_told(ward: Ward, launcher: FakeLauncher) -> None:
    await ward.looks(1)
    for _ in range(LASTS + 2):
        down(launcher)
        await back(ward, launcher)
        await ward.looks(1, apart=DEATHS_WITHIN / (LASTS - 1) + 1)
    assert ward.told == []


async def test_failed_probes_count_as_a_fault(ward: Ward, launcher: FakeLauncher) -> None:
    for host in launcher.live("1.0.0"):
        host.ping_fault = HostFailed("no answer")
    await ward.node.probe("invoice", "1.0.0")
    await ward.looks(LASTS)
    assert ward.told == [("invoice", "1.0.0")]


async def test_what_lasts_is_told_again_after_a_while_and_a_new_fault_at_once(
    ward: Ward, launcher: FakeLauncher
) -> None:
    down(launcher)
    await ward.looks(LASTS + int(AGAIN_AFTER) - 1)
    assert len(ward.told) == 1
    await ward.looks(1)
    assert len(ward.told) == 2
    await back(ward, launcher)
    await ward.looks(2)
    down(launcher)
    await ward.looks(LASTS)
    assert len(ward.told) == 3


async def test_a_temporal_that_is_away_hears_of_it_later(ward: Ward, launcher: FakeLauncher) -> None:
    down(launcher)
    ward.away = True
    await ward.looks(LASTS - 1)
    with pytest.raises(RPCError):
        await ward.looks(1)
    ward.away = False
    await ward.looks(1)
    assert ward.told == [("invoice", "2.0.0")]


async def test_one_monitor_that_cannot_be_told_keeps_no_other_from_hearing(ward: Ward, launcher: FakeLauncher) -> None:
    ward.deaf = "1.0.0"
    down(launcher, "1.0.0")
    down(launcher, "2.0.0")
    await ward.looks(LASTS - 1)
    with pytest.raises(RPCError):
        await ward.looks(1)
    assert ward.told == [("invoice", "2.0.0")]


class FakeMonitor:
    def __init__(self, status: RPCStatusCode | None) -> None:
        self.status = status
        self.id = ""
        self.signals: list[tuple[str, str, str]] = []

    def get_workflow_handle(self, workflow_id: str) -> "FakeMonitor":
        self.id = workflow_id
        return self

    async def signal(self, name: str, seen: object) -> None:
        await asyncio.sleep(0)
        if self.status is not None:
            raise RPCError("no", self.status, b"")
        self.signals.append((self.id, name, str(seen)))


@pytest.mark.parametrize("status", [None, RPCStatusCode.NOT_FOUND, RPCStatusCode.UNAVAILABLE])
async def test_a_version_that_nobody_monitors_has_nobody_to_tell(status: RPCStatusCode | None) -> None:
    monitor = FakeMonitor(status)
    tell = by_signal(monitor, Environment.QA, "node-1")  # type: ignore[arg-type]
    if status is RPCStatusCode.UNAVAILABLE:
        with pytest.raises(RPCError):
            await tell("invoice", "2.0.0")
        return
    await tell("invoice", "2.0.0")
    seen = "node_id='node-1' version='2.0.0'"
    assert monitor.signals == ([("monitor/QA/invoice", "fault", seen)] if status is None else [])
