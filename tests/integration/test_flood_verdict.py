"""A flood and a slow version, both under a real node with real hosts: only one of them is held against the version (ADR 64)."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.analysis import judge
from hotswap.config import SandboxSettings
from hotswap.domain.analysis import Outcome, Thresholds, Verdict
from hotswap.node.bundles import BundleCache
from hotswap.node.figures import FigureBook
from hotswap.node.router import Router
from hotswap.node.supervisor import NodeSupervisor
from hotswap.routing.decide import choose_version
from hotswap.runtime.launcher import ZygoteLauncher
from tests.http.router_client import Wire, request
from tests.integration.node_bench import TENANT_TOKEN, make_version, order

MIB = 1024 * 1024
LONG = timedelta(seconds=60)
SHORT = timedelta(seconds=1)
"""Less than the first of a flood of 250 wait for a version that takes 200 a second."""
OLD, NEW = "1.0.0", "2.0.0"
EXTRA = """
    def wait(self, parameters, context):
        import time
        time.sleep({seconds})
        return {{}}
"""


class Site:
    """One node between two versions, half of the tenants on each, and who calls it."""

    def __init__(self, supervisor: NodeSupervisor, router: Router, port: int) -> None:
        self.supervisor, self.router, self._port = supervisor, router, port
        self.statuses: dict[str, Counter[int]] = {}
        self.since = datetime.now(UTC)
        self._callers: list[asyncio.Task[None]] = []

    def tenants(self, version: str, count: int) -> list[str]:
        route = self.supervisor.routes["invoice"]
        names = (f"tenant-{number}" for number in range(1000))
        return [name for name in names if choose_version(name, route.state, route.pins) == version][:count]

    def call(self, tenants: Sequence[str], connections: int, pause: float) -> None:
        """From now on each of the tenants sends, on so many connections, a request `pause` seconds after an answer."""
        for tenant in tenants:
            seen = self.statuses.setdefault(tenant, Counter())
            self._callers += [
                asyncio.create_task(self._caller(tenant, pause, seen), name=tenant) for _ in range(connections)
            ]

    async def _caller(self, tenant: str, pause: float, seen: Counter[int]) -> None:
        await asyncio.sleep(pause * random.random())
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self._port))
        try:
            while True:
                await wire.send(request("wait", tenant, token=TENANT_TOKEN))
                seen[(await wire.receive()).status] += 1
                await asyncio.sleep(pause)
        finally:
            await wire.close()

    async def stop(self) -> None:
        for caller in self._callers:
            caller.cancel()
        ended = await asyncio.gather(*self._callers, return_exceptions=True)
        faults = [one for one in ended if one is not None and not isinstance(one, asyncio.CancelledError)]
        self._callers.clear()
        assert not faults, faults

    def verdict(self) -> Verdict:
        figures = self.supervisor.figures("invoice", self.since)
        return judge([figures], (), NEW, OLD, Thresholds(), self.since, datetime.now(UTC), 50)

    def failures(self) -> int:
        figures = self.supervisor.figures("invoice", self.since)
        return sum(one.failures for one in figures.versions if one.version == NEW)

    async def looked_at(self, until: int) -> list[Verdict]:
        """Verdicts, four a second, until the nodes have counted so many requests of the new version that were turned away."""
        looks = [self.verdict()]
        async with asyncio.timeout(60):
            while self.failures() < until:
                await asyncio.sleep(0.25)
                looks.append(self.verdict())
        return looks


@asynccontextmanager
async def site(folder: Path, old_seconds: float, new_seconds: float, patience: timedelta = LONG) -> AsyncIterator[Site]:
    store = MemoryArtifactStore()
    await store.ensure_bucket()
    launcher = ZygoteLauncher("standard", 512)
    await launcher.start()
    bundles = BundleCache(store, folder / "bundles", MIB, SandboxSettings(), MIB, max_concurrency=2)
    supervisor = NodeSupervisor("node-t", launcher, bundles, FigureBook(), timedelta(seconds=30))
    router = Router("node-t", supervisor.routes, TENANT_TOKEN, patience)
    supervisor.on_change(router.wake)
    port = await router.bind("127.0.0.1", 0)
    await router.serve()
    old, new = [
        await make_version(store, folder, "invoice", version, extra=EXTRA.format(seconds=seconds), methods=("wait",))
        for version, seconds in ((OLD, old_seconds), (NEW, new_seconds))
    ]
    await supervisor.stage(order(1, old, new, 5000))
    made = Site(supervisor, router, port)
    try:
        yield made
    finally:
        await made.stop()
        await router.close()
        await supervisor.close()
        await launcher.close()


@pytest.mark.parametrize("patience", [LONG, SHORT], ids=["all are answered", "some wait too long"])
async def test_a_flood_by_one_tenant_never_fails_a_good_version(tmp_path: Path, patience: timedelta) -> None:
    async with site(tmp_path, 0.04, 0.04, patience) as made:
        flooder, *others = made.tenants(NEW, 6)
        made.call([*others, *made.tenants(OLD, 5)], connections=6, pause=0.6)
        await asyncio.sleep(1)
        made.call([flooder], connections=250, pause=0.05)
        looks = await made.looked_at(until=2000)
        assert Outcome.FAIL not in {look.outcome for look in looks}, [look.reason for look in looks]
        assert looks[-1].outcome is Outcome.INCONCLUSIVE
        [flooded] = [metric for metric in looks[-1].metrics if metric.metric == "flooded"]
        assert (flooded.outcome, flooded.n >= 2000) == (Outcome.INCONCLUSIVE, True)
        assert made.statuses[flooder][503] > 0
        assert (made.statuses[flooder][504] > 0) is (patience is SHORT)
        beside = sum((made.statuses[other] for other in others), Counter())
        served, of_flood = (seen[200] / seen.total() for seen in (beside, made.statuses[flooder]))
        assert served > 2 * of_flood, f"others have their turns: {beside} beside {made.statuses[flooder]}"


async def test_a_version_too_slow_for_its_traffic_fails_by_what_it_turns_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path, 0.04, 0.4) as made:  # 20 calls/s in place of 200; each side is asked for some 90
        made.call([*made.tenants(NEW, 6), *made.tenants(OLD, 6)], connections=40, pause=2.5)
        looks = await made.looked_at(until=100)
        failed = {metric.metric for metric in looks[-1].metrics if metric.outcome is Outcome.FAIL}
        assert {"error-rate", "success-rate", "error-rate-vs-baseline"} <= failed, looks[-1].reason
        assert "flooded" not in {metric.metric for metric in looks[-1].metrics}
        assert not [record for record in caplog.records if record.name == "hotswap.node.strain"]
