"""Own metrics in a configuration: every fault is named by its path, with the remedy; placeholders and origins are exact."""

from typing import Any

import pytest

from hotswap.adapters.metric_providers import metric_providers
from hotswap.config import SettingsInvalid, load_settings
from hotswap.domain.deployment import CanaryConfig
from hotswap.domain.errors import InvalidInput
from hotswap.domain.metrics import PLACEHOLDERS, allowed_origins, figure_of, filled, origin_of
from hotswap.strategies.registry import parse_config

GOOD: dict[str, Any] = {
    "name": "checkout-p99",
    "provider": "prometheus",
    "query": 'histogram_quantile(0.99, sum by (le) (rate(h_bucket{v="{version}",p="/users/{id}"}[{window}])))',
    "operator": "<=",
    "threshold": 1.5,
    "compare": "baseline-ratio",
    "policy": {"onFail": "pause", "onError": "continue", "onNoData": "pause", "onInconclusive": "extend"},
    "consecutiveFailureLimit": 2,
    "errorLimit": 3,
    "inconclusiveLimit": 5,
}
NODES = {"name": "p95", "provider": "nodes", "query": "latency-p95", "operator": "<", "threshold": 200}
HOOK = {"name": "hook", "provider": "webhook", "url": "https://qa.example:8443/ok", "operator": ">=", "threshold": 1}


def test_metrics_are_read_for_every_provider() -> None:
    config = parse_config("Canary", {"metrics": [GOOD, NODES, HOOK]})
    assert [metric.name for metric in config.metrics] == ["checkout-p99", "p95", "hook"]
    assert config.metrics[0].policy.on_fail == "pause"
    assert config.metrics[1].consecutive_failure_limit == 1
    assert parse_config("Canary", config.model_dump(mode="json")) == config


def test_a_request_from_before_there_were_metrics_has_none() -> None:
    assert CanaryConfig.model_validate_json('{"kind": "Canary"}').metrics == ()


@pytest.mark.parametrize(
    ("base", "change", "path", "said"),
    [
        (GOOD, {"name": "error-rate"}, "name", "judged anyway, by thresholds"),
        (GOOD, {"name": "P99"}, "name", "lower-case letters, digits and inner hyphens"),
        (GOOD, {"provider": "datadog"}, "provider", "'nodes', 'prometheus' or 'webhook'"),
        (GOOD, {"operator": "=="}, "operator", "'<='"),
        (GOOD, {"threshold": "much"}, "threshold", "number"),
        (GOOD, {"threshold": 0}, "threshold", "above 0"),
        (GOOD, {"query": ""}, "query", "is required for prometheus"),
        (GOOD, {"query": "sum(up)"}, "query", "{version}"),
        (GOOD, {"query": "f({version}) + g({tenant})"}, "query", "{tenant} is not a placeholder; there are {plugin}"),
        (GOOD, {"query": "x" * 1001}, "query", "1000"),
        (GOOD, {"url": "prometheus:9090"}, "url", "http(s)://host"),
        (GOOD, {"url": "http://user:pw@p/"}, "url", "without user"),
        (GOOD, {"consecutiveFailureLimit": 0}, "consecutiveFailureLimit", "greater than or equal to 1"),
        (GOOD, {"policy": {"onFail": "continue"}}, "policy.onFail", "'rollback' or 'pause'"),
        (GOOD, {"policy": {"onfail": "pause"}}, "policy.onfail", "not a known key"),
        (GOOD, {"weight": 3}, "weight", "not a known key"),
        (NODES, {"query": "cpu"}, "query", "nodes know error-rate, success-rate and latency-p50"),
        (NODES, {"query": "latency-p0"}, "query", "nodes know"),
        (NODES, {"query": "latency-p100"}, "query", "nodes know"),
        (NODES, {"url": "http://n:1/"}, "url", "leave url and secret out"),
        (HOOK, {"url": ""}, "url", "is required for a webhook"),
        (HOOK, {"secret": "No Such"}, "secret", "pattern"),
    ],
)
def test_a_wrong_metric_is_named_with_the_remedy(
    base: dict[str, Any], change: dict[str, Any], path: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_config("Canary", {"metrics": [NODES | {"name": "first"}, base | change]})
    (fault,) = raised.value.faults
    assert fault.field == f"config.metrics.1.{path}"
    assert said in fault.message


def test_a_metric_without_its_required_keys_names_each() -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_config("Canary", {"metrics": [{"name": "m"}]})
    assert {fault.field for fault in raised.value.faults} == {
        "config.metrics.0.provider",
        "config.metrics.0.operator",
        "config.metrics.0.threshold",
    }


@pytest.mark.parametrize(
    ("strategy", "config", "said"),
    [
        ("Canary", {"metrics": [NODES, NODES]}, "'p95' is there twice"),
        ("Canary", {"metrics": [NODES | {"name": f"m{n}"} for n in range(11)]}, "at most 10"),
        ("Direct", {"metrics": [NODES]}, "would never be asked: nothing is watched; set monitoringPeriod"),
    ],
)
def test_metrics_that_make_no_sense_together_are_refused(strategy: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_config(strategy, config)
    (fault,) = raised.value.faults
    assert fault.field == "config.metrics"
    assert said in fault.message


def test_placeholders_are_replaced_once_and_other_braces_stay() -> None:
    values = {name: f"<{name}>" for name in PLACEHOLDERS} | {"plugin": "{version}"}
    assert filled('a{x="{plugin}"} {window} {id} {}', values) == 'a{x="{version}"} <window> {id} {}'


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://prometheus:9090", "prometheus:9090"),
        ("http://prometheus/team-a", "prometheus:80"),
        ("https://qa.example/ok", "qa.example:443"),
        ("http://[::1]:9090/x", "[::1]:9090"),
        ("http://h:0/", None),
        ("http://h:70000/", None),
        ("http://a..b/", None),
        ("http://h/%2e%2e/../x", None),
        ("ftp://h/", None),
        ("http://h\n.evil/", None),
        ("http://h/x\n", None),
        ("http://H/", None),
        ("http:/h/", None),
    ],
)
def test_an_origin_is_what_every_parser_would_read(url: str, origin: str | None) -> None:
    assert origin_of(url) == origin


def test_an_allowed_host_without_a_port_stands_for_the_usual_ones() -> None:
    assert allowed_origins(["QA.example", "p:9090", "[::1]", "[::1]:9"]) == {
        "qa.example:80",
        "qa.example:443",
        "p:9090",
        "[::1]:80",
        "[::1]:443",
        "[::1]:9",
    }


def test_figures_of_the_nodes_are_rates_and_percentiles() -> None:
    assert figure_of("error-rate") == ("error-rate", 0.0)
    assert figure_of("success-rate") == ("success-rate", 0.0)
    assert figure_of("latency-p99.9") == ("latency", pytest.approx(0.999))
    assert figure_of("latency-p5") == ("latency", 0.05)
    assert figure_of("p99") is None


def test_settings_say_whom_the_worker_may_ask_and_keep_secrets_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"POSTGRES__URL": "postgresql://u@h/d", "REDIS__URL": "redis://h:1/0", "MINIO__ENDPOINT": "h:1"}
    given = needed | {
        "MINIO__ACCESS_KEY": "a",
        "MINIO__SECRET_KEY": "b",
        "METRICS__PROMETHEUS_URL": "http://prometheus:9090",
        "METRICS__ALLOWED_HOSTS": '["qa.example:8443"]',
        "METRICS__SECRETS": '[{"name": "qa", "host": "qa.example:8443", "token": "t0ken", "signing_key": "k3y"}]',
        "METRICS__TIMEOUT": "PT2S",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"HOTSWAP_{name}", value)
    metrics = load_settings().metrics
    assert metrics.allowed_hosts == ("qa.example:8443",)
    assert metrics.secrets[0].token is not None
    assert metrics.secrets[0].token.get_secret_value() == "t0ken"
    assert "t0ken" not in repr(metrics)
    assert set(metric_providers(metrics)) == {"prometheus", "webhook"}
    monkeypatch.setenv("HOTSWAP_METRICS__PROMETHEUS_URL", "http://user:pw@prometheus")
    monkeypatch.setenv("HOTSWAP_METRICS__TIMEOUT", "PT11S")
    with pytest.raises(SettingsInvalid) as raised:
        load_settings()
    assert "HOTSWAP_METRICS__PROMETHEUS_URL: must be http(s)://host" in raised.value.message
    assert "HOTSWAP_METRICS__TIMEOUT" in raised.value.message
    assert "pw" not in raised.value.message
