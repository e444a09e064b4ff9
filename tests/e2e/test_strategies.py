"""Rolling and blue-green on the live system, under traffic: what only real nodes, processes and requests can show."""

import time

from tests.e2e.live import Live, eventually


async def test_rolling_through_three_nodes_under_traffic_fails_no_request(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    async with live.traffic(plugin, rate=200) as traffic:
        rollout = await live.deploy(plugin, "2.0.0", "Rolling", waitBetweenBatches="PT1S", thresholds={"minSample": 10})
        report = await traffic.stop()
    assert rollout.status == "Completed", rollout.describe()
    assert not report.platform_failures, report.failure_samples
    assert not report.plugin_errors
    assert set(report.by_version) == {"1.0.0", "2.0.0"}
    switched = [
        one.state.switched_nodes for one in await live.route_history(plugin, rollout.id) if one.state.switched_nodes
    ]
    assert switched == [("node-1",), ("node-1", "node-2"), ("node-1", "node-2", "node-3")]


async def test_blue_green_switches_back_in_an_instant_under_traffic(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    async with live.traffic(plugin, rate=200) as traffic:
        rollout = await live.deploy(
            plugin,
            "2.0.0",
            "BlueGreen",
            warmupPeriod="PT1S",
            monitoringPeriod="PT2S",
            onInconclusive="extend",
            thresholds={"minSample": 10},
        )
        assert rollout.status == "Completed", rollout.describe()
        smoke = [event for event in await live.events(rollout.id) if event.kind == "smoke"]
        assert "on 3 nodes" in smoke[0].message
        before = await live.route(plugin)
        assert [ref.version for ref in before.state.warm] == ["1.0.0"]
        loads = {
            (node.node_id, host.pid)
            for node in await live.node_figures(plugin)
            for host in node.hosts
            if host.version == "1.0.0"
        }

        asked = time.monotonic()
        await live.api.command(rollout.id, "rollback", "customers complain", "")

        async def back() -> bool:
            figures = await live.node_figures(plugin)
            return len(figures) == 3 and all(node.generation > before.generation for node in figures)

        await eventually(back, "every node follows the switch back")
        seconds = time.monotonic() - asked
        print(f"\nblue-green switch back: {seconds * 1000:.0f} ms from the command until every node was seen to follow")
        again = {
            (node.node_id, host.pid)
            for node in await live.node_figures(plugin)
            for host in node.hosts
            if host.version == "1.0.0"
        }
        assert again == loads, "going back loads nothing: the processes are those that were kept warm"
        for node in range(3):
            assert (await live.invoke(plugin, node=node)).headers["X-HotSwap-Version"] == "1.0.0"
        report = await traffic.stop()
    assert not report.platform_failures, report.failure_samples
    assert not report.plugin_errors
    assert seconds < 10
