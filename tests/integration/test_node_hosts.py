"""The node's data plane over real plugin processes: switching under load, crashes, drain, figures."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.config import SandboxSettings
from hotswap.domain.analysis import Health
from hotswap.domain.errors import ArtifactMissing, BundleRejected, HostFailed
from hotswap.domain.ids import artifact_key
from hotswap.domain.routes import ArtifactRef
from hotswap.node.bundles import BundleCache
from hotswap.node.figures import FigureBook
from hotswap.node.router import Router
from hotswap.node.supervisor import NodeSupervisor
from hotswap.runtime.launcher import ZygoteLauncher
from tests.integration.node_bench import TENANT_TOKEN, make_version, order, traffic
from tests.unit.node_fakes import eventually

MIB = 1024 * 1024


@dataclass
class Site:
    supervisor: NodeSupervisor
    router: Router
    store: MemoryArtifactStore
    bundles: Path
    folder: Path
    client: httpx.AsyncClient

    async def version(self, version: str, plugin: str = "invoice", broken: bool = False) -> ArtifactRef:
        return await make_version(self.store, self.folder, plugin, version, broken=broken)

    async def call(self, method: str = "echo", tenant: str = "acme", **parameters: object) -> httpx.Response:
        return await self.client.post(f"/invoke/{tenant}/invoice/{method}", json=parameters)


@pytest.fixture(scope="module")
async def launcher() -> AsyncIterator[ZygoteLauncher]:
    made = ZygoteLauncher("standard", 512)
    await made.start()
    yield made
    await made.close()


@asynccontextmanager
async def opened_site(launcher: ZygoteLauncher, tmp_path: Path, invoke_timeout: timedelta) -> AsyncIterator[Site]:
    store = MemoryArtifactStore()
    await store.ensure_bucket()
    book = FigureBook()
    bundles = BundleCache(store, tmp_path / "bundles", MIB, SandboxSettings(max_memory_mb=512), MIB)
    supervisor = NodeSupervisor("node-t", launcher, bundles, book, timedelta(seconds=30))
    router = Router("node-t", supervisor.routes, TENANT_TOKEN, invoke_timeout)
    supervisor.on_change(router.wake)
    port = await router.bind("127.0.0.1", 0)
    await router.serve()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": f"Bearer {TENANT_TOKEN}"},
        trust_env=False,
        timeout=60,
    ) as client:
        yield Site(supervisor, router, store, tmp_path / "bundles", tmp_path, client)
    await router.close()
    await supervisor.close()


@pytest.fixture
async def site(launcher: ZygoteLauncher, tmp_path: Path) -> AsyncIterator[Site]:
    """A deadline that no request meets, however busy the machine: what fails here fails for another reason."""
    async with opened_site(launcher, tmp_path, timedelta(seconds=30)) as opened:
        yield opened


@pytest.fixture
async def hasty_site(launcher: ZygoteLauncher, tmp_path: Path) -> AsyncIterator[Site]:
    """For requests that must run out of time."""
    async with opened_site(launcher, tmp_path, timedelta(seconds=2)) as opened:
        yield opened


async def test_a_plugin_goes_from_its_zip_to_an_answer(site: Site) -> None:
    report = await site.supervisor.stage(order(1, await site.version("1.0.0")))
    [host] = report.hosts
    assert (host.state, host.sandbox_tier) == ("Ready", "standard")
    assert host.pid
    assert host.memory_bytes > MIB
    answer = await site.call(tenant="globex", amount=3)
    told = {"version": "1.0.0", "tenant": "globex", "echo": {"amount": 3}, "config": {}, "trace": ""}
    assert answer.json() == told
    assert (await site.call("work", numbers=[1, 2, 3])).json()["sum"] == 6
    probe = await site.supervisor.probe("invoice", "1.0.0")
    assert probe.health == Health.HEALTHY
    assert probe.latency_ms > 0


async def test_failures_of_real_plugins_have_their_codes(site: Site) -> None:
    await site.supervisor.stage(order(1, await site.version("1.0.0")))
    expected = {"boom": (500, "PLUGIN_ERROR"), "nothing": (404, "NOT_FOUND"), "die": (502, "HOST_FAILED")}
    for method, (status, code) in expected.items():
        answer = await site.call(method)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert (await site.call()).status_code == 200  # and the one after the crash waited for the new process
    broken = await site.client.post("/invoke/acme/invoice/echo", content=b'{"a":')
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    [figures] = site.supervisor.figures("invoice", datetime.now(UTC) - timedelta(minutes=1)).versions
    assert (figures.requests, figures.errors, figures.failures) == (3, 2, 0)


async def test_switching_under_load_loses_no_request(site: Site) -> None:
    old, new = await site.version("1.0.0"), await site.version("2.0.0")
    await site.supervisor.stage(order(1, old))
    async with traffic(str(site.client.base_url), "invoice") as seen:
        generation = 1
        for _ in range(6):
            await eventually(lambda before=seen.requests: seen.requests >= before + 150)
            await site.supervisor.stage(order(generation + 1, old, new))
            for step, weight in enumerate((1_000, 5_000, 10_000), 2):
                await site.supervisor.apply(order(generation + step, old, new, weight))
                await eventually(lambda before=seen.requests: seen.requests >= before + 40)
            generation += 5
            await site.supervisor.retire(order(generation, new), timedelta(seconds=5))
            old, new = new, old
    assert seen.refused == []
    assert seen.requests > 1500
    assert min(seen.versions["1.0.0"], seen.versions["2.0.0"]) > 300


async def test_unloading_without_drain_would_have_lost_some(site: Site) -> None:
    """The control of the test above: the same switch, but the old process is killed while it works."""
    old, new = await site.version("1.0.0"), await site.version("2.0.0")
    await site.supervisor.stage(order(1, old, new))
    call = asyncio.create_task(site.call("slow", seconds=60))
    await eventually(lambda: site.router.in_flight == 1)
    await eventually(lambda: site.supervisor.hosts()[0].in_flight == 1)
    # A host reads its calls in order: this answer says that it has begun the slow one, which then must not be sent again.
    assert (await site.call()).json()["version"] == "1.0.0"
    await site.supervisor.retire(order(2, new), timedelta(0))
    assert (await call).json()["error"]["code"] == "HOST_FAILED"


async def test_draining_lets_a_slow_call_end(site: Site) -> None:
    old, new = await site.version("1.0.0"), await site.version("2.0.0")
    await site.supervisor.stage(order(1, old))
    call = asyncio.create_task(site.call("slow", seconds=0.5))
    await eventually(lambda: site.supervisor.hosts()[0].in_flight == 1)
    await site.supervisor.retire(order(2, new), timedelta(seconds=5))
    assert (await call).json() == {"version": "1.0.0"}
    assert [host.version for host in site.supervisor.hosts()] == ["2.0.0"]


async def test_a_host_killed_under_load_comes_back_and_nothing_runs_twice(site: Site) -> None:
    await site.supervisor.stage(order(1, await site.version("1.0.0")))
    async with traffic(str(site.client.base_url), "invoice") as seen:
        for crash in range(1, 4):
            await eventually(lambda before=seen.requests: seen.requests >= before + 100)
            [host] = site.supervisor.hosts()
            assert host.pid
            os.kill(host.pid, signal.SIGKILL)
            await eventually(lambda crash=crash: site.supervisor.hosts()[0].crashes == crash)
            await eventually(lambda: site.supervisor.hosts()[0].state == "Ready")
        await eventually(lambda before=seen.requests: seen.requests >= before + 100)
    # Only what the process had begun may fail, at most one request of each caller for each kill.
    assert len(seen.refused) <= 3 * 8
    assert all("HOST_FAILED" in refused for refused in seen.refused)


async def test_the_end_of_the_zygote_is_survived(site: Site, launcher: ZygoteLauncher) -> None:
    await site.supervisor.stage(order(1, await site.version("1.0.0")))
    os.kill(launcher.zygote_pid, signal.SIGKILL)
    await eventually(lambda: site.supervisor.hosts()[0].crashes == 1)
    assert (await site.call()).status_code == 200


async def test_a_version_that_cannot_be_imported_leaves_the_old_one_serving(site: Site) -> None:
    old = await site.version("1.0.0")
    await site.supervisor.stage(order(1, old))
    broken = await site.version("2.0.0", broken=True)
    with pytest.raises(HostFailed, match="not today") as caught:
        await site.supervisor.stage(order(2, old, broken))
    assert caught.value.limit == "LOAD_FAILED"
    assert (await site.call()).json()["version"] == "1.0.0"
    assert len(site.supervisor.hosts()) == 1


async def test_a_slow_call_times_out_and_the_node_goes_on(hasty_site: Site) -> None:
    await hasty_site.supervisor.stage(order(1, await hasty_site.version("1.0.0")))
    answer = await hasty_site.call("slow", seconds=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "TIMEOUT")
    assert (await hasty_site.call()).status_code == 200


async def test_a_host_that_hangs_is_timed_out_and_can_still_be_unloaded(hasty_site: Site) -> None:
    old, new = await hasty_site.version("1.0.0"), await hasty_site.version("2.0.0")
    await hasty_site.supervisor.stage(order(1, old))
    [host] = hasty_site.supervisor.hosts()
    assert host.pid
    os.kill(host.pid, signal.SIGSTOP)
    assert (await hasty_site.call()).json()["error"]["code"] == "TIMEOUT"
    await hasty_site.supervisor.retire(order(2, new), timedelta(seconds=0.1))
    assert (await hasty_site.call()).json()["version"] == "2.0.0"
    assert [host.version for host in hasty_site.supervisor.hosts()] == ["2.0.0"]


async def test_artifacts_that_are_not_what_the_registry_says_are_never_loaded(site: Site) -> None:
    good = await site.version("1.0.0")
    missing = good.model_copy(update={"version": "2.0.0", "digest": "0" * 64})
    with pytest.raises(ArtifactMissing):
        await site.supervisor.stage(order(1, missing))
    renamed = good.model_copy(update={"version": "3.0.0"})
    with pytest.raises(BundleRejected, match=r"calls itself invoice 1\.0\.0"):
        await site.supervisor.stage(order(1, renamed))
    assert site.supervisor.hosts() == []


async def test_a_bundle_is_fetched_once_and_pruned_when_unused(site: Site) -> None:
    version = await site.version("1.0.0")
    await site.supervisor.stage(order(1, version))
    await site.store.delete(artifact_key("invoice", version.digest))
    [host] = site.supervisor.hosts()
    assert host.pid
    os.kill(host.pid, signal.SIGKILL)
    await eventually(lambda: site.supervisor.hosts()[0].crashes == 1)
    await eventually(lambda: site.supervisor.hosts()[0].state == "Ready")  # restarted from the disk
    await site.supervisor.tidy(timedelta(0))
    assert (site.bundles / version.digest).is_dir()
    await site.supervisor.retire(
        order(2, version).model_copy(update={"state": order(1, version).state.model_copy(update={"stable": None})}),
        timedelta(seconds=1),
    )
    await site.supervisor.tidy(timedelta(hours=1))
    assert (site.bundles / version.digest).is_dir()
    await site.supervisor.tidy(timedelta(seconds=-1))
    assert list(site.bundles.iterdir()) == []
