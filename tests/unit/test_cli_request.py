"""What is typed after `hotswap deploy` as the body of the request."""

from pathlib import Path

import pytest

from hotswap.cli.durations import iso_duration
from hotswap.cli.faults import UsageFault
from hotswap.cli.request import deployment_request


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("10s", "PT10S"),
        ("5m", "PT300S"),
        ("1.5s", "PT1.5S"),
        ("250ms", "PT0.25S"),
        ("PT10M", "PT10M"),
        ("pt3s", "PT3S"),
    ],
)
def test_durations_are_typed_short_or_as_iso(typed: str, meant: str) -> None:
    assert iso_duration(typed, "--period") == meant


@pytest.mark.parametrize("typed", ["", "10", "P", "PT", "ten", "-5s", "5 s"])
def test_anything_else_is_no_duration(typed: str) -> None:
    with pytest.raises(UsageFault, match="--period"):
        iso_duration(typed, "--period")


def test_the_least_that_can_be_typed() -> None:
    body = deployment_request("phone", "1.0.0", "staging")
    assert body == {"pluginId": "phone", "version": "1.0.0", "environment": "Staging"}


def test_steps_mean_a_canary() -> None:
    body = deployment_request("phone", "2.0.0", "QA", steps="10, 30,100", period="10s", reason="why")
    assert body["strategy"] == "Canary"
    assert body["config"] == {"steps": [10, 30, 100], "evaluationPeriod": "PT10S"}
    assert body["reason"] == "why"


def test_period_is_the_monitoring_period_of_a_direct_deployment() -> None:
    body = deployment_request("phone", "2.0.0", "qa", strategy="direct", period="PT1M")
    assert body["config"] == {"monitoringPeriod": "PT1M"}


def test_flags_win_over_the_config_and_the_kind_in_it_is_the_strategy() -> None:
    config = '{"kind": "Canary", "steps": [50, 100], "autoRollback": false}'
    body = deployment_request("phone", "2.0.0", "qa", config=config, steps="20,100")
    assert body["strategy"] == "Canary"
    assert body["config"] == {"steps": [20, 100], "autoRollback": False}


def test_config_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "canary.json"
    path.write_text('{"initialPercentage": 5}')
    assert deployment_request("p", "1.0.0", "qa", strategy="canary", config=f"@{path}")["config"] == {
        "initialPercentage": 5
    }


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"environment": "stage"}, "not an environment"),
        ({"strategy": "yolo"}, "--strategy"),
        ({"steps": "ten"}, "--steps"),
        ({"steps": "10,100", "strategy": "direct"}, "--steps belongs to Canary or BlueGreen"),
        ({"period": "10s"}, "--period needs a strategy"),
        ({"config": "{"}, "not JSON"),
        ({"config": "[]"}, "JSON object"),
        ({"config": "@/nowhere.json"}, "cannot read"),
        ({"config": '{"kind": "Direct"}', "strategy": "canary"}, "differ"),
    ],
)
def test_a_wrong_flag_is_named_with_its_remedy(options: dict[str, str], named: str) -> None:
    typed = {"environment": "qa", **options}
    with pytest.raises(UsageFault, match=named) as fault:
        deployment_request("phone", "1.0.0", typed.pop("environment"), **typed)
    assert fault.value.remedy


@pytest.mark.parametrize(
    ("strategy", "key"),
    [("rolling", "waitBetweenBatches"), ("blue-green", "monitoringPeriod"), ("ab-testing", "testDuration")],
)
def test_period_is_what_each_strategy_waits_for(strategy: str, key: str) -> None:
    assert deployment_request("phone", "2.0.0", "qa", strategy=strategy, period="PT1M")["config"] == {key: "PT1M"}


def test_steps_make_a_blue_green_switch_gradual() -> None:
    body = deployment_request("phone", "2.0.0", "qa", strategy="blue-green", steps="50,100")
    assert body["config"] == {"switchover": "Gradual", "gradualSteps": [50, 100]}


@pytest.mark.parametrize(
    ("typed", "meant"), [("blue-green", "BlueGreen"), ("CANARY", "Canary"), ("abtesting", "ABTesting")]
)
def test_strategies_are_typed_as_people_type(typed: str, meant: str) -> None:
    assert deployment_request("p", "1.0.0", "qa", strategy=typed)["strategy"] == meant
