"""HotSwap itself is upgraded, across a commit, under traffic and in the middle of a rollout: no request fails (docs/upgrade.md).

The schema is this release's before anything of it runs, so all the while the release before works on the newer schema.
"""

import asyncio
import secrets
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from hotswap import builds
from hotswap.cli.client import ApiClient
from hotswap.cli.connection import Connection
from hotswap.config_temporal import TemporalSettings
from hotswap.demo.rollout import Rollout
from hotswap.demo.traffic import TrafficGenerator
from hotswap.embedded.apps import GENEROUS_QUOTA
from tests.e2e.live import CALLS, ENVIRONMENT, Live
from tests.e2e.releases import ApiProcess, NodeProcess, Release, release_before, settings_known_to
from tests.e2e.test_worker_upgrade import at_first_step, builds_of, failed_tasks, promote_to_the_end
from tests.e2e.worker_builds import SOURCES, Queue, WorkerProcess

GENTLE = "HOTSWAP_NODE__DRAIN_IDLE"
"""A release that knows this setting stops a node without losing a request of those who call it directly."""


class Side:
    """The processes of one release, on the live system's servers and on a task queue of the test's own."""

    def __init__(self, queue: Queue, release: Release, scratch: Path, variables: dict[str, str]) -> None:
        self.node_id = f"upgrade-{secrets.token_hex(4)}"
        self._sources, self._variables = release.sources, variables
        self.temporal = TemporalSettings(deployment_name=queue.name, build_id="auto")
        self._scratch = scratch / self.node_id
        self._scratch.mkdir()

    def worker(self) -> WorkerProcess:
        return WorkerProcess(self._sources, self._scratch / "worker", self._variables)

    def node(self) -> NodeProcess:
        named = {"HOTSWAP_NODE__ID": self.node_id, "HOTSWAP_NODE__DATA_DIR": str(self._scratch / "data")}
        return NodeProcess(self._sources, self._scratch / "node", self._variables | named)

    def api(self) -> ApiProcess:
        return ApiProcess(self._sources, self._scratch / "api", self._variables | {"HOTSWAP_API__PORT": "0"})


async def started(running: AsyncExitStack, *parts: WorkerProcess) -> None:
    for part in parts:
        running.push_async_callback(part.kill)
    await asyncio.gather(*(part.start() for part in parts))


def variables_of(live: Live, queue: Queue) -> dict[str, str]:
    ours = {
        "HOTSWAP_TEMPORAL__TASK_QUEUE": queue.name,
        "HOTSWAP_TEMPORAL__DEPLOYMENT_NAME": queue.name,
        "HOTSWAP_TEMPORAL__BUILD_ID": "auto",
        "HOTSWAP_NODE__ENVIRONMENT": ENVIRONMENT,
    }
    return {**live.stack.environment, **GENEROUS_QUOTA, **ours}


async def router_of(live: Live, node_id: str) -> str:
    async with live.database.unit_of_work() as uow:
        (node,) = [one for one in await uow.nodes.list(ENVIRONMENT, None) if one.node_id == node_id]
    return node.router_url


async def served_by(router: str, live: Live, plugin: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {live.stack.info['tenantToken']}"}
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.post(f"{router}/invoke/acme/{plugin}/greet", json={"name": "Ada"}, headers=headers)


@pytest.mark.timeout(300)  # five processes start cold, one after another, while the machine does other things
async def test_the_release_before_hands_over_to_this_one_without_a_failed_request(live: Live, tmp_path: Path) -> None:
    before = await asyncio.to_thread(release_before, tmp_path / "before")
    queue = await Queue.open(live, tmp_path)
    plugin = await live.new_plugin("1.0.0", "2.0.0", "3.0.0")
    await live.deploy(plugin, "1.0.0")

    async with AsyncExitStack() as running:
        variables = variables_of(live, queue)
        more = {"HOTSWAP_TEMPORAL__MAKE_CURRENT": "true", GENTLE: "PT20S"}
        known = await settings_known_to(before, variables | more)
        old = Side(queue, before, tmp_path, known)
        new = Side(queue, Release(SOURCES), tmp_path, variables)
        # The release before, as it runs on the schema that the migrations of this one have made already.
        old_worker, old_node, old_api = old.worker(), old.node(), old.api()
        await started(running, old_worker, old_node, old_api)
        api = ApiClient(Connection(old_api.url, live.api.connection.token))
        await running.enter_async_context(api)
        home = live.stack.info["nodes"][0]["routerUrl"]
        leaving, staying = (
            TrafficGenerator(urls, live.stack.info["tenantToken"], plugin, CALLS, tenants=20, rate=30)
            for urls in ([await router_of(live, old.node_id), home], [home])
        )
        await staying.start()
        await leaving.start()
        try:
            rollout = await at_first_step(queue, plugin)

            new_worker, new_node = new.worker(), new.node()
            await started(running, new_worker, new_node)
            await builds.make_current(queue.client, new.temporal, timedelta(seconds=60))
            if GENTLE not in known:  # an older node closes idle connections at once, and what meets one then is lost
                await leaving.stop()
            await old_node.stop()
            left = await leaving.stop()

            await promote_to_the_end(rollout)
            assert (await rollout.result()).status == "Completed"
            assert len(await builds_of(rollout)) == 1, "it ended on the build it began on"
            assert not await failed_tasks(rollout)
            await old_worker.stop()

            # The api of before goes last; what it starts runs on the worker of now.
            following = await Rollout.start(api, live.body(plugin, "3.0.0", "Direct"))
            async with following:
                assert (await following.until_over()).status == "Completed"
            await old_api.stop()
            told = await live.api.deployment(following.deployment["deploymentId"])
            assert told["status"] == "Completed", "the api of now knows it"
        finally:
            report = await staying.stop()
        answer = await served_by(await router_of(live, new.node_id), live, plugin)
        assert (answer.status_code, answer.headers["X-HotSwap-Version"]) == (200, "3.0.0"), "by the node of now"
        await new_node.stop()
    assert left.requests > 50
    assert report.requests > 50
    assert (left.failed, left.broken) == (0, 0), f"across {before.crosses or 'no commit'}: {left.failure_samples}"
    assert (report.failed, report.broken) == (0, 0), f"across {before.crosses or 'no commit'}: {report.failure_samples}"
    assert report.by_version.keys() == {"1.0.0", "2.0.0", "3.0.0"}
