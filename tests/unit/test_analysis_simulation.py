"""Whole rollouts, simulated and judged at every look: good versions are left alone, bad ones caught within a stated sample.

The counts are for these seeds; three standard deviations of slack are allowed on top of alpha, and none is needed.
"""

import math
import random
from datetime import timedelta

import pytest

from hotswap.analysis.sequential import rate_bounds
from hotswap.domain.analysis import Outcome, Thresholds
from hotswap.domain.deployment import CanaryConfig
from hotswap.domain.plan import Observe
from hotswap.strategies.common import shift_and_watch
from tests.unit.simulated_rollouts import NEW, OLD, Behaviour, Traffic, event_positions

LOOKS = 5
"""Looks for each weight. More looks cannot make a difference to what is proven; fewer would not be peeking."""

WINDOWS = [
    step
    for step in shift_and_watch((10, 30, 50, 100), CanaryConfig(), timedelta(minutes=10))
    if isinstance(step, Observe)
]


def slack(alpha: float, n: int) -> float:
    return 3 * math.sqrt(alpha * (1 - alpha) / n)


def rolls_back(rng: random.Random, requests_a_look: int, new: Behaviour, old: Behaviour) -> bool:
    """One canary of four weights, a window of figures for each, judged `LOOKS` times as the window grows."""
    for window in WINDOWS:
        traffic = Traffic(rng)
        share = window.weight_percent / 100
        for _ in range(LOOKS):
            traffic.more(NEW, new, round(requests_a_look * share))
            traffic.more(OLD, old, round(requests_a_look * (1 - share)))
            if traffic.verdict(window.thresholds, window.weight_percent).outcome is Outcome.FAIL:
                return True
    return False


@pytest.mark.parametrize(
    ("requests_a_look", "rollouts"), [(40, 150), (400, 100), (4_000, 50)], ids=["slow", "middling", "busy"]
)
@pytest.mark.parametrize(
    "version",
    [
        pytest.param(Behaviour(error_rate=0.01), id="usual"),
        # The worst that is still allowed: 5 % errors and 1 % slower than 500 ms exactly.
        pytest.param(Behaviour(error_rate=0.05, p99_ms=500), id="at-its-limits"),
    ],
)
def test_rollouts_of_an_equal_version_are_hardly_ever_taken_back(
    requests_a_look: int, rollouts: int, version: Behaviour
) -> None:
    alpha = Thresholds().alpha
    false_rollbacks = sum(
        rolls_back(random.Random(f"A/A {requests_a_look} {index}"), requests_a_look, version, version)
        for index in range(rollouts)
    )
    assert false_rollbacks / rollouts <= alpha + slack(alpha, rollouts)


def test_a_version_worse_by_just_the_margin_is_hardly_ever_taken_back_however_often_one_looks() -> None:
    """The exact edge of the null: 2 % against 1 % errors, looked at after every single failed request."""
    alpha, rollouts, trials, false_rollbacks = 0.05, 400, 2_500, 0
    for index in range(rollouts):
        rng = random.Random(f"margin {index}")
        old = list(event_positions(rng, 0.01, trials))
        for errors, n in enumerate(event_positions(rng, 0.02, trials), start=1):
            new = rate_bounds(errors, n, alpha / 5)
            # The baseline's bound is only looked at where it can matter.
            if new.lower > 0.01 and n >= 50:
                before = rate_bounds(sum(1 for position in old if position <= n), n, alpha / 5)
                if new.lower - before.upper > 0.01:
                    false_rollbacks += 1
                    break
    assert false_rollbacks / rollouts <= alpha


@pytest.mark.parametrize(
    ("new", "old", "weight", "within", "metric"),
    [
        pytest.param(Behaviour(0.30), Behaviour(0.0), 10, 60, "error-rate-vs-baseline", id="0-to-30-percent-errors"),
        pytest.param(Behaviour(1.0), Behaviour(0.0), 10, 50, "error-rate", id="all-requests-fail"),
        pytest.param(Behaviour(0.10), Behaviour(0.01), 10, 500, "error-rate-vs-baseline", id="1-to-10-percent-errors"),
        pytest.param(Behaviour(0.05), Behaviour(0.01), 30, 3_000, "error-rate-vs-baseline", id="1-to-5-percent-errors"),
        pytest.param(
            Behaviour(0.03), Behaviour(0.01), 50, 20_000, "error-rate-vs-baseline", id="1-to-3-percent-errors"
        ),
        pytest.param(Behaviour(0.01, 180), Behaviour(0.01, 60), 10, 1_500, "latency-vs-baseline", id="p99-times-3"),
        pytest.param(
            Behaviour(0.01, 180), Behaviour(0.01, 60), 50, 4_000, "latency-vs-baseline", id="p99-times-3-at-half"
        ),
        pytest.param(Behaviour(0.01, 150), Behaviour(0.01, 60), 30, 15_000, "latency-vs-baseline", id="p99-times-2.5"),
        pytest.param(
            Behaviour(0.01, 1_000), Behaviour(0.01, 450), 10, 600, "latency-p99", id="p99-over-the-absolute-limit"
        ),
    ],
)
def test_a_planted_regression_is_caught_within_its_stated_sample(
    new: Behaviour, old: Behaviour, weight: int, within: int, metric: str
) -> None:
    """`within` counts the candidate's requests, judged ten times on the way: docs/statistics.md repeats these figures."""
    limits = WINDOWS[0].thresholds
    missed = 0
    for index in range(8):
        traffic = Traffic(random.Random(f"planted {metric} {within} {index}"))
        step = within // 10
        for _ in range(10):
            traffic.more(NEW, new, step)
            traffic.more(OLD, old, step * (100 - weight) // weight)
            verdict = traffic.verdict(limits, weight)
            if verdict.outcome is Outcome.FAIL:
                break
        failed = {item.metric for item in verdict.metrics if item.outcome is Outcome.FAIL}
        missed += metric not in failed
    assert missed == 0


def test_p99_twice_as_long_is_caught_when_less_is_allowed() -> None:
    limits = Thresholds(max_latency_ratio=1.5)
    traffic = Traffic(random.Random("ratio"))
    traffic.more(NEW, Behaviour(p99_ms=120), 2_000)
    traffic.more(OLD, Behaviour(p99_ms=60), 18_000)
    assert traffic.verdict(limits, 10).outcome is Outcome.FAIL
    # Exactly twice is what the default of 2.0 allows.
    assert traffic.verdict(Thresholds(), 10).outcome is not Outcome.FAIL
