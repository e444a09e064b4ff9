"""One function a metric: a Sample and the limits in, a MetricVerdict with its evidence out. Pure.

All shares are 0 to 1, differences -1 to 1. Fail needs a bound beyond the limit and a minimum sample; Pass needs the
sample and an estimate within the limit; anything else is Inconclusive. Neighbours: hotswap.analysis.sequential gives the
bounds, hotswap.analysis.judge weighs the verdicts. Reasons and limits of the method: docs/statistics.md.
"""

from math import isinf
from typing import Literal

from hotswap.analysis.histogram import count_above, quantile
from hotswap.analysis.sample import Arm, Sample
from hotswap.analysis.sequential import RateBounds, rate_bounds, tail_bounds
from hotswap.domain.analysis import MetricVerdict, Outcome, Thresholds

TAIL = 0.01
"""A p99 within its limit means: at most 1 % of requests are slower than the limit."""

TAIL_MARGIN = 0.005
"""Against the version in place, 1.5 % may be slower than the limit: what half a per cent does nobody notices."""

LEAST_SLOWDOWN_MS = 5.0
"""A p99 that grew by less than this is never a regression: 0.4 ms against 0.2 ms is noise of the scheduler."""

_TIE = 1e-12
"""0.04 - 0.03 is 0.010000000000000002 in floating point and still exactly the 0.01 allowed."""


def shares_of_alpha(compared: bool) -> int:
    """Into how many equal parts alpha is divided: one for each confidence sequence that any verdict leans on.

    Two for the candidate alone (errors, slow requests); against a baseline three more (its errors, its p99, and the
    candidate's requests slower than that). success-rate leans on the sequence of error-rate and needs no part.
    """
    return 5 if compared else 2


def probes(sample: Sample, limits: Thresholds) -> MetricVerdict:
    """Consecutive probe failures of the candidate's worst host. `n` counts hosts. No sample is needed to fail."""
    version = sample.candidate.version
    if not sample.hosts:
        return MetricVerdict(
            metric="probes", outcome=Outcome.INCONCLUSIVE, explanation=f"no node reported a host of {version}"
        )
    worst = max(sample.hosts, key=lambda host: host.report.probe_failures)
    failures = worst.report.probe_failures
    failed = failures >= limits.max_probe_failures
    text = f"the host on {worst.node_id} failed {failures} probes in a row" if failures else "no probe is failing"
    because = f" ({worst.report.last_error})" if failed and worst.report.last_error else ""
    return MetricVerdict(
        metric="probes",
        outcome=Outcome.FAIL if failed else Outcome.PASS,
        n=len(sample.hosts),
        estimate=failures,
        threshold=limits.max_probe_failures,
        explanation=f"{text}; {limits.max_probe_failures} are too many{because}",
    )


def crashes(sample: Sample, limits: Thresholds) -> MetricVerdict:
    """Share of the candidate's hosts that died unasked. `n` counts hosts. No sample is needed to fail."""
    version = sample.candidate.version
    if not sample.hosts:
        return MetricVerdict(
            metric="crashes", outcome=Outcome.INCONCLUSIVE, explanation=f"no node reported a host of {version}"
        )
    crashed = [host for host in sample.hosts if host.report.state == "Crashed" or host.report.crashes > 0]
    share = len(crashed) / len(sample.hosts)
    failed = share > limits.max_crashed_hosts
    where = f" (on {', '.join(host.node_id for host in crashed[:5])})" if crashed else ""
    return MetricVerdict(
        metric="crashes",
        outcome=Outcome.FAIL if failed else Outcome.PASS,
        n=len(sample.hosts),
        estimate=share,
        threshold=limits.max_crashed_hosts,
        explanation=f"{len(crashed)} of {len(sample.hosts)} hosts crashed{where}; allowed {percent(limits.max_crashed_hosts)}",
    )


def error_rate(sample: Sample, limits: Thresholds, alpha: float) -> MetricVerdict:
    """Share of the candidate's requests that failed, against `max_error_rate`."""
    arm = sample.candidate
    seen = rate_bounds(arm.errors, arm.requests, alpha)
    return _share_verdict("error-rate", seen, limits.max_error_rate, limits, f"requests of {arm.version} failed")


def success_rate(sample: Sample, limits: Thresholds, alpha: float) -> MetricVerdict:
    """Share of the candidate's requests that succeeded, against `min_success_rate`: error-rate's data and bound, mirrored."""
    arm = sample.candidate
    seen = rate_bounds(arm.errors, arm.requests, alpha)
    allowed = 1 - limits.min_success_rate
    outcome = _outcome(seen, allowed, limits.min_sample)
    return MetricVerdict(
        metric="success-rate",
        outcome=outcome,
        n=seen.n,
        estimate=None if seen.n == 0 else (seen.n - seen.events) / seen.n,
        lower=None if seen.n == 0 else 1 - seen.upper,
        upper=None if seen.n == 0 else 1 - seen.lower,
        threshold=limits.min_success_rate,
        explanation=_tell(
            outcome,
            seen.n,
            limits,
            f"{seen.n - seen.events:,} of {seen.n:,} requests of {arm.version} succeeded",
            _interval(outcome, 1 - seen.events / max(seen.n, 1), 1 - seen.upper, 1 - seen.lower, limits, good="up"),
            f"required {percent(limits.min_success_rate)}",
        ),
    )


def error_rate_against_baseline(sample: Sample, limits: Thresholds, alpha: float) -> MetricVerdict:
    """How much larger a share of requests fails than on the version in place, against `max_error_rate_increase`.

    The difference's bounds are those of the two rates, each a sequence of its own: valid whatever the sizes of the arms.
    """
    metric, arm, baseline = "error-rate-vs-baseline", sample.candidate, sample.baseline
    assert baseline is not None
    new = rate_bounds(arm.errors, arm.requests, alpha)
    old = rate_bounds(baseline.errors, baseline.requests, alpha)
    if new.estimate is None or old.estimate is None:
        return _one_arm_empty(metric, arm.requests, baseline.requests, sample, limits.max_error_rate_increase)
    difference = RateBounds(
        min(new.n, old.n), 0, new.estimate - old.estimate, new.lower - old.upper, new.upper - old.lower
    )
    outcome = _outcome(difference, limits.max_error_rate_increase, limits.min_sample)
    return MetricVerdict(
        metric=metric,
        outcome=outcome,
        n=new.n,
        estimate=difference.estimate,
        lower=difference.lower,
        upper=difference.upper,
        threshold=limits.max_error_rate_increase,
        baseline_n=old.n,
        baseline_estimate=old.estimate,
        explanation=_tell(
            outcome,
            difference.n,
            limits,
            f"{percent(new.estimate)} of {new.n:,} requests of {arm.version} failed, "
            f"{percent(old.estimate)} of {old.n:,} of {baseline.version}",
            "increase "
            + _interval(outcome, new.estimate - old.estimate, difference.lower, difference.upper, limits, good="down"),
            f"allowed increase {percent(limits.max_error_rate_increase)}",
        ),
    )


def latency_p99(sample: Sample, limits: Thresholds, alpha: float) -> MetricVerdict:
    """Share of the candidate's requests slower than `max_latency_p99_ms`, against 1 %: the same question as p99 > limit."""
    arm = sample.candidate
    slow = count_above(arm.latencies, limits.max_latency_p99_ms)
    seen = rate_bounds(slow, arm.timed, alpha)
    what = f"requests of {arm.version}{_p99(arm)} took longer than {_ms(limits.max_latency_p99_ms)}"
    return _share_verdict("latency-p99", seen, TAIL, limits, what)


def latency_against_baseline(sample: Sample, limits: Thresholds, alpha: float) -> MetricVerdict:
    """Share of the candidate's requests slower than `max_latency_ratio` times the baseline's p99, against 1.5 %.

    The baseline's p99 is itself uncertain. The estimate uses its estimate; the lower bound, which alone can fail a version,
    uses the largest p99 the baseline may have, the upper bound the smallest. `baseline_estimate` is the baseline's own share.
    """
    metric, arm, baseline = "latency-vs-baseline", sample.candidate, sample.baseline
    assert baseline is not None
    allowed = TAIL + TAIL_MARGIN
    if not arm.timed or not baseline.timed:
        return _one_arm_empty(metric, arm.timed, baseline.timed, sample, allowed)
    least, most = tail_bounds(baseline.latencies, TAIL, alpha)
    limit = _slow_limit(quantile(baseline.latencies, 1 - TAIL), limits)
    slow = count_above(arm.latencies, limit)
    surely_slow = 0 if isinf(most) else count_above(arm.latencies, _slow_limit(most, limits))
    maybe_slow = count_above(arm.latencies, _slow_limit(least, limits))
    seen = RateBounds(
        min(arm.timed, baseline.timed),
        slow,
        slow / arm.timed,
        rate_bounds(surely_slow, arm.timed, alpha).lower,
        rate_bounds(maybe_slow, arm.timed, alpha).upper,
    )
    outcome = _outcome(seen, allowed, limits.min_sample)
    return MetricVerdict(
        metric=metric,
        outcome=outcome,
        n=arm.timed,
        estimate=seen.estimate,
        lower=seen.lower,
        upper=seen.upper,
        threshold=allowed,
        baseline_n=baseline.timed,
        baseline_estimate=count_above(baseline.latencies, limit) / baseline.timed,
        explanation=_tell(
            outcome,
            seen.n,
            limits,
            f"{slow:,} of {arm.timed:,} requests of {arm.version}{_p99(arm)} took longer than {_ms(limit)}, the most beside "
            f"{baseline.timed:,} of {baseline.version}{_p99(baseline)}",
            _interval(outcome, slow / arm.timed, seen.lower, seen.upper, limits, good="down"),
            f"allowed {percent(allowed)}",
        ),
    )


def flooded(sample: Sample, limits: Thresholds) -> MetricVerdict:
    """Share of the candidate's requests turned away for one tenant's flood. Never a fail: the version serves all others.

    Past `max_error_rate` no pass either: a version that became too slow for its one large tenant looks the same.
    """
    arm = sample.candidate
    share = arm.flooded / (arm.requests + arm.flooded)
    within = share <= limits.max_error_rate
    return MetricVerdict(
        metric="flooded",
        outcome=Outcome.PASS if within else Outcome.INCONCLUSIVE,
        n=arm.requests + arm.flooded,
        estimate=share,
        threshold=limits.max_error_rate,
        explanation=f"{percent(share)} of {arm.requests + arm.flooded:,} requests of {arm.version} were turned away because "
        "one tenant asked for more than it serves while it could serve all others (the nodes' logs name it); allowed "
        f"{percent(limits.max_error_rate)}"
        + ("" if within else ". It fails no version: give that tenant a quota, or promote by hand if it floods"),
    )


def not_compared(metric: str, sample: Sample) -> MetricVerdict:
    """A comparison that the plan rules out: no earlier version, or no tenant left on it. It neither passes nor blocks."""
    if sample.baseline is None:
        why = "there is no earlier version to compare with"
    else:
        why = f"at 100 % no tenant is left on {sample.baseline.version} to compare with"
    return MetricVerdict(
        metric=metric,
        outcome=Outcome.PASS,
        n=sample.candidate.requests,
        baseline_n=None if sample.baseline is None else sample.baseline.requests,
        explanation=f"not applicable: {why}",
    )


def percent(share: float) -> str:
    """0.298 as '29.8 %', 0.0025 as '0.25 %', 1 as '100 %'."""
    value = 100 * share
    digits = f"{value:.1f}" if 10 <= abs(value) <= 90 else f"{value:.2f}"
    return f"{digits.rstrip('0').rstrip('.')} %"


def _slow_limit(p99_ms: float, limits: Thresholds) -> float:
    return max(p99_ms * limits.max_latency_ratio, p99_ms + LEAST_SLOWDOWN_MS)


def _outcome(seen: RateBounds, limit: float, min_sample: int) -> Outcome:
    if seen.estimate is None or seen.n < min_sample:
        return Outcome.INCONCLUSIVE
    if seen.lower > limit + _TIE:
        return Outcome.FAIL
    return Outcome.PASS if seen.estimate <= limit + _TIE else Outcome.INCONCLUSIVE


def _share_verdict(metric: str, seen: RateBounds, limit: float, limits: Thresholds, what: str) -> MetricVerdict:
    outcome = _outcome(seen, limit, limits.min_sample)
    return MetricVerdict(
        metric=metric,
        outcome=outcome,
        n=seen.n,
        estimate=seen.estimate,
        lower=None if seen.n == 0 else seen.lower,
        upper=None if seen.n == 0 else seen.upper,
        threshold=limit,
        explanation=_tell(
            outcome,
            seen.n,
            limits,
            f"{seen.events:,} of {seen.n:,} {what}",
            _interval(outcome, seen.estimate or 0.0, seen.lower, seen.upper, limits, good="down"),
            f"allowed {percent(limit)}",
        ),
    )


def _one_arm_empty(metric: str, new: int, old: int, sample: Sample, limit: float) -> MetricVerdict:
    assert sample.baseline is not None
    empty = [arm.version for arm, count in ((sample.candidate, new), (sample.baseline, old)) if count == 0]
    return MetricVerdict(
        metric=metric,
        outcome=Outcome.INCONCLUSIVE,
        n=new,
        threshold=limit,
        baseline_n=old,
        explanation=f"{' and '.join(empty)} had no requests, so there is nothing to compare",
    )


def _tell(outcome: Outcome, n: int, limits: Thresholds, counted: str, interval: str, allowed: str) -> str:
    if n == 0:
        return f"no requests yet; {allowed}"
    if n < limits.min_sample:
        return f"{counted}: too few to tell, {limits.min_sample:,} are needed; {allowed}"
    if outcome is Outcome.INCONCLUSIVE:
        return f"{counted} ({interval}): beyond the limit, but not beyond doubt; {allowed}"
    return f"{counted} ({interval}); {allowed}"


def _interval(
    outcome: Outcome, estimate: float, lower: float, upper: float, limits: Thresholds, *, good: Literal["up", "down"]
) -> str:
    """'29.8 %, at least 18.2 % with 95 % confidence at any time': the best it may be for a fail, the worst for a pass."""
    at_least = (outcome is Outcome.PASS) == (good == "up")
    side = f"at least {percent(lower)}" if at_least else f"at most {percent(upper)}"
    return f"{percent(estimate)}, {side} with {percent(1 - limits.alpha)} confidence at any time"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _p99(arm: Arm) -> str:
    return f" (p99 {_ms(quantile(arm.latencies, 1 - TAIL))})" if arm.timed else ""
