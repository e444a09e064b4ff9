"""Who wins an A/B test: as a table, as properties, and by simulation under continuous peeking."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.analysis.experiment import add_counts, compare, count_arms
from hotswap.analysis.histogram import bucket_of
from hotswap.analysis.windows import limits_of_window
from hotswap.domain.analysis import (
    ArmCounts,
    DecisionMetric,
    ExperimentVerdict,
    NodeFigures,
    Thresholds,
    VersionFigures,
    Winner,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALL = tuple(DecisionMetric)
ERRORS = (DecisionMetric.ERROR_RATE,)


def verdict(
    a: ArmCounts,
    b: ArmCounts,
    metrics: tuple[DecisionMetric, ...] = ERRORS,
    min_difference: float = 0.0,
    limits: Thresholds | None = None,
) -> ExperimentVerdict:
    return compare(
        a,
        b,
        a_version="1.0.0",
        b_version="2.0.0",
        metrics=metrics,
        limits=limits or Thresholds(),
        min_difference=min_difference,
        now=NOW,
    )


def arm(requests: int, errors: int = 0, slow: int = 0) -> ArmCounts:
    return ArmCounts(requests=requests, errors=errors, timed=requests, slow=slow)


@pytest.mark.parametrize(
    ("a", "b", "winner", "why"),
    [
        pytest.param(arm(5_000, 250), arm(5_000, 50), Winner.B, "so B is better", id="fewer errors on B"),
        pytest.param(arm(5_000, 50), arm(5_000, 250), Winner.A, "so A is better", id="fewer errors on A"),
        pytest.param(arm(5_000, 50), arm(5_000, 55), Winner.NONE, "may as well be none", id="alike"),
        pytest.param(arm(0), arm(0), Winner.NONE, "no requests of B", id="nothing happened"),
        pytest.param(arm(5_000, 250), arm(0), Winner.NONE, "no requests of B", id="B is empty"),
        pytest.param(arm(0), arm(5_000), Winner.NONE, "no requests of A", id="A is empty"),
        pytest.param(arm(49, 49), arm(49, 0), Winner.NONE, "50 of each are needed", id="below the minimum sample"),
        pytest.param(arm(1_000, 0), arm(1_000, 0), Winner.NONE, "may as well be none", id="no errors at all"),
        pytest.param(arm(1_000, 1_000), arm(1_000, 1_000), Winner.NONE, "may as well", id="nothing but errors"),
    ],
)
def test_a_winner_needs_evidence(a: ArmCounts, b: ArmCounts, winner: Winner, why: str) -> None:
    found = verdict(a, b)
    assert found.winner is winner
    assert why in found.reason


def test_success_rate_is_the_error_rate_seen_from_the_other_side() -> None:
    errors = verdict(arm(5_000, 250), arm(5_000, 50)).metrics[0]
    success = verdict(arm(5_000, 250), arm(5_000, 50), (DecisionMetric.SUCCESS_RATE,)).metrics[0]
    assert errors.better is success.better is Winner.B
    assert success.b_estimate == pytest.approx(0.99)
    assert errors.lower is not None
    assert success.upper == pytest.approx(-errors.lower)


def test_slow_requests_decide_too() -> None:
    found = verdict(arm(5_000, slow=400), arm(5_000, slow=40), (DecisionMetric.LATENCY_P99,))
    assert found.winner is Winner.B
    assert "over 500 ms" in found.reason


def test_metrics_that_disagree_make_no_winner() -> None:
    found = verdict(arm(5_000, 250, slow=40), arm(5_000, 50, slow=400), ALL)
    assert found.winner is Winner.NONE
    assert "the metrics disagree: A is better by latencyP99" in found.reason


def test_a_difference_below_the_one_that_counts_is_none() -> None:
    a, b = arm(50_000, 1_500), arm(50_000, 1_000)
    assert verdict(a, b).winner is Winner.B
    assert verdict(a, b, min_difference=0.02).winner is Winner.NONE


COUNTS = st.integers(0, 20_000).flatmap(
    lambda n: st.builds(
        ArmCounts, requests=st.just(n), errors=st.integers(0, n), timed=st.just(n), slow=st.integers(0, n)
    )
)
MIRROR = {Winner.A: Winner.B, Winner.B: Winner.A, Winner.NONE: Winner.NONE}


@given(COUNTS, COUNTS)
def test_exchanging_the_arms_exchanges_the_winner(a: ArmCounts, b: ArmCounts) -> None:
    assert verdict(b, a, ALL).winner is MIRROR[verdict(a, b, ALL).winner]


@given(COUNTS, COUNTS)
def test_a_winner_is_better_by_what_was_seen(a: ArmCounts, b: ArmCounts) -> None:
    found = verdict(a, b)
    if found.winner is not Winner.NONE:
        worse, better = (a, b) if found.winner is Winner.B else (b, a)
        assert worse.errors / worse.requests > better.errors / better.requests


def test_equal_versions_have_a_winner_at_most_as_often_as_alpha_allows() -> None:
    """400 tests of two equal versions, looked at 20 times each. Alpha 0.05 allows 20; the union bound keeps far below."""
    rng = random.Random(7)
    wrong = 0
    for _ in range(400):
        a = b = ArmCounts()
        for _ in range(20):
            a, b = add_counts(a, sample(rng, 0.02)), add_counts(b, sample(rng, 0.02))
            if verdict(a, b, (DecisionMetric.ERROR_RATE, DecisionMetric.LATENCY_P99)).winner is not Winner.NONE:
                wrong += 1
                break
    assert wrong <= 20


def test_a_better_version_is_found_within_a_day_of_ordinary_load() -> None:
    rng = random.Random(11)
    a = b = ArmCounts()
    for _ in range(48):  # half-hours of 1,000 requests each
        a, b = add_counts(a, sample(rng, 0.03)), add_counts(b, sample(rng, 0.015))
    assert verdict(a, b).winner is Winner.B


def sample(rng: random.Random, rate: float, n: int = 1_000) -> ArmCounts:
    errors = sum(rng.random() < rate for _ in range(n))
    return ArmCounts(requests=n, errors=errors, timed=n, slow=errors)


def test_arms_are_counted_over_all_nodes_and_nothing_else() -> None:
    def node(name: str, *versions: VersionFigures) -> NodeFigures:
        return NodeFigures(node_id=name, plugin="phone", since=NOW, taken_at=NOW, versions=versions)

    slow, fast = bucket_of(900), bucket_of(5)
    figures = [
        node("n1", VersionFigures(version="1.0.0", requests=10, errors=1, latency_buckets={fast: 8, slow: 2})),
        node(
            "n2",
            VersionFigures(version="1.0.0", requests=5, latency_buckets={fast: 5}),
            VersionFigures(version="2.0.0", requests=7, errors=3, latency_buckets={slow: 7}),
            VersionFigures(version="0.9.0", requests=99, errors=99),
        ),
    ]
    a, b = count_arms(figures, "1.0.0", "2.0.0", slow_ms=500)
    assert a == ArmCounts(requests=15, errors=1, timed=15, slow=2)
    assert b == ArmCounts(requests=7, errors=3, timed=7, slow=7)


def test_parts_of_alpha_never_add_up_to_more_than_the_whole() -> None:
    limits = Thresholds(alpha=0.05)
    parts = [limits_of_window(limits, number).alpha for number in range(1, 2_000)]
    assert parts == sorted(parts, reverse=True)
    assert 0.049 < sum(parts) <= 0.05
    with pytest.raises(ValueError, match="count from 1"):
        limits_of_window(limits, 0)
