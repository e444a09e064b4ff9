"""Runbooks about servers and keys, followed to their end. For `make runbooks`."""

import asyncio
import base64
import json
import os
import secrets
import signal
import subprocess

import pytest

from hotswap.cli.client import API
from hotswap.demo.rollout import Rollout
from tests.e2e.live import Live
from tests.runbooks.conftest import Open
from tests.runbooks.faults import down, hung, restart
from tests.runbooks.slow_rollouts import canary, variables

pytestmark = pytest.mark.timeout(600)

UNJUDGED = {"steps": [30, 100], "evaluationPeriod": "PT2S", "evaluationInterval": "PT1S", "onInconclusive": "continue"}
"""Goes through without a request, so that it completes once what it waits for is back."""


async def test_api_down(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    rollout = await canary(live, plugin)
    async with down(live, "api") as mend, reading("api-down", **variables(plugin, ID=rollout.id)) as reader:
        await reader.follow("Look", "Act", "Over when", **{"restart-api": mend})


async def test_worker_down(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    rollout = await canary(live, plugin, **UNJUDGED)
    async with down(live, "worker") as mend, reading("worker-down", **variables(plugin, ID=rollout.id)) as reader:
        await reader.follow("Look", "Act", "Over when", **{"restart-worker": mend})


async def test_database_down(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    rollout = await canary(live, plugin, **UNJUDGED)
    async with down(live, "postgres") as mend, reading("database-down", **variables(plugin, ID=rollout.id)) as reader:
        await reader.follow("Look", "Act", "Over when", **{"restart-database": mend})


async def test_temporal_down(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    rollout = await canary(live, plugin, **UNJUDGED)
    async with hung(live, "temporal") as mend, reading("temporal-down", **variables(plugin, ID=rollout.id)) as reader:
        await reader.follow("Look", "Act", "Over when", **{"restart-temporal": mend})


async def test_object_store_down(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    async with hung(live, "seaweedfs") as mend:
        rollout = await Rollout.start(live.api, live.body(plugin, "2.0.0", "Direct"))
        async with rollout:
            await rollout.until(lambda one: one.status == "InProgress", "its beginning", 60)
        known = variables(plugin, ID=rollout.id, VERSION="2.0.0")
        async with reading("object-store-down", **known) as reader:
            await reader.follow("Look", "Act", "Over when", **{"restart-store": mend})


async def test_key_rotation(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0", code=lambda text: text)
    await live.deploy(plugin, "1.0.0")
    await live.api.call("PUT", f"{API}/tenants/acme/plugins/{plugin}/secrets/api-key", body={"value": "sesame"})
    parts = ["api", *(node["id"] for node in live.stack.info["nodes"])]

    async def new_wrapping_key() -> None:
        old = json.loads(live.stack.environment["HOTSWAP_KEYS__WRAPPING_KEYS"])
        both = json.dumps([base64.b64encode(secrets.token_bytes(32)).decode(), *old])
        for part in parts:
            await restart(live, part, HOTSWAP_KEYS__WRAPPING_KEYS=both)

    async def new_key_encryption_key() -> None:
        await restart(live, "api", HOTSWAP_AUTH__KEY_ENCRYPTION_KEY=base64.b64encode(secrets.token_bytes(32)).decode())

    done = {"new-wrapping-key": new_wrapping_key, "new-key-encryption-key": new_key_encryption_key}
    async with reading("key-rotation", **variables(plugin)) as reader:
        await reader.follow("Look", "Act: signing keys", "Act: the wrapping key", **done)
        await reader.follow("Act: the key-encryption key", "Over when", **done)


async def test_router_deaths(live: Live, reading: Open) -> None:
    plugin = await live.new_plugin("1.0.0")
    await live.deploy(plugin, "1.0.0")
    node = live.stack.info["nodes"][2]
    await restart(live, node["id"], HOTSWAP_NODE__ROUTERS="2")
    try:
        first, _ = await asyncio.to_thread(routers_of, live.stack.pid(node["id"]))
        os.kill(first, signal.SIGKILL)
        where = {"NODE_URL": node["routerUrl"], "NODE_ADMIN_URL": node["adminUrl"]}
        async with reading("router-deaths", **variables(plugin, **where)) as reader:
            await reader.follow("Look", "Over when")
    finally:
        await restart(live, node["id"], HOTSWAP_NODE__ROUTERS="1")


def routers_of(node: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "--parent", str(node), "--full", "hotswap.node.router_worker"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(pid) for pid in found.stdout.split()]
