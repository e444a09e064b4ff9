"""After the rollout on the live system: a version that crashes is taken back by its monitor, once; drift is repaired."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import psycopg
import pytest

from hotswap.cli.faults import ApiError
from hotswap.domain.routes import RouteState
from tests.e2e.live import ENVIRONMENT, Live, eventually
from tests.e2e.test_main_job import RETURN

DIES = 'if parameters["name"] == "die":\n            import os\n            os._exit(3)\n        '


@asynccontextmanager
async def torment(live: Live, plugin: str) -> AsyncIterator[None]:
    """Ask every node's host for its death, again and again."""

    async def ask(client: httpx.AsyncClient, url: str) -> None:
        while True:
            with suppress(httpx.HTTPError):  # what becomes of the request is not the question
                await client.post(f"{url}/invoke/acme/{plugin}/greet", json={"name": "die"})
            await asyncio.sleep(0.2)

    headers = {"Authorization": f"Bearer {live.stack.info['tenantToken']}"}
    async with httpx.AsyncClient(timeout=5, headers=headers, trust_env=False) as client:
        tasks = [asyncio.create_task(ask(client, node["routerUrl"])) for node in live.stack.info["nodes"]]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def serves(live: Live, plugin: str, version: str) -> bool:
    state = (await live.route(plugin)).state
    return state.stable is not None and state.stable.version == version


@pytest.mark.timeout(120)
async def test_a_version_that_crashes_after_its_promotion_is_taken_back_once_and_held(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0", code=lambda text: text.replace(RETURN, DIES + RETURN))
    await live.deploy(plugin, "1.0.0")
    taken = await live.deploy(plugin, "2.0.0", rollbackWindow="PT1H", monitorInterval="PT2S")
    assert taken.status == "Completed", taken.describe()

    async with torment(live, plugin):
        await eventually(lambda: serves(live, plugin, "1.0.0"), "the monitor goes back", 60)

        async def over() -> bool:
            newest = (await live.api.deployments(pluginId=plugin, limit=1))["items"][0]
            return bool(newest["initiatedBy"] == "hotswap-monitor" and newest["status"] == "Completed")

        await eventually(over, "the rollback is on record")
    listed = await live.api.deployments(pluginId=plugin)
    assert [item["initiatedBy"] for item in listed["items"]] == ["hotswap-monitor", "admin", "admin"]
    assert "3 looks in a row" in listed["items"][0]["reason"]
    assert listed["items"][0]["stepCount"] == 2, "the old version was warm: one switch, then unload"

    held = await live.api.held_versions(ENVIRONMENT)
    assert [item["version"] for item in held["items"] if item["plugin"] == plugin] == ["2.0.0"]
    with pytest.raises(ApiError) as refused:
        await live.api.deploy(live.body(plugin, "2.0.0", "Direct"))
    assert refused.value.code == "CONFLICT"
    assert taken.id in refused.value.message
    again = await live.api.deploy({**live.body(plugin, "2.0.0", "Direct"), "overrideHold": "it was only a test"})

    async def completed() -> bool:
        return bool((await live.api.deployment(again["deploymentId"]))["status"] == "Completed")

    await eventually(completed, "a reason lets it come again")


@pytest.mark.timeout(120)
async def test_a_host_too_many_is_reported_and_repaired(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    await live.deploy(plugin, "2.0.0", rollbackWindow="PT1H")

    async def differences() -> list[str]:
        report = await live.api.drift(ENVIRONMENT)
        return [f"{item['kind']} {item['version']}" for item in report["items"] if item["plugin"] == plugin]

    assert await differences() == []
    await forget_the_warm_version(live, plugin)

    async def everywhere() -> bool:
        return await differences() == ["extra-host 1.0.0"] * 3

    await eventually(everywhere, "all three nodes have a host too many")
    await live.api.repair_drift(ENVIRONMENT, "a retirement was lost")

    async def none() -> bool:
        return await differences() == []

    await eventually(none, "the nodes made themselves right")
    for node in await live.node_figures(plugin):
        assert {host.version for host in node.hosts if host.state == "Ready"} == {"2.0.0"}


async def forget_the_warm_version(live: Live, plugin: str) -> None:
    """A route without it whose order to retire never came; a minute old, as the comparison leaves young routes out."""
    before = await live.route(plugin)
    stable = before.state.stable
    assert stable is not None
    state = RouteState(stable=stable, seed=before.state.seed)
    with psycopg.connect(live.settings.postgres.url.get_secret_value()) as connection:
        connection.execute(
            "INSERT INTO routes (environment, plugin_id, generation, state, stable_version, candidate_weight,"
            " deployment_id, written_at) VALUES (%s, %s, %s, %s, %s, 0, 'an-operator', now() - interval '1 minute')",
            (ENVIRONMENT, plugin, before.generation + 1, state.model_dump_json(), stable.version),
        )
