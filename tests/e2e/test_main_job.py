"""The main job on the live system: upload, roll out, serve, take back, by the same doors people use."""

import pytest

from hotswap.cli.faults import ApiError
from hotswap.demo.rollout import Rollout
from tests.e2e.live import Live, eventually

RETURN = "return {\"greeting\": f\"{context.config['salutation']}, {parameters['name']}!\"}"
FAILS_LIVE = 'if context.tenant.startswith("tenant-"):\n            raise ValueError("bad")\n        '
CANARY = {
    "steps": [30, 100],
    "evaluationPeriod": "PT2S",
    "evaluationInterval": "PT0.5S",
    "onInconclusive": "extend",
    "thresholds": {"minSample": 10},
}


async def test_a_plugin_goes_from_a_folder_to_an_answer_of_every_node(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0")
    rollout = await live.deploy(plugin, "1.0.0")
    assert rollout.status == "Completed"
    for node in range(3):
        answer = await live.invoke(plugin, node=node)
        assert answer.status_code == 200
        assert answer.json() == {"greeting": "Hello, Ada!"}
        assert answer.headers["X-HotSwap-Version"] == "1.0.0"


async def test_switching_under_traffic_fails_no_request(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "1.1.0")
    await live.deploy(plugin, "1.0.0")
    async with live.traffic(plugin, rate=300) as traffic:
        for version in ("1.1.0", "1.0.0", "1.1.0", "1.0.0"):
            assert (await live.deploy(plugin, version)).status == "Completed"
        report = await traffic.stop()
    assert not report.platform_failures, report.failure_samples
    assert not report.plugin_errors
    assert set(report.by_version) == {"1.0.0", "1.1.0"}


async def test_a_version_that_fails_live_traffic_is_taken_back_by_itself(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0", code=lambda text: text.replace(RETURN, FAILS_LIVE + RETURN))
    await live.deploy(plugin, "1.0.0")
    async with live.traffic(plugin) as traffic:
        rollout = await live.deploy(plugin, "2.0.0", "Canary", **CANARY)
        report = await traffic.stop()
    assert rollout.status == "RolledBack", rollout.describe()
    assert rollout.deployment["verdict"]["outcome"] == "Fail"
    assert not report.platform_failures, report.failure_samples
    assert set(report.plugin_errors) == {"2.0.0"}
    state = (await live.route(plugin)).state
    assert state.stable is not None
    assert state.stable.version == "1.0.0"


async def test_a_second_deployment_while_one_runs_is_refused_and_leaves_no_trace(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    rollout = await Rollout.start(
        live.api, live.body(plugin, "2.0.0", "Canary", **{**CANARY, "evaluationPeriod": "PT1H"})
    )
    async with rollout:
        await rollout.until(lambda one: one.weight() == 30, "the first step", 60)
        with pytest.raises(ApiError) as refused:
            await live.api.deploy(live.body(plugin, "2.0.0", "Direct"))
        assert refused.value.code == "CONFLICT"
        assert rollout.id in refused.value.message
        await live.api.command(rollout.id, "abort", "only a test", "")
        await rollout.until_over()
    assert rollout.status == "Aborted"
    listed = await live.api.deployments(pluginId=plugin)
    assert listed["total"] == 2


async def test_a_restarted_node_serves_what_postgresql_says(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0")
    await live.deploy(plugin, "1.0.0")
    killed = live.stack.kill("node-3")
    await live.stack.restarted("node-3", killed)

    async def serves() -> bool:
        return (await live.invoke(plugin, node=2)).status_code == 200

    await eventually(serves, "node-3 serves again")


async def test_rollback_of_a_completed_deployment_goes_back(live: Live) -> None:
    plugin = await live.new_plugin("1.0.0", "2.0.0")
    await live.deploy(plugin, "1.0.0")
    done = await live.deploy(plugin, "2.0.0")
    answer = await live.api.command(done.id, "rollback", "customers complain", "")

    async def back() -> bool:
        record = await live.route(plugin)
        return record.state.stable is not None and record.state.stable.version == "1.0.0"

    await eventually(back, f"1.0.0 serves again after {answer}")
