"""An own metric through real processes: the worker asks a Prometheus that only its settings allow, and the rollout obeys."""

from pathlib import Path

import httpx
import pytest

from hotswap.domain.deployment import Environment
from hotswap.embedded.stack import EmbeddedStack
from tests.contract.metrics_server import MetricsServer, vector
from tests.e2e.live import Live, live_settings


async def test_a_prometheus_metric_takes_a_version_back_that_the_nodes_find_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MetricsServer().serving() as prometheus:
        # The business says no as soon as the new version has served anybody.
        prometheus.answer = lambda request: vector("0.42" if 'version="2.0.0"' in request.form["query"] else "0.97")
        monkeypatch.setenv("HOTSWAP_METRICS__PROMETHEUS_URL", prometheus.url)
        stack = EmbeddedStack(tmp_path / "stack", nodes=1, environment=Environment.DEVELOPMENT)
        await stack.start()
        try:
            async with Live(stack, tmp_path, live_settings(stack, monkeypatch.setenv)) as live:
                plugin = await live.new_plugin("1.0.0", "2.0.0")
                await live.deploy(plugin, "1.0.0")
                metric = {
                    "name": "paid-orders",
                    "provider": "prometheus",
                    "query": 'sum(orders_paid{plugin="{plugin}",version="{version}"})',
                    "operator": ">=",
                    "threshold": 0.9,
                    "compare": "baseline-ratio",
                    "consecutiveFailureLimit": 2,
                }
                config = {"steps": [50, 100], "evaluationPeriod": "PT8S", "evaluationInterval": "PT1S"}
                async with live.traffic(plugin) as traffic:
                    rollout = await live.deploy(plugin, "2.0.0", "Canary", **config, metrics=[metric])
                assert rollout.status == "RolledBack"
                reason = rollout.deployment["outcomeReason"]
                assert "paid-orders: 0.42 on 2.0.0 beside 0.97 on 1.0.0: 0.433 times as much" in reason
                (told,) = [one for one in rollout.deployment["verdict"]["metrics"] if one["metric"] == "paid-orders"]
                assert told["query"] == f'sum(orders_paid{{plugin="{plugin}",version="2.0.0"}})'
                assert '"0.42"' in told["raw"]
                report = await traffic.stop()
                assert not report.platform_failures, report.failure_samples
                answer = await live.invoke(plugin)
                assert (answer.status_code, answer.headers["X-HotSwap-Version"]) == (httpx.codes.OK, "1.0.0")
        finally:
            await stack.stop()
