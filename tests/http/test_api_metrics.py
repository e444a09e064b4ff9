"""Own metrics of a rollout over the facade: announced in the plan, refused where nobody may ask."""

from typing import Any

import pytest

from api.services.metric_checks import askable
from hotswap.config import MetricsSettings
from hotswap.domain.deployment import CanaryConfig
from hotswap.domain.errors import InvalidInput
from hotswap.domain.metrics import MetricSpec
from tests.http.site import API, Site, error_of

NODES = {"name": "p95", "provider": "nodes", "query": "latency-p95", "operator": "<", "threshold": 200}
PROM = {"name": "up", "provider": "prometheus", "query": "up", "operator": ">=", "threshold": 1}
HOOK = {"name": "hook", "provider": "webhook", "url": "http://qa.example/ok", "operator": ">=", "threshold": 1}

SETTINGS: dict[str, Any] = {
    "prometheus_url": "http://prometheus:9090",
    "allowed_hosts": ("qa.example",),
    "secrets": ({"name": "qa", "host": "qa.example:80", "token": "t"},),
}


async def test_a_plan_announces_samples_and_holds_the_metrics_once(site: Site) -> None:
    await site.ship("greeter", "1.0.0", "2.0.0")
    await site.serve("greeter", "Staging", "1.0.0", "dep_before")
    config = {"steps": [25, 100], "metrics": [NODES]}
    body = {"pluginId": "greeter", "version": "2.0.0", "environment": "Staging", "strategy": "Canary", "config": config}
    answer = (await site.admin.post(f"{API}/deployments/plan", json=body)).json()
    first, last = [planned["step"] for planned in answer["steps"] if planned["step"]["kind"] == "observe"]
    found = {sample["metric"]: sample for sample in first["expectedSample"]}
    assert found["error-rate-vs-baseline"]["regression"] == "errors 1 % -> 3 %"
    assert 5_000 < found["error-rate-vs-baseline"]["requests"] < 100_000
    assert set(found) == {"error-rate-vs-baseline", "latency-vs-baseline", "error-rate", "latency-p99"}
    assert {sample["metric"] for sample in last["expectedSample"]} == {"error-rate", "latency-p99"}
    assert [metric["name"] for metric in answer["plan"]["metrics"]] == ["p95"]
    without = (await site.admin.post(f"{API}/deployments/plan", json={**body, "config": {"steps": [25, 100]}})).json()
    assert without["planHash"] != answer["planHash"]
    assert "metrics" not in without["plan"]


async def test_a_metric_that_nobody_may_ask_is_refused_before_the_start(site: Site) -> None:
    await site.ship()
    config = {"metrics": [NODES, HOOK, PROM]}
    answer = await site.deploy(strategy="Canary", config=config)
    error = error_of(answer, 400, "VALIDATION_ERROR")
    assert [detail["field"] for detail in error["details"]] == ["config.metrics.1.url", "config.metrics.2.url"]
    assert "HOTSWAP_METRICS__ALLOWED_HOSTS" in error["details"][0]["message"]
    assert "HOTSWAP_METRICS__PROMETHEUS_URL" in error["details"][1]["message"]
    assert site.rollouts.started == []


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        (NODES, None),
        (PROM, None),
        (PROM | {"url": "http://prometheus:9090/team-a"}, None),
        (PROM | {"url": "http://qa.example"}, None),
        (PROM | {"url": "http://other:9090"}, "url"),
        (PROM | {"secret": "qa"}, "secret"),
        (HOOK, None),
        (HOOK | {"secret": "qa"}, None),
        (HOOK | {"secret": "other"}, "secret"),
        (HOOK | {"url": "http://qa.example:8080/ok"}, "url"),
        # The platform's Prometheus may be queried, not POSTed anything by a webhook.
        (HOOK | {"url": "http://prometheus:9090/api/v1/admin/tsdb/snapshot"}, "url"),
        (HOOK | {"url": "http://169.254.169.254/latest"}, "url"),
    ],
)
def test_only_hosts_and_secrets_of_the_settings_are_askable(metric: dict[str, Any], field: str | None) -> None:
    config = CanaryConfig(metrics=(MetricSpec.model_validate(metric),))
    settings = MetricsSettings.model_validate(SETTINGS)
    if field is None:
        assert askable(config, settings) is config
        return
    with pytest.raises(InvalidInput) as raised:
        askable(config, settings)
    assert [fault.field for fault in raised.value.faults] == [f"config.metrics.0.{field}"]
