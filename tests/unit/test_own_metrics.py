"""A provider's answer or a nodes figure in, a MetricVerdict with its evidence out."""

from collections import Counter
from typing import Any

import pytest

from hotswap.analysis.histogram import bucket_of
from hotswap.analysis.own_metrics import judge_answer, judge_counted, not_applicable, sequences
from hotswap.analysis.sample import Arm, Sample
from hotswap.domain.analysis import MetricVerdict, Outcome, Thresholds
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.metrics import Measurement, MetricSpec

LIMITS = Thresholds()
ALPHA = LIMITS.alpha / 6
VERSIONS = ("2.0.0", "1.0.0")
AWAY = MetricProviderFault("prometheus:9090 did not answer within 3 s", transient=True)


def spec(**more: Any) -> MetricSpec:
    base = {"name": "m", "provider": "prometheus", "query": "f({version})", "operator": "<=", "threshold": 1.5}
    return MetricSpec.model_validate({**base, **more})


def nodes(query: str, **more: Any) -> MetricSpec:
    return spec(provider="nodes", query=query, **more)


def answered(made: MetricSpec, candidate: Any, baseline: Any = None) -> MetricVerdict:
    def told(value: Any) -> Any:
        return Measurement(value=value, query="f(...)", raw="raw") if isinstance(value, int | float) else value

    second = None if baseline is None else told(baseline)
    return judge_answer(made, VERSIONS, told(candidate), second, LIMITS.min_sample)


@pytest.mark.parametrize(
    ("operator", "value", "outcome"),
    [
        ("<=", 1.5, "Pass"),
        ("<=", 1.6, "Fail"),
        ("<", 1.5, "Fail"),
        ("<", 1.4, "Pass"),
        (">=", 1.5, "Pass"),
        (">=", 1.4, "Fail"),
        (">", 1.5, "Fail"),
        (">", 1.6, "Pass"),
        ("<=", 0, "Pass"),
        (">=", 0, "Fail"),
    ],
)
def test_a_value_is_held_against_the_threshold(operator: str, value: float, outcome: str) -> None:
    verdict = answered(spec(operator=operator), value)
    assert verdict.outcome == outcome
    assert (verdict.estimate, verdict.threshold, verdict.provider) == (value, 1.5, "prometheus")
    assert (verdict.query, verdict.raw) == ("f(...)", "raw")
    assert f"good is {operator} 1.5" in verdict.explanation


@pytest.mark.parametrize(
    ("compare", "new", "old", "outcome", "estimate"),
    [
        ("baseline-ratio", 3.0, 2.0, "Pass", 1.5),
        ("baseline-ratio", 3.2, 2.0, "Fail", 1.6),
        ("baseline-ratio", 0.0, 0.0, "Pass", 1.0),
        ("baseline-ratio", 0.0, 2.0, "Pass", 0.0),
        ("baseline-ratio", 3.0, 0.0, "Inconclusive", None),
        ("baseline-ratio", 1e308, 1e-300, "Inconclusive", None),
        ("baseline-difference", 3.0, 2.0, "Pass", 1.0),
        ("baseline-difference", 3.6, 2.0, "Fail", 1.6),
        ("baseline-difference", 3.0, 0.0, "Fail", 3.0),
    ],
)
def test_a_comparison_asks_about_both_versions(
    compare: str, new: float, old: float, outcome: str, estimate: float | None
) -> None:
    verdict = answered(spec(compare=compare), new, old)
    assert verdict.outcome == outcome
    if estimate is None:
        assert verdict.estimate is None
    else:
        assert verdict.estimate == pytest.approx(estimate)
        assert verdict.baseline_estimate == old


@pytest.mark.parametrize(
    ("candidate", "baseline"),
    [(Measurement(reason="no series"), 1.0), (1.0, Measurement(reason="no series")), (Measurement(), Measurement())],
)
def test_no_data_in_either_version_is_inconclusive_and_says_so(candidate: Any, baseline: Any) -> None:
    verdict = answered(spec(compare="baseline-ratio"), candidate, baseline)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.no_data


@pytest.mark.parametrize(("candidate", "baseline"), [(AWAY, None), (AWAY, 1.0), (1.0, AWAY)])
def test_no_answer_is_an_error_and_neither_pass_nor_fail(candidate: Any, baseline: Any) -> None:
    verdict = answered(spec(compare="baseline-ratio" if baseline else "absolute"), candidate, baseline)
    assert verdict.outcome is Outcome.ERROR
    assert "did not answer" in verdict.explanation
    assert not verdict.no_data


def test_a_provider_may_judge_by_itself_but_not_where_a_value_is_compared() -> None:
    own = Measurement(outcome=Outcome.FAIL, reason="12 tickets")
    assert answered(spec(), own).outcome is Outcome.FAIL
    assert "12 tickets" in answered(spec(), own).explanation
    assert answered(spec(compare="baseline-ratio"), own, 1.0).outcome is Outcome.ERROR


@pytest.mark.parametrize(
    ("n", "outcome", "no_data"), [(0, "Inconclusive", True), (49, "Inconclusive", False), (50, "Pass", False)]
)
def test_a_told_sample_below_the_minimum_passes_nothing(n: int, outcome: str, no_data: bool) -> None:
    verdict = answered(spec(), Measurement(value=1.0, n=n))
    assert (verdict.outcome, verdict.n, verdict.no_data) == (outcome, n, no_data)


# --- figures that the nodes count ------------------------------------------------------------------------------------


def arm(version: str, requests: int, errors: int = 0, latency_ms: float = 50.0) -> Arm:
    return Arm(version, requests, errors, dict(Counter({bucket_of(latency_ms): requests})) if requests else {})


def counted(made: MetricSpec, new: Arm, old: Arm | None = None) -> MetricVerdict:
    return judge_counted(made, Sample(new, old, (), new.requests), LIMITS, ALPHA)


@pytest.mark.parametrize(
    ("made", "requests", "errors", "outcome"),
    [
        (nodes("error-rate", threshold=0.02), 5_000, 50, "Pass"),
        (nodes("error-rate", threshold=0.02), 5_000, 250, "Fail"),
        (nodes("error-rate", threshold=0.02), 5_000, 110, "Inconclusive"),  # 2.2 %: beyond, but not beyond doubt
        (nodes("error-rate", threshold=0.02), 49, 49, "Inconclusive"),
        (nodes("error-rate", threshold=0.02), 0, 0, "Inconclusive"),
        (nodes("success-rate", operator=">=", threshold=0.98), 5_000, 50, "Pass"),
        (nodes("success-rate", operator=">=", threshold=0.98), 5_000, 250, "Fail"),
        (nodes("success-rate", operator=">", threshold=0.98), 5_000, 110, "Inconclusive"),
    ],
)
def test_a_rate_fails_only_when_its_bound_is_beyond_the_threshold(
    made: MetricSpec, requests: int, errors: int, outcome: str
) -> None:
    verdict = counted(made, arm("2.0.0", requests, errors))
    assert verdict.outcome == outcome
    assert verdict.no_data == (requests == 0)
    if requests:
        assert verdict.lower is not None
        assert verdict.upper is not None
        assert verdict.estimate is not None
        assert verdict.lower <= verdict.estimate <= verdict.upper


@pytest.mark.parametrize(
    ("query", "latency", "outcome"),
    [
        ("latency-p50", 100.0, "Pass"),
        ("latency-p50", 300.0, "Fail"),
        ("latency-p99", 300.0, "Fail"),
        ("latency-p99.9", 100.0, "Pass"),
    ],
)
def test_a_latency_is_judged_at_the_percentile_asked_for(query: str, latency: float, outcome: str) -> None:
    assert counted(nodes(query, threshold=200), arm("2.0.0", 20_000, latency_ms=latency)).outcome == outcome


def test_a_high_percentile_of_few_requests_has_no_upper_bound_and_does_not_fail_what_should_be_large() -> None:
    verdict = counted(nodes("latency-p99", operator=">=", threshold=200), arm("2.0.0", 100, latency_ms=10))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.upper is None


@pytest.mark.parametrize(
    ("made", "new", "old", "outcome"),
    [
        (nodes("error-rate", compare="baseline-ratio"), (5_000, 50), (5_000, 50), "Pass"),
        (nodes("error-rate", compare="baseline-ratio"), (5_000, 500), (5_000, 50), "Fail"),
        # Zero against sparse errors: a ratio to nothing says nothing, unless the old version surely has hardly any.
        (nodes("error-rate", compare="baseline-ratio"), (5_000, 3), (5_000, 0), "Inconclusive"),
        (nodes("error-rate", compare="baseline-ratio"), (5_000, 500), (5_000, 0), "Fail"),
        (nodes("error-rate", compare="baseline-ratio"), (5_000, 0), (5_000, 0), "Pass"),
        (nodes("error-rate", compare="baseline-difference", threshold=0.01), (5_000, 3), (5_000, 0), "Pass"),
        (nodes("error-rate", compare="baseline-difference", threshold=0.01), (5_000, 400), (5_000, 50), "Fail"),
        # 2.6 % beside 1 %: beyond, but each of the two may be off a little the other way.
        (nodes("error-rate", compare="baseline-difference", threshold=0.01), (2_000, 52), (2_000, 20), "Inconclusive"),
        (nodes("error-rate", compare="baseline-ratio"), (5_000, 500), (0, 0), "Inconclusive"),
        (nodes("error-rate", compare="baseline-ratio"), (0, 0), (5_000, 0), "Inconclusive"),
    ],
)
def test_a_figure_is_compared_by_the_bounds_of_both_versions(
    made: MetricSpec, new: tuple[int, int], old: tuple[int, int], outcome: str
) -> None:
    verdict = counted(made, arm("2.0.0", *new), arm("1.0.0", *old))
    assert verdict.outcome == outcome
    verdict.model_dump_json()  # no infinity where JSON has none
    assert verdict.no_data == (0 in (new[0], old[0]))


def test_a_comparison_without_anybody_to_compare_with_neither_passes_nor_blocks() -> None:
    assert "no earlier version" in not_applicable(spec(compare="baseline-ratio"), None).explanation
    assert "no tenant is left on 1.0.0" in not_applicable(spec(compare="baseline-ratio"), "1.0.0").explanation


def test_nodes_figures_take_their_part_of_alpha_and_other_metrics_take_none() -> None:
    specs = [nodes("error-rate"), nodes("latency-p95", compare="baseline-ratio"), spec()]
    assert sequences(specs, compared=True) == 3
    assert sequences(specs, compared=False) == 1
