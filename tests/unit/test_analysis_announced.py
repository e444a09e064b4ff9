"""What the plan announces holds: good versions are left alone at every interval, regressions found within the sample.

Neighbour: test_analysis_simulation has the same judge on finer traffic; benchmarks.simulate_analysis has 2,000 a line.
"""

import random
from collections import Counter
from typing import Any

import pytest

from hotswap.analysis import judge
from hotswap.analysis.power import expected_samples
from hotswap.domain.analysis import Outcome, Thresholds
from hotswap.domain.metrics import ExpectedSample, Regression
from hotswap.domain.plan import Observe
from hotswap.strategies.registry import parse_config
from tests.unit.fast_rollouts import FastBehaviour, FastTraffic, rollouts
from tests.unit.simulated_rollouts import NEW, OLD, START, Behaviour, Traffic
from tests.unit.test_strategies import plan

USUAL = FastBehaviour(error_rate=0.01)
AT_LIMITS = FastBehaviour(error_rate=0.05, p99_ms=500)
ALPHA = Thresholds().alpha


def windows(**config: Any) -> list[Observe]:
    """The observations of a planned canary, as POST /deployments/plan shows them."""
    made = plan(parse_config("Canary", config))
    return [step for step in made.steps if isinstance(step, Observe)]


def announced(step: Observe, metric: str) -> ExpectedSample:
    (sample,) = [sample for sample in step.expected_sample if sample.metric == metric]
    return sample


# --- A/A -------------------------------------------------------------------------------------------------------------


def test_two_thousand_rollouts_of_an_equal_version_judged_at_every_interval_are_hardly_ever_taken_back() -> None:
    planned = windows()
    assert [step.period // step.interval for step in planned] == [20, 20, 20, 20]
    endings = [
        ending
        for requests_a_look in (10, 100, 400, 1_000)
        for ending in rollouts("A/A", 500, planned, requests_a_look, USUAL, USUAL)
    ]
    assert len(endings) == 2_000
    assert sum(ending.outcome is Outcome.FAIL for ending in endings) / len(endings) <= ALPHA
    assert sum(ending.looks for ending in endings) > 2_000 * 60, "nobody peeked"


@pytest.mark.parametrize("requests_a_look", [10, 100, 400, 1_000])
def test_rollouts_exactly_at_every_limit_are_hardly_ever_taken_back(requests_a_look: int) -> None:
    endings = Counter(
        ending.outcome for ending in rollouts("limits", 80, windows(), requests_a_look, AT_LIMITS, AT_LIMITS)
    )
    assert endings[Outcome.FAIL] / 80 <= ALPHA


def test_a_good_version_with_little_traffic_seldom_waits_for_a_person() -> None:
    """Why a canary extends before it pauses (ADR 18): 2,000 requests a window."""
    extending, pausing = windows(), windows(onInconclusive="pause")

    def waits(planned: list[Observe]) -> float:
        endings = list(rollouts("little", 200, planned, 100, USUAL, USUAL))
        return sum(ending.outcome is Outcome.INCONCLUSIVE for ending in endings) / len(endings)

    assert waits(pausing) > 0.08
    assert waits(extending) < 0.02


@pytest.mark.parametrize("version", [USUAL, AT_LIMITS, FastBehaviour(0.03, 150)])
def test_the_short_cut_never_hides_a_fail(version: FastBehaviour) -> None:
    (limits, *_) = [step.thresholds for step in windows()]
    skipped = 0
    for index in range(150):
        traffic = FastTraffic(random.Random(f"short cut {index}"))
        traffic.more(NEW, version, 40 + 20 * index)
        traffic.more(OLD, USUAL, 360 + 50 * index)
        if not traffic.may_fail(limits, 10):
            skipped += 1
            assert traffic.verdict(limits, 10).outcome is not Outcome.FAIL
    assert skipped or version is not USUAL


def test_fast_traffic_is_distributed_as_the_exact_one_where_limits_lie() -> None:
    exact, fast = Traffic(random.Random("exact")), FastTraffic(random.Random("fast"))
    exact.more(NEW, Behaviour(0.02, 60), 60_000)
    fast.more(NEW, FastBehaviour(0.02, 60), 60_000)
    verdicts = [traffic.verdict(Thresholds(max_latency_p99_ms=55), 100) for traffic in (exact, fast)]
    for metric in ("error-rate", "latency-p99"):
        one, other = (next(m for m in verdict.metrics if m.metric == metric) for verdict in verdicts)
        assert one.estimate == pytest.approx(other.estimate, rel=0.12)


# --- planted regressions ---------------------------------------------------------------------------------------------

ONE_TO_THREE = (FastBehaviour(0.03), FastBehaviour(0.01))
TWICE_AS_SLOW = (FastBehaviour(0.01, 120), FastBehaviour(0.01, 60))


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize(
    ("config", "metric", "said", "planted"),
    [
        pytest.param({}, "error-rate-vs-baseline", "errors 1 % -> 3 %", ONE_TO_THREE, id="errors-1-to-3-percent"),
        pytest.param(
            {"thresholds": {"maxLatencyRatio": 1.5}},
            "latency-vs-baseline",
            "p99 x 2",
            TWICE_AS_SLOW,
            id="p99-times-2",
        ),
        pytest.param(
            {},
            "latency-vs-baseline",
            "p99 x 2.67",
            (FastBehaviour(0.01, 160), FastBehaviour(0.01, 60)),
            id="p99-a-third-above-the-default",
        ),
        pytest.param(
            {}, "error-rate", "errors 10 %", (FastBehaviour(0.10), FastBehaviour(0.10)), id="errors-10-percent"
        ),
        pytest.param(
            {}, "latency-p99", "p99 667 ms", (FastBehaviour(0, 667), FastBehaviour(0, 667)), id="p99-beyond-the-limit"
        ),
    ],
)
def test_a_planted_regression_is_found_within_the_sample_the_plan_announced(
    config: dict[str, Any], metric: str, said: str, planted: tuple[FastBehaviour, FastBehaviour], step: int
) -> None:
    """Looked at ten times on the way, and by the announced sample at the latest, in every seeded run."""
    window = windows(**config)[step]
    sample = announced(window, metric)
    assert sample.regression == said
    assert sample.requests is not None
    new, old = planted
    others = round(sample.requests * (100 - window.weight_percent) / window.weight_percent)
    runs, missed = 12, 0
    for index in range(runs):
        traffic = FastTraffic(random.Random(f"announced {metric} {said} {step} {index}"))
        found: set[str] = set()
        for look in range(1, 11):
            traffic.more(NEW, new, sample.requests * look // 10 - traffic.requests[NEW])
            traffic.more(OLD, old, others * look // 10 - traffic.requests[OLD])
            verdict = traffic.verdict(window.thresholds, window.weight_percent)
            found = {item.metric for item in verdict.metrics if item.outcome is Outcome.FAIL}
            if metric in found:
                break
        missed += metric not in found
    assert missed == 0


def test_the_announcement_is_no_exaggeration() -> None:
    """A tenth of the announced sample is not enough, so the figure is about right, not merely safe."""
    window = windows()[0]
    requests = announced(window, "error-rate-vs-baseline").requests
    assert requests is not None
    new, old = ONE_TO_THREE
    found = 0
    for index in range(12):
        traffic = FastTraffic(random.Random(f"too few {index}"))
        traffic.more(NEW, new, requests // 10)
        traffic.more(OLD, old, requests // 10 * 9)
        found += traffic.verdict(window.thresholds, 10).outcome is Outcome.FAIL
    assert found < 6


def test_what_the_limits_allow_is_announced_as_never_found() -> None:
    allowed = Regression(error_rate_increase=0.01, latency_ratio=2.0)
    samples = {sample.metric: sample.requests for sample in expected_samples(Thresholds(), 10, allowed, True)}
    assert samples["error-rate-vs-baseline"] is None
    assert samples["latency-vs-baseline"] is None


def test_smaller_regressions_stricter_alpha_and_smaller_first_weights_of_baseline_need_more() -> None:
    def errors(alpha: float = 0.05, increase: float = 0.02, weight: int = 10) -> int:
        limits, regression = Thresholds(alpha=alpha), Regression(error_rate_increase=increase)
        found = expected_samples(limits, weight, regression, True)[0].requests
        assert found is not None
        return found

    assert errors(increase=0.015) > errors() > errors(increase=0.05)
    assert errors(alpha=0.01) > errors()
    assert errors(weight=50) > errors(weight=10), "fewer requests are left for the version in place"


def test_without_a_version_in_place_only_the_absolute_limits_are_announced() -> None:
    for samples in (
        expected_samples(Thresholds(), 100, Regression(), True),
        expected_samples(Thresholds(), 10, Regression(), False),
    ):
        assert [sample.metric for sample in samples] == ["error-rate", "latency-p99"]


@pytest.mark.parametrize(
    "limits", [Thresholds(max_error_rate=0), Thresholds(min_success_rate=1), Thresholds(max_error_rate=0.99)]
)
@pytest.mark.parametrize("weight", [1, 50, 99, 100])
def test_extreme_limits_are_announced_without_a_crash(limits: Thresholds, weight: int) -> None:
    for sample in expected_samples(limits, weight, Regression(error_rate=0), True):
        assert sample.requests is None or sample.requests >= 1


# --- when there is nothing to say ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "old"),
    [
        pytest.param((60, 2), (60, 0), id="sparse-errors-against-zero"),
        pytest.param((200, 4), (1_800, 0), id="sparse-errors-against-zero-of-many"),
        pytest.param((5_000, 0), (0, 0), id="old-arm-empty"),
        pytest.param((0, 0), (5_000, 0), id="new-arm-empty"),
        pytest.param((0, 0), (0, 0), id="no-traffic"),
        pytest.param((30, 0), (5_000, 0), id="zero-errors-in-few-requests"),
    ],
)
def test_sparse_or_missing_data_is_inconclusive(new: tuple[int, int], old: tuple[int, int]) -> None:
    traffic = FastTraffic(random.Random("sparse"))
    for version, (requests, errors) in ((NEW, new), (OLD, old)):
        traffic.more(version, FastBehaviour(0), requests)
        traffic.errors[version] = errors
    assert traffic.verdict(Thresholds(), 10).outcome is Outcome.INCONCLUSIVE


def test_total_loss_of_metrics_is_inconclusive() -> None:
    verdict = judge([], ["node-1", "node-2"], NEW, OLD, Thresholds(), START, START, 10)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no node answered" in verdict.reason
