"""Any part killed with SIGKILL in the middle of a canary: a right ending, routes as the status says, nothing twice."""

import asyncio
import itertools

import pytest

from activities.records import AUDITED
from hotswap.demo.rollout import Rollout
from tests.e2e.live import Live, eventually

CANARY = {
    "steps": [20, 60, 100],
    "evaluationPeriod": "PT2S",
    "evaluationInterval": "PT0.5S",
    "onInconclusive": "extend",
    "thresholds": {"minSample": 10},
}

IN_DOUBT = {"CONNECTION_LOST"}
"""A request that was on a node when it was killed: nobody can know whether it ran, so the client is told."""


LOST_ORDERS_WITHIN = 90.0
"""Seconds: a node unloads by itself, 30 s after the route, what it was away to be told of (hotswap.node.reconcile)."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["worker", "api", "node-2", "temporal", "postgres", "valkey"])
async def test_a_killed_part_costs_time_and_nothing_else(live: Live, victim: str) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    async with live.traffic(plugin) as traffic:
        rollout = await Rollout.start(live.api, live.body(plugin, "2.0.0", "Canary", **CANARY))
        async with rollout:
            await rollout.until(lambda one: one.weight() >= 20, "the first step", 60)
            killed = live.stack.kill(victim)
            async with asyncio.timeout(60):
                await live.stack.restarted(victim, killed)
            await until_over_resuming(live, rollout)
        report = await traffic.stop()

    assert rollout.status in ("Completed", "RolledBack"), rollout.describe()
    await routes_equal_the_status(live, plugin, rollout)
    await nothing_was_applied_twice(live, plugin, rollout.id)
    if victim == "node-2":
        assert set(report.platform_failures) <= IN_DOUBT, report.failure_samples
    else:
        assert not report.platform_failures, report.failure_samples
    assert report.ok > 0


async def until_over_resuming(live: Live, rollout: Rollout) -> None:
    """A rollout whose evidence was lost with the killed part may pause for a person: be that person."""
    while True:
        await rollout.until(lambda one: one.over or one.status == "Paused", "an end or a pause", 90)
        if rollout.over:
            await rollout.until_over()
            return
        await live.api.command(rollout.id, "resume", "the part is back", "")
        await rollout.until(lambda one: one.status != "Paused", "going on", 60)


async def routes_equal_the_status(live: Live, plugin: str, rollout: Rollout) -> None:
    expected = "2.0.0" if rollout.status == "Completed" else "1.0.0"
    record = await live.route(plugin)
    assert record.state.stable is not None
    assert record.state.stable.version == expected
    assert record.state.candidate is None

    async def nodes_follow() -> bool:
        figures = await live.node_figures(plugin)
        hosts = [{host.version for host in node.hosts if host.state == "Ready"} for node in figures]
        return len(figures) == 3 and all(
            node.generation == record.generation and loaded == {expected}
            for node, loaded in zip(figures, hosts, strict=True)
        )

    what = f"all three nodes run only {expected} at generation {record.generation}"
    await eventually(nodes_follow, what, LOST_ORDERS_WITHIN)


async def nothing_was_applied_twice(live: Live, plugin: str, deployment_id: str) -> None:
    history = await live.route_history(plugin, deployment_id)
    generations = [record.generation for record in history]
    assert generations == list(range(generations[0], generations[0] + len(generations)))
    assert all(one.state != other.state for one, other in itertools.pairwise(history))
    events = await live.events(deployment_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    audited = sorted(f"deployment.{event.kind}" for event in events if event.kind in AUDITED)
    entries = [entry.event_type for entry in await live.audit(deployment_id)]
    assert sorted(entry for entry in entries if entry in set(audited)) == audited  # the facade adds entries of its own
