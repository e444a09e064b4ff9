"""A node of the live stack is upgraded in the middle of a canary: nobody notices, the verdict stays a verdict."""

import asyncio

from hotswap.demo.rollout import Rollout
from tests.e2e.live import Live
from tests.e2e.test_kills import CANARY, until_over_resuming


async def test_a_node_is_upgraded_in_the_middle_of_a_canary_and_nobody_notices(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    restarts = len(live.stack.restart_events)
    boots = {node.node_id: node.boot_id for node in await live.nodes()}
    async with live.traffic(plugin) as traffic:
        rollout = await Rollout.start(live.api, live.body(plugin, "2.0.0", "Canary", **CANARY))
        async with rollout:
            await rollout.until(lambda one: one.weight() >= 20, "the first step", 60)
            before = live.stack.pid("node-2")
            old = await live.stack.replace_node("node-2")
            async with asyncio.timeout(30):
                assert (old.pid, await old.wait()) == (before, 0)
            await until_over_resuming(live, rollout)
        report = await traffic.stop()
    assert rollout.status == "Completed", rollout.describe()
    assert (report.platform_failures, report.failure_samples) == ({}, [])
    assert {told.node_id for told in await live.node_figures(plugin)} == {"node-1", "node-2", "node-3"}
    assert [node.node_id for node in await live.nodes() if node.boot_id != boots[node.node_id]] == ["node-2"]
    assert live.stack.pid("node-2") != before
    assert len(live.stack.restart_events) == restarts, "a replaced process has not died"
