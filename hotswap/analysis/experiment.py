"""Says which of two versions is better, by evidence that holds however often one looks. Pure: counts in, verdict out.

Neighbours: activities.experiment counts and asks, workflows.experiment acts on the answer, sequential gives the bounds.
Every decision metric is a share of requests. For each of the two versions it has a confidence sequence of its own, and the
difference B - A lies between (lower of B - upper of A) and (upper of B - lower of A). A version is better when the whole
interval is on its side, so a wrong winner has probability at most alpha, whenever the test ends.
"""

from collections.abc import Sequence
from datetime import datetime

from hotswap.analysis.histogram import count_above
from hotswap.analysis.metrics import percent
from hotswap.analysis.sample import Arm, collect
from hotswap.analysis.sequential import RateBounds, rate_bounds
from hotswap.domain.analysis import (
    ArmCounts,
    DecisionMetric,
    ExperimentVerdict,
    MetricEvidence,
    NodeFigures,
    Thresholds,
    Winner,
)

_WORDS = {
    DecisionMetric.ERROR_RATE: "failed",
    DecisionMetric.SUCCESS_RATE: "succeeded",
    DecisionMetric.LATENCY_P99: "were slow",
}


def count_arms(
    figures: Sequence[NodeFigures], a_version: str, b_version: str, slow_ms: float
) -> tuple[ArmCounts, ArmCounts]:
    """What A and B did, all nodes together. `slow_ms` is the test's own limit and must not change while it runs."""
    sample = collect(figures, b_version, a_version)
    assert sample.baseline is not None
    return _counts(sample.baseline, slow_ms), _counts(sample.candidate, slow_ms)


def add_counts(first: ArmCounts, second: ArmCounts) -> ArmCounts:
    """The sum: counts of chapters that do not overlap."""
    return ArmCounts(
        requests=first.requests + second.requests,
        errors=first.errors + second.errors,
        timed=first.timed + second.timed,
        slow=first.slow + second.slow,
    )


def compare(
    a: ArmCounts,
    b: ArmCounts,
    *,
    a_version: str,
    b_version: str,
    metrics: Sequence[DecisionMetric],
    limits: Thresholds,
    min_difference: float,
    now: datetime,
) -> ExperimentVerdict:
    """A winner must be better by at least one metric, beyond doubt, and worse by none. Otherwise there is none."""
    alpha = limits.alpha / (2 * _sequences(metrics))
    evidence = tuple(_weigh(metric, a, b, limits, min_difference, alpha) for metric in metrics)
    winner = _winner(evidence)
    return ExperimentVerdict(
        winner=winner,
        reason=_reason(winner, evidence, a_version, b_version),
        metrics=evidence,
        a_version=a_version,
        b_version=b_version,
        alpha=limits.alpha,
        taken_at=now,
    )


def _counts(arm: Arm, slow_ms: float) -> ArmCounts:
    return ArmCounts(
        requests=arm.requests, errors=arm.errors, timed=arm.timed, slow=count_above(arm.latencies, slow_ms)
    )


def _sequences(metrics: Sequence[DecisionMetric]) -> int:
    """Confidence sequences a version has: errors and successes are one, mirrored."""
    return len({metric is DecisionMetric.LATENCY_P99 for metric in metrics})


def _weigh(
    metric: DecisionMetric, a: ArmCounts, b: ArmCounts, limits: Thresholds, min_difference: float, alpha: float
) -> MetricEvidence:
    bad_a, bad_b = _bad(metric, a, alpha), _bad(metric, b, alpha)
    lower, upper = bad_b.lower - bad_a.upper, bad_b.upper - bad_a.lower
    enough = min(bad_a.n, bad_b.n) >= limits.min_sample
    better = Winner.NONE
    if enough and upper < -min_difference:
        better = Winner.B
    elif enough and lower > min_difference:
        better = Winner.A
    share_a, share_b = bad_a.estimate, bad_b.estimate
    if metric is DecisionMetric.SUCCESS_RATE:
        lower, upper = -upper, -lower
        share_a = None if share_a is None else 1 - share_a
        share_b = None if share_b is None else 1 - share_b
    seen = bad_a.n > 0 and bad_b.n > 0
    return MetricEvidence(
        metric=metric,
        better=better,
        a_n=bad_a.n,
        a_estimate=share_a,
        b_n=bad_b.n,
        b_estimate=share_b,
        lower=lower if seen else None,
        upper=upper if seen else None,
        explanation=_explain(metric, better, (bad_a.n, share_a), (bad_b.n, share_b), (lower, upper), limits),
    )


def _bad(metric: DecisionMetric, arm: ArmCounts, alpha: float) -> RateBounds:
    """The share of requests that speaks against the version."""
    if metric is DecisionMetric.LATENCY_P99:
        return rate_bounds(arm.slow, arm.timed, alpha)
    return rate_bounds(arm.errors, arm.requests, alpha)


def _winner(evidence: Sequence[MetricEvidence]) -> Winner:
    sides = {item.better for item in evidence} - {Winner.NONE}
    return sides.pop() if len(sides) == 1 else Winner.NONE


def _explain(
    metric: DecisionMetric,
    better: Winner,
    a: tuple[int, float | None],
    b: tuple[int, float | None],
    interval: tuple[float, float],
    limits: Thresholds,
) -> str:
    counted = f"{_share(b)} of B {_WORDS[metric]}, {_share(a)} of A"
    if metric is DecisionMetric.LATENCY_P99:
        counted += f" (over {limits.max_latency_p99_ms:g} ms)"
    if min(a[0], b[0]) < limits.min_sample:
        return f"{counted}: too few to tell, {limits.min_sample:,} of each are needed"
    confidence = f"the difference is between {_signed(interval[0])} and {_signed(interval[1])}"
    said = "which may as well be none" if better is Winner.NONE else f"so {better} is better"
    return f"{counted}: {confidence} with {percent(1 - limits.alpha)} confidence at any time, {said}"


def _share(arm: tuple[int, float | None]) -> str:
    n, share = arm
    return "no requests" if share is None else f"{percent(share)} of {n:,} requests"


def _signed(share: float) -> str:
    return f"{'+' if share > 0 else ''}{percent(share)}"


def _reason(winner: Winner, evidence: Sequence[MetricEvidence], a_version: str, b_version: str) -> str:
    if winner is not Winner.NONE:
        version = a_version if winner is Winner.A else b_version
        decisive = [item for item in evidence if item.better is winner]
        return f"{winner} ({version}) is better by {_listed(decisive)}"
    for_a = [item for item in evidence if item.better is Winner.A]
    for_b = [item for item in evidence if item.better is Winner.B]
    if for_a and for_b:
        return f"the metrics disagree: A is better by {_listed(for_a)}; B by {_listed(for_b)}"
    return f"no difference could be shown: {_listed(evidence)}"


def _listed(evidence: Sequence[MetricEvidence]) -> str:
    return "; ".join(f"{item.metric} ({item.explanation})" for item in evidence)
