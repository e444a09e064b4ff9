"""Judges a rollout's own metrics: a provider's answer, or a figure the nodes count, in; a MetricVerdict with evidence out.

Pure. A nodes figure has an interval that holds at every look, like the built-in metrics (docs/statistics.md). A provider's
answer is one number without its uncertainty: alpha does not cover it, `consecutiveFailureLimit` is the guard there.
Neighbours: activities.own_metrics asks the providers, hotswap.analysis.policies draws the consequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from hotswap.analysis.histogram import quantile
from hotswap.analysis.metrics import percent
from hotswap.analysis.sample import Arm, Sample
from hotswap.analysis.sequential import rate_bounds, tail_bounds
from hotswap.domain.analysis import MetricVerdict, Outcome, Thresholds
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.metrics import Compare, Measurement, MetricProviderKind, MetricSpec, figure_of

Answer = Measurement | MetricProviderFault
"""What asking a provider came to."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure of one version with the bounds that hold at every look. `estimate` is None without observations."""

    n: int
    estimate: float | None
    lower: float
    upper: float


def sequences(specs: Sequence[MetricSpec], *, compared: bool) -> int:
    """How many confidence sequences the own metrics lean on: each takes an equal part of alpha (hotswap.analysis.judge)."""
    counted = [spec for spec in specs if spec.provider is MetricProviderKind.NODES]
    return sum((2 if compared else 0) if spec.needs_baseline else 1 for spec in counted)


def not_applicable(spec: MetricSpec, baseline: str | None) -> MetricVerdict:
    """A comparison without anybody on the version in place: it neither passes a version nor blocks it."""
    why = (
        "there is no earlier version to compare with"
        if baseline is None
        else f"at 100 % no tenant is left on {baseline} to compare with"
    )
    return MetricVerdict(
        metric=spec.name, outcome=Outcome.PASS, provider=spec.provider, explanation=f"not applicable: {why}"
    )


def judge_answer(
    spec: MetricSpec, versions: tuple[str, str | None], candidate: Answer, baseline: Answer | None, min_sample: int
) -> MetricVerdict:
    """One look at what a provider says of the candidate, and of the baseline where the metric compares."""
    fault = next((answer for answer in (candidate, baseline) if isinstance(answer, MetricProviderFault)), None)
    if fault is not None:
        return _told(spec, candidate, Outcome.ERROR, fault.message)
    assert isinstance(candidate, Measurement)
    if candidate.outcome is not None and spec.compare is not Compare.ABSOLUTE:
        return _told(
            spec, candidate, Outcome.ERROR, f"gave an outcome where {spec.compare} needs a value; answer with a value"
        )
    if candidate.outcome is not None:
        return _told(
            spec, candidate, candidate.outcome, candidate.reason or f"judged {candidate.outcome} by its provider"
        )
    if candidate.value is None:
        return _told(
            spec, candidate, Outcome.INCONCLUSIVE, candidate.reason or f"no data on {versions[0]}", no_data=True
        )
    if candidate.n is not None and candidate.n < min_sample:
        few = f"{candidate.n:,} observations are too few to tell, {min_sample:,} are needed"
        return _told(spec, candidate, Outcome.INCONCLUSIVE, few, no_data=candidate.n == 0)
    if spec.compare is Compare.ABSOLUTE:
        return _weighed(spec, candidate, candidate.value, None, f"{_short(candidate.value)} on {versions[0]}")
    assert isinstance(baseline, Measurement)
    before = baseline.value
    if before is None:
        why = baseline.reason or "no data"
        return _told(
            spec, candidate, Outcome.INCONCLUSIVE, f"nothing to compare with on {versions[1]}: {why}", no_data=True
        )
    value = _difference(spec.compare, candidate.value, before)
    if value is None:
        why = f"{_short(candidate.value)} beside {_short(before)} has no ratio; compare by baseline-difference instead"
        return _told(spec, candidate, Outcome.INCONCLUSIVE, why)
    what = f"{_short(candidate.value)} on {versions[0]} beside {_short(before)} on {versions[1]}: {_by(spec, value)}"
    return _weighed(spec, candidate, value, baseline, what)


def judge_counted(spec: MetricSpec, sample: Sample, limits: Thresholds, alpha: float) -> MetricVerdict:
    """A figure that the nodes count, by its interval: Fail when even its good end is beyond the threshold."""
    new = read_figure(sample.candidate, spec.query, alpha)
    old = None
    if spec.compare is not Compare.ABSOLUTE:
        assert sample.baseline is not None
        old = read_figure(sample.baseline, spec.query, alpha)
    seen = new if old is None else _compared(spec.compare, new, old)
    good_end = seen.lower if spec.operator.small_is_good else seen.upper
    if seen.n == 0 or seen.n < limits.min_sample:
        outcome = Outcome.INCONCLUSIVE
    elif not isfinite(good_end) or spec.operator.holds(good_end, spec.threshold):
        within = seen.estimate is not None and spec.operator.holds(seen.estimate, spec.threshold)
        outcome = Outcome.PASS if within else Outcome.INCONCLUSIVE
    else:
        outcome = Outcome.FAIL
    return MetricVerdict(
        metric=spec.name,
        outcome=outcome,
        n=new.n,
        estimate=seen.estimate,
        lower=seen.lower if seen.n and isfinite(seen.lower) else None,
        upper=seen.upper if seen.n and isfinite(seen.upper) else None,
        threshold=spec.threshold,
        baseline_n=None if old is None else old.n,
        baseline_estimate=None if old is None else old.estimate,
        explanation=_counted_text(spec, sample, seen, outcome, limits),
        provider=spec.provider,
        query=spec.query,
        no_data=seen.n == 0,
    )


def read_figure(arm: Arm, query: str, alpha: float) -> Reading:
    """One nodes figure of one version. Rates are shares (0 to 1), latencies milliseconds."""
    figure = figure_of(query)
    assert figure is not None, "the configuration was checked"
    kind, q = figure
    if kind == "latency":
        if not arm.timed:
            return Reading(0, None, 0.0, inf)
        lower, upper = tail_bounds(arm.latencies, 1 - q, alpha)
        return Reading(arm.timed, quantile(arm.latencies, q), lower, upper)
    seen = rate_bounds(arm.errors, arm.requests, alpha)
    if kind == "success-rate":
        return Reading(seen.n, None if seen.estimate is None else 1 - seen.estimate, 1 - seen.upper, 1 - seen.lower)
    return Reading(seen.n, seen.estimate, seen.lower, seen.upper)


def _compared(compare: Compare, new: Reading, old: Reading) -> Reading:
    """How the new version stands to the old one: the bounds of the two readings together bound it."""
    if not new.n or not old.n or new.estimate is None or old.estimate is None:
        return Reading(0, None, -inf, inf)
    n, estimate = min(new.n, old.n), _difference(compare, new.estimate, old.estimate)
    if compare is Compare.BASELINE_DIFFERENCE:
        return Reading(n, estimate, new.lower - old.upper, new.upper - old.lower)
    lower = new.lower / old.upper if old.upper > 0 else 0.0
    return Reading(n, estimate, lower, new.upper / old.lower if old.lower > 0 else inf)


def _difference(compare: Compare, new: float, old: float) -> float | None:
    """The difference, or the ratio; None for a ratio to nothing. Nothing beside nothing is as it was: 1."""
    if compare is Compare.BASELINE_DIFFERENCE:
        return new - old
    if old > 0:
        return new / old
    return 1.0 if new == old == 0 else None


def _weighed(
    spec: MetricSpec, candidate: Measurement, value: float, baseline: Measurement | None, what: str
) -> MetricVerdict:
    if not isfinite(value):
        return _told(spec, candidate, Outcome.INCONCLUSIVE, f"{what} is beyond what a number can hold", no_data=True)
    holds = spec.operator.holds(value, spec.threshold)
    return _told(
        spec,
        candidate,
        Outcome.PASS if holds else Outcome.FAIL,
        f"{what}; good is {spec.operator} {_short(spec.threshold)}"
        + (f" ({candidate.reason})" if candidate.reason else ""),
        value=value,
        baseline=baseline,
    )


def _told(
    spec: MetricSpec,
    candidate: Answer,
    outcome: Outcome,
    explanation: str,
    *,
    value: float | None = None,
    baseline: Measurement | None = None,
    no_data: bool = False,
) -> MetricVerdict:
    told = candidate if isinstance(candidate, Measurement) else None
    return MetricVerdict(
        metric=spec.name,
        outcome=outcome,
        n=(told.n or 0) if told else 0,
        estimate=value,
        threshold=spec.threshold,
        baseline_n=baseline.n if baseline else None,
        baseline_estimate=baseline.value if baseline else None,
        explanation=explanation,
        provider=spec.provider,
        query=(told.query if told else "") or spec.query or None,
        raw=(told.raw if told else "") or None,
        no_data=no_data,
    )


def _counted_text(spec: MetricSpec, sample: Sample, seen: Reading, outcome: Outcome, limits: Thresholds) -> str:
    good = f"good is {spec.operator} {_short(spec.threshold)}"
    arms = sample.candidate.version
    if spec.compare is not Compare.ABSOLUTE and sample.baseline is not None:
        arms = f"{arms} beside {sample.baseline.version}"
    if seen.n == 0:
        return f"no requests yet to tell the {spec.query} of {arms}; {good}"
    told = "no ratio" if seen.estimate is None else _by(spec, seen.estimate)
    counted = f"{spec.query} of {arms}: {told} in {seen.n:,} requests"
    if seen.n < limits.min_sample:
        return f"{counted}, too few to tell ({limits.min_sample:,} are needed); {good}"
    upper = _short(seen.upper) if isfinite(seen.upper) else "any"
    bounds = (
        f"between {_short(max(seen.lower, -1e300))} and {upper} with {percent(1 - limits.alpha)} confidence at any time"
    )
    doubt = "; beyond the threshold, but not beyond doubt" if outcome is Outcome.INCONCLUSIVE else ""
    return f"{counted}, {bounds}{doubt}; {good}"


def _by(spec: MetricSpec, value: float) -> str:
    match spec.compare:
        case Compare.BASELINE_RATIO:
            return f"{_short(value)} times as much"
        case Compare.BASELINE_DIFFERENCE:
            return f"{value:+.4g}"
        case Compare.ABSOLUTE:
            return _short(value)


def _short(value: float) -> str:
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
