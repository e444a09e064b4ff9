"""Freezes and pipelines on the live system: a lift releases at once, a killed worker loses no pipeline."""

import asyncio
from typing import Any

from hotswap.cli.client import API
from hotswap.demo.rollout import Rollout
from tests.e2e.live import Live

CANARY = {"steps": [30, 100], "evaluationPeriod": "PT1H", "evaluationInterval": "PT1S", "thresholds": {"minSample": 10}}
AT_ONCE = 5.0
"""Seconds within which a lift must be felt; without the facade's signal it would take 15."""


async def test_a_freeze_holds_a_running_rollout_and_its_lift_releases_it_at_once(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    async with live.traffic(plugin):
        rollout = await Rollout.start(live.api, live.body(plugin, "2.0.0", "Canary", **CANARY))
        async with rollout:
            await rollout.until(
                lambda one: one.weight() == 30 and bool(one.deployment["verdict"]), "the first step", 30
            )
            body = {"pluginId": plugin, "window": {"kind": "once", "starts": "2026-01-01T00:00:00Z"}, "reason": "quiet"}
            freeze = await live.api.call("POST", f"{API}/freezes", body=body)
            await live.api.command(rollout.id, "promote", "", "")
            await rollout.until(lambda one: bool(one.deployment["heldBy"]), "being held", 60)
            assert rollout.weight() == 30
            assert rollout.deployment["waitingFor"] == "the freeze 'quiet' until it is lifted"
            await live.api.call("DELETE", f"{API}/freezes/{freeze['freezeId']}")
            await rollout.until(lambda one: one.weight() == 100, "the next step", AT_ONCE)
            await live.api.command(rollout.id, "abort", "only a test", "")
            await rollout.until_over()
    assert rollout.status == "Aborted"


async def test_a_pipeline_goes_on_when_its_worker_is_killed_while_it_soaks(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0")
    stages = [{"environment": "Development", "strategy": "Direct", "soak": "PT6S"}]
    started = await live.api.call(
        "POST", f"{API}/pipelines", body={"pluginId": plugin, "version": "1.0.0", "stages": stages}
    )
    await _until(live, started["pipelineId"], lambda told: told["stages"][0]["state"] == "Soaking")
    killed = live.stack.kill("worker")
    await live.stack.restarted("worker", killed)
    ended = await _until(
        live, started["pipelineId"], lambda told: told["status"] in ("Completed", "Failed", "RolledBack")
    )
    assert ended["status"] == "Completed", ended
    assert (ended["stages"][0]["state"], ended["stages"][0]["deploymentStatus"]) == ("Done", "Completed")
    assert (await live.api.deployment(ended["stages"][0]["deploymentId"]))["status"] == "Completed"
    assert (await live.invoke(plugin)).status_code == 200


async def _until(live: Live, pipeline_id: str, holds: Any) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            told: dict[str, Any] = await live.api.call("GET", f"{API}/pipelines/{pipeline_id}")
            if holds(told):
                return told
            await asyncio.sleep(0.1)
