"""What `config` of a deployment request may hold: every fault is named by its path, with a remedy."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.domain.analysis import InconclusivePolicy
from hotswap.domain.deployment import CanaryConfig, DirectConfig
from hotswap.domain.errors import FieldFault, InvalidInput
from hotswap.strategies.registry import available_strategies, default_config, parse_config


def test_defaults_are_those_of_the_specification() -> None:
    canary = default_config("Canary")
    assert isinstance(canary, CanaryConfig)
    assert canary.evaluation_period == timedelta(minutes=10)
    limits = canary.thresholds
    assert (limits.max_error_rate, limits.max_latency_p99_ms, limits.min_success_rate) == (0.05, 500, 0.95)
    assert (limits.max_latency_ratio, limits.max_probe_failures, limits.max_crashed_hosts) == (2, 3, 0.2)
    assert default_config("Direct") == DirectConfig()
    assert parse_config("Canary", {}) == canary


def test_both_spellings_of_keys_are_read() -> None:
    camel = parse_config(
        "Canary",
        {
            "steps": [10, 100],
            "evaluationPeriod": "PT2S",
            "onInconclusive": "rollback",
            "thresholds": {"maxErrorRate": 0.1, "minSample": 5},
        },
    )
    snake = parse_config(
        "Canary",
        {
            "steps": [10, 100],
            "evaluation_period": "PT2S",
            "on_inconclusive": "rollback",
            "thresholds": {"max_error_rate": 0.1, "min_sample": 5},
        },
    )
    assert camel == snake
    assert isinstance(camel, CanaryConfig)
    assert (camel.steps, camel.evaluation_period) == ((10, 100), timedelta(seconds=2))
    assert camel.on_inconclusive is InconclusivePolicy.ROLLBACK
    assert camel.thresholds.min_sample == 5


def test_a_configuration_survives_its_own_json() -> None:
    config = parse_config("Canary", {"initialPercentage": 5, "incrementPercentage": 10})
    assert parse_config("Canary", config.model_dump(mode="json")) == config
    assert parse_config("Canary", config.model_dump()) == config


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("Yolo", "'Yolo' is not a strategy; choose Direct, Rolling, Canary, BlueGreen or ABTesting"),
        ("canary", "'canary' is not a strategy; choose Direct, Rolling, Canary, BlueGreen or ABTesting"),
        ("", "'' is not a strategy; choose Direct, Rolling, Canary, BlueGreen or ABTesting"),
    ],
)
def test_a_strategy_that_cannot_be_planned_is_refused_and_the_others_named(strategy: str, said: str) -> None:
    with pytest.raises(InvalidInput) as parsing:
        parse_config(strategy, {})
    with pytest.raises(InvalidInput) as defaulting:
        default_config(strategy)
    for refused in (parsing.value, defaulting.value):
        assert [(fault.field, fault.message) for fault in refused.faults] == [("strategy", said)]
    assert available_strategies() == ("Direct", "Rolling", "Canary", "BlueGreen", "ABTesting")


CANARY_FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"steps": [0, 100]}, "config.steps", "0 is outside 1 to 100"),
    ({"steps": [10, 101]}, "config.steps", "101 is outside 1 to 100"),
    ({"steps": [-5, 100]}, "config.steps", "-5 is outside"),
    ({"steps": [50, 30, 100]}, "config.steps", "must rise strictly"),
    ({"steps": [50, 50, 100]}, "config.steps", "must rise strictly"),
    ({"steps": []}, "config.steps", "1 to 100 percentages"),
    ({"steps": [10, 50]}, "config.steps", "must end at 100"),
    ({"steps": [10, 50.5, 100]}, "config.steps.1", "whole percentages"),
    ({"steps": [10.0, 100]}, "config.steps.0", "whole percentages"),
    ({"steps": ["10", 100]}, "config.steps.0", "whole percentages"),
    ({"steps": [True, 100]}, "config.steps.0", "whole percentages"),
    ({"steps": [None]}, "config.steps.0", "whole percentages"),
    ({"steps": 100}, "config.steps", "in a list"),
    ({"steps": "10,100"}, "config.steps", "in a list"),
    ({"steps": [10**30, 100]}, "config.steps", ""),
    ({"steps": [100], "initialPercentage": 10}, "config.steps", "either steps or initialPercentage"),
    ({"steps": [100], "incrementPercentage": 10}, "config.steps", "not both"),
    ({"initialPercentage": 0}, "config.initialPercentage", "greater than or equal to 1"),
    ({"initialPercentage": True}, "config.initialPercentage", "integer"),
    ({"incrementPercentage": 101}, "config.incrementPercentage", "less than or equal to 100"),
    ({"evaluationPeriod": "10 minutes"}, "config.evaluationPeriod", "ISO 8601 duration such as PT10M"),
    ({"evaluationPeriod": 600}, "config.evaluationPeriod", "ISO 8601 duration such as PT10M"),
    ({"evaluationPeriod": "PT0S"}, "config.evaluationPeriod", "longer than zero"),
    ({"evaluationInterval": "-PT1S"}, "config.evaluationInterval", "longer than zero"),
    ({"evaluationPeriod": "P31D"}, "config.evaluationPeriod", "at most 30 days"),
    ({"drainGrace": "PT0S"}, "config.drainGrace", "longer than zero"),
    ({"autoRollback": "yes"}, "config.autoRollback", "boolean"),
    ({"onInconclusive": "shrug"}, "config.onInconclusive", "'pause'"),
    ({"thresholds": {"maxErrorRate": 1}}, "config.thresholds.maxErrorRate", "less than 1"),
    ({"thresholds": {"maxErrorRate": "5%"}}, "config.thresholds.maxErrorRate", "number"),
    ({"thresholds": {"maxLatencyP99Ms": float("inf")}}, "config.thresholds.maxLatencyP99Ms", "number"),
    ({"thresholds": {"maxLatencyRatio": float("nan")}}, "config.thresholds.maxLatencyRatio", "number"),
    ({"thresholds": {"maxErorRate": 0.1}}, "config.thresholds.maxErorRate", "not a known key"),
    ({"thresholds": []}, "config.thresholds", "object"),
    ({"step": [100]}, "config.step", "not a known key"),
    ({"monitoringPeriod": "PT5M"}, "config.monitoringPeriod", "not a known key"),
    ({"kind": "Direct"}, "config.kind", "leave it out"),
    ({"\ud800": 1}, "config", ""),
    ({"steps": {1, 2}, "x": object()}, "config", "JSON object"),
]


@pytest.mark.parametrize(("raw", "path", "said"), CANARY_FAULTS, ids=[ascii(raw)[:40] for raw, _, _ in CANARY_FAULTS])
def test_a_wrong_canary_configuration_is_named(raw: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_config("Canary", raw)
    (fault,) = raised.value.faults
    assert fault.field == path
    assert said in fault.message
    assert raised.value.message.startswith("the configuration of Canary is wrong: config")


@pytest.mark.parametrize("period", ["-PT1S", "P31D"])
def test_a_wrong_monitoring_period_is_named(period: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_config("Direct", {"monitoringPeriod": period})
    assert [fault.field for fault in raised.value.faults] == ["config.monitoringPeriod"]


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_config(
            "Canary", {"steps": [0], "onInconclusive": 3, "thresholds": {"alpha": 2, "nope": 1}, "extra": None}
        )
    assert {fault.field for fault in raised.value.faults} == {
        "config.steps",
        "config.onInconclusive",
        "config.thresholds.alpha",
        "config.thresholds.nope",
        "config.extra",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*CanaryConfig.model_fields, "evaluationPeriod", "thresholds", "odd"]) | st.text(), json_values
    )
)
def test_outside_data_gives_a_configuration_or_named_faults_and_nothing_else(raw: dict[str, Any]) -> None:
    for strategy in ("Canary", "Direct"):
        faults: Sequence[FieldFault] = ()
        try:
            json.loads(parse_config(strategy, raw).model_dump_json())
        except InvalidInput as refused:
            faults = refused.faults or [FieldFault("", "")]
        assert all(fault.field.startswith("config") and fault.message for fault in faults)
