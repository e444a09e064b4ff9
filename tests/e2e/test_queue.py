"""One place, three deployments, on the live system: by the api, with the worker killed while they stand in line."""

import asyncio

import pytest

from hotswap.demo.rollout import Rollout
from tests.e2e.live import Live

CANARY = {
    "steps": [30, 100],
    "evaluationPeriod": "PT1H",
    "evaluationInterval": "PT0.5S",
    "onInconclusive": "extend",
    "thresholds": {"minSample": 10},
}


@pytest.mark.timeout(150)
async def test_queued_and_superseding_deployments_take_their_turns_though_the_worker_is_killed(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    async with live.traffic(plugin) as traffic:
        running = await Rollout.start(live.api, live.body(plugin, "2.0.0", "Canary", **CANARY))
        async with running:
            await running.until(lambda one: one.weight() == 30, "the first step", 60)
            queued = await Rollout.start(live.api, {**live.body(plugin, "1.0.0", "Direct"), "onConflict": "queue"})
            async with queued:
                await queued.until(lambda one: running.id in one.deployment["waitingFor"], "its place in the line", 60)
                killed = live.stack.kill("worker")
                urgent = await Rollout.start(
                    live.api, {**live.body(plugin, "2.0.0", "Direct"), "onConflict": "supersede"}
                )
                async with urgent:
                    async with asyncio.timeout(60):
                        await live.stack.restarted("worker", killed)
                    await running.until_over()
                    await urgent.until_over()
                    await queued.until_over()
        report = await traffic.stop()
    assert (running.status, urgent.status, queued.status) == ("Superseded", "Completed", "Completed")
    assert not report.platform_failures, report.failure_samples
    record = await live.route(plugin)
    assert record.deployment_id == queued.id
    assert record.state.stable is not None
    assert (record.state.stable.version, record.state.candidate) == ("1.0.0", None)
    events = await live.events(queued.id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
