"""How many requests it takes to find a regression of a declared size: what a plan announces before anything is started.

Pure. By the judge's own bounds, fed with counts as they come out when luck is against us: fewer failures of the new version
and more of the old one than expected, by two standard deviations each. So a regression of that size is found within the
announced sample with 95 % probability or more, looked at once; looking more often only finds it earlier.
Neighbours: hotswap.strategies.announce puts the answer into the plan; tests/unit/test_analysis_announced.py holds it to it.
"""

from collections.abc import Callable
from functools import lru_cache
from math import ceil, exp, floor, log, sqrt
from statistics import NormalDist

from hotswap.analysis.metrics import TAIL, TAIL_MARGIN, percent, shares_of_alpha
from hotswap.analysis.sequential import rate_bounds, surely_above, surely_below
from hotswap.domain.analysis import Thresholds
from hotswap.domain.metrics import ExpectedSample, Regression

UNLUCKY = 2.0
"""Standard deviations by which each count misses what is expected: 2.3 % of samples are worse."""

SPREAD = 0.5
"""Latencies are taken as lognormal with this sigma (p99 = 3.2 medians). A heavier tail needs more requests."""

MOST = 1 << 40
"""More requests than any rollout sees: beyond, the answer is never."""

_RESOLUTION = 1 + 1 / 32
"""The baseline's p99 is known to a bucket."""

_NORMAL = NormalDist()


@lru_cache(maxsize=512)
def expected_samples(
    limits: Thresholds, weight_percent: int, regression: Regression, compared: bool, own_sequences: int = 0
) -> tuple[ExpectedSample, ...]:
    """For an observation at `weight_percent` with these (already divided) limits: regression by regression.

    Requests are the candidate's. `compared` says whether there is an earlier version; at 100 % nobody is left on it.
    """
    compared = compared and weight_percent < 100
    alpha = limits.alpha / (shares_of_alpha(compared) + own_sequences)
    announced = []
    if compared:
        share = weight_percent / 100
        announced.append(_more_errors(limits, alpha, share, regression))
        announced.append(_slower(limits, alpha, share, regression))
    announced.append(_errors_beyond_limit(limits, alpha))
    announced.append(_latency_beyond_limit(limits, alpha, regression))
    return tuple(announced)


def _more_errors(limits: Thresholds, alpha: float, share: float, regression: Regression) -> ExpectedSample:
    allowed, before = limits.max_error_rate_increase, regression.error_rate
    more = regression.error_rate_increase
    after = min(before + (max(2 * allowed, 0.01) if more is None else more), 1.0)

    def found(n: int) -> bool:
        old = _others(n, share)
        if min(n, old) < limits.min_sample:
            return False
        new_rate = rate_bounds(_fewest(n, after), n, alpha)
        return new_rate.lower - rate_bounds(_most(old, before), old, alpha).upper > allowed

    requests = _least(found) if after - before > allowed else None
    return ExpectedSample(
        metric="error-rate-vs-baseline",
        regression=f"errors {percent(before)} -> {percent(after)}",
        requests=requests,
        baseline_requests=None if requests is None else _others(requests, share),
    )


def _slower(limits: Thresholds, alpha: float, share: float, regression: Regression) -> ExpectedSample:
    ratio = regression.latency_ratio or limits.max_latency_ratio * 4 / 3

    def found(n: int) -> bool:
        old = _others(n, share)
        if min(n, old) < limits.min_sample:
            return False
        tail = _surely_in_tail(old, alpha)
        if tail is None:
            return False
        limit = _quantile(1 - tail) * _RESOLUTION * limits.max_latency_ratio
        return surely_above(_fewest(n, _slower_than(limit / ratio)), n, TAIL + TAIL_MARGIN, alpha)

    beyond = _slower_than(_quantile(1 - TAIL) * _RESOLUTION * limits.max_latency_ratio / ratio) > TAIL + TAIL_MARGIN
    requests = _least(found) if beyond else None
    return ExpectedSample(
        metric="latency-vs-baseline",
        regression=f"p99 x {ratio:.3g}",
        requests=requests,
        baseline_requests=None if requests is None else _others(requests, share),
    )


def _errors_beyond_limit(limits: Thresholds, alpha: float) -> ExpectedSample:
    limit = min(limits.max_error_rate, 1 - limits.min_success_rate)
    after = min(max(2 * limit, limit + 0.01), 1.0)
    requests = _least(
        lambda n: n >= limits.min_sample and rate_bounds(_fewest(n, after), n, alpha).lower > limit + 1e-12
    )
    return ExpectedSample(metric="error-rate", regression=f"errors {percent(after)}", requests=requests)


def _latency_beyond_limit(limits: Thresholds, alpha: float, regression: Regression) -> ExpectedSample:
    ratio = max((regression.latency_ratio or 0) / limits.max_latency_ratio, 4 / 3)
    slow = _slower_than(_quantile(1 - TAIL) / ratio)
    requests = _least(lambda n: n >= limits.min_sample and surely_above(_fewest(n, slow), n, TAIL, alpha))
    return ExpectedSample(
        metric="latency-p99", regression=f"p99 {limits.max_latency_p99_ms * ratio:,.0f} ms", requests=requests
    )


def _surely_in_tail(n: int, alpha: float) -> float | None:
    """The share of the old version's requests beyond the largest p99 it may have; None while there is no such bound."""
    least, most = 1 / n, TAIL
    if least >= most or not surely_below(_most(n, least), n, TAIL, alpha):
        return None
    for _ in range(30):
        middle = (least + most) / 2
        if surely_below(_most(n, middle), n, TAIL, alpha):
            least = middle
        else:
            most = middle
    return least


def _others(n: int, share: float) -> int:
    """Requests of the old version while the new one gets `n`, a `share` of the traffic."""
    return floor(n * (1 - share) / share)


def _fewest(n: int, rate: float) -> int:
    return max(floor(n * rate - UNLUCKY * sqrt(n * rate * (1 - rate))), 0)


def _most(n: int, rate: float) -> int:
    return min(ceil(n * rate + UNLUCKY * sqrt(n * rate * (1 - rate))), n)


def _quantile(q: float) -> float:
    """Of latencies with median 1."""
    return exp(SPREAD * _NORMAL.inv_cdf(q))


def _slower_than(latency: float) -> float:
    return 1 - _NORMAL.cdf(log(latency) / SPREAD)


def _least(found: Callable[[int], bool]) -> int | None:
    """The smallest sample that is enough, rounded up to two digits; None beyond MOST."""
    enough = 1
    while not found(enough):
        enough *= 2
        if enough > MOST:
            return None
    short = enough // 2
    while enough - short > max(short // 100, 1):
        middle = (short + enough) // 2
        if found(middle):
            enough = middle
        else:
            short = middle
    digit = int(10 ** max(len(str(enough)) - 2, 0))
    return ceil(enough / digit) * digit
