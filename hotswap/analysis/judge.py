"""Weighs every metric of one window into a Verdict: the worst wins. Pure: no clock, no network.

Neighbours: activities.analysis reads the figures and records the verdict, workflows.gates acts on it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from hotswap.analysis import metrics
from hotswap.analysis.sample import Sample, collect
from hotswap.domain.analysis import MetricVerdict, NodeFigures, Outcome, Thresholds, Verdict

_WORST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


def judge(
    figures: Sequence[NodeFigures],
    silent: Sequence[str],
    candidate: str,
    baseline: str | None,
    thresholds: Thresholds,
    since: datetime,
    now: datetime,
    weight_percent: int,
    own_sequences: int = 0,
) -> Verdict:
    """Is `candidate` good enough, by what the nodes counted since `since`?

    May be asked as often as one likes over one growing window: a version within its limits fails ever with probability at
    most `thresholds.alpha`. That holds for each window, so `since` must stay where it is while a step is extended, and a
    window must not span a change of weight. `baseline` is the version in place (None on a first deployment); at
    `weight_percent` 100 nothing is left to compare with. `silent` names the nodes that did not answer. `own_sequences` of
    the rollout's own metrics take their parts of alpha too (hotswap.analysis.own_metrics).
    """
    sample = collect(figures, candidate, baseline)
    judged = _judge_metrics(sample, thresholds, own_sequences, compared=baseline is not None and weight_percent < 100)
    heard = tuple(node.node_id for node in figures)
    outcome = next(rank for rank in _WORST_FIRST if any(item.outcome is rank for item in judged))
    deaf = len(heard) <= len(silent)  # as many silent as heard, or no node at all: no data is not success
    if deaf and outcome is Outcome.PASS:
        outcome = Outcome.INCONCLUSIVE
    return Verdict(
        outcome=outcome,
        reason=_reason(outcome, judged, sample, heard, tuple(silent), deaf=deaf),
        metrics=judged,
        candidate_requests=sample.candidate.requests,
        baseline_requests=sample.baseline.requests if sample.baseline else 0,
        actual_weight_percent=(
            100 * sample.candidate.requests / sample.total_requests if sample.total_requests else None
        ),
        nodes_heard=heard,
        nodes_silent=tuple(silent),
        taken_at=now,
        window=max(now - since, timedelta(0)),
    )


def _judge_metrics(
    sample: Sample, limits: Thresholds, own_sequences: int, *, compared: bool
) -> tuple[MetricVerdict, ...]:
    alpha = limits.alpha / (metrics.shares_of_alpha(compared) + own_sequences)
    return (
        metrics.crashes(sample, limits),
        metrics.probes(sample, limits),
        metrics.error_rate(sample, limits, alpha),
        metrics.success_rate(sample, limits, alpha),
        metrics.error_rate_against_baseline(sample, limits, alpha)
        if compared
        else metrics.not_compared("error-rate-vs-baseline", sample),
        metrics.latency_p99(sample, limits, alpha),
        metrics.latency_against_baseline(sample, limits, alpha)
        if compared
        else metrics.not_compared("latency-vs-baseline", sample),
        *((metrics.flooded(sample, limits),) if sample.candidate.flooded else ()),
    )


def _reason(
    outcome: Outcome,
    judged: Sequence[MetricVerdict],
    sample: Sample,
    heard: tuple[str, ...],
    silent: tuple[str, ...],
    *,
    deaf: bool,
) -> str:
    if not heard:
        return f"no node answered ({', '.join(silent)}), so nothing is known" if silent else "there is no node to ask"
    missing = f"; {', '.join(silent)} did not answer" if silent else ""
    decisive = [item for item in judged if item.outcome is outcome]
    if outcome is Outcome.FAIL:
        return "; ".join(f"{item.metric}: {item.explanation}" for item in decisive) + missing
    if deaf:
        return f"only {len(heard)} of {len(heard) + len(silent)} nodes answered, too few to pass{missing}"
    if outcome is Outcome.INCONCLUSIVE:
        also = f"; also inconclusive: {', '.join(item.metric for item in decisive[1:])}" if decisive[1:] else ""
        return f"{decisive[0].metric}: {decisive[0].explanation}{also}{missing}"
    compared = "" if sample.baseline is None else f" (beside {sample.baseline.requests:,} of {sample.baseline.version})"
    return (
        f"{sample.candidate.requests:,} requests of {sample.candidate.version}{compared} "
        f"are within every limit{missing}"
    )
