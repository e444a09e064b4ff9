"""Bounds on a rate that hold at every look at once (a confidence sequence). Pure: math and nothing else.

Source: the beta-binomial mixture martingale (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform,
nonparametric, nonasymptotic confidence sequences"). With `s` events in `n` trials and a Beta(a, b) mixture,

    M_n(p) = B(a + s, b + n - s) / B(a, b) / (p^s (1 - p)^(n - s))

is a martingale that starts at 1 when the rate is `p`, so by Ville's inequality it ever reaches 1/alpha with probability
at most alpha. The rates where it has not are the interval. Neighbour: hotswap.analysis.metrics asks the questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, lgamma, log, log1p

from hotswap.analysis.histogram import LAST_BUCKET, bounds

_A, _B = 0.5, 5.0
"""The mixture expects small rates, as errors and slow requests are: at 1 % it needs about a seventh fewer requests than the
usual (1/2, 1/2), and above 30 % it loses what nobody misses. Any choice is valid; this one is only faster where it counts."""

_STEPS = 45
"""Bisection steps: 2^-45 of the estimate, far below what a rate of requests can mean."""


@dataclass(frozen=True, slots=True)
class RateBounds:
    """A rate (share, 0 to 1) seen `events` times in `n` trials. `estimate` is None without trials."""

    n: int
    events: int
    estimate: float | None
    lower: float
    upper: float


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


_LOG_PRIOR = _log_beta(_A, _B)


def log_evidence(events: int, n: int, rate: float) -> float:
    """ln M_n(rate): the evidence against `rate` (0 to 1, ends included). Infinite when the trials contradict it outright."""
    misses = n - events
    if (rate <= 0 and events) or (rate >= 1 and misses):
        return inf
    evidence = _log_beta(_A + events, _B + misses) - _LOG_PRIOR
    if events:
        evidence -= events * log(rate)
    if misses:
        evidence -= misses * log1p(-rate)
    return evidence


def rate_bounds(events: int, n: int, alpha: float) -> RateBounds:
    """The interval that holds the true rate at every n at once with probability 1 - alpha.

    Raises ValueError unless 0 <= events <= n and 0 < alpha < 1. Rounded outwards: never narrower than the exact interval.
    """
    if not 0 <= events <= n or not 0 < alpha < 1:
        raise ValueError(f"cannot bound {events} events in {n} trials at alpha {alpha}")
    if n == 0:
        return RateBounds(0, 0, None, 0.0, 1.0)
    misses = n - events
    estimate = events / n
    level = _log_beta(_A + events, _B + misses) - _LOG_PRIOR + log(alpha)
    return RateBounds(n, events, estimate, _far_end(level, events, misses), 1.0 - _far_end(level, misses, events))


def _far_end(level: float, events: int, others: int) -> float:
    """The rate below events / (events + others) where level - events ln p - others ln(1-p), that is ln M(p) + ln alpha, is 0.

    The function is convex and negative at the estimate, so there is one such rate on each side; the upper one is found as
    the lower one of the opposite event, since floating point is fine near 0 and coarse near 1. Rounded outwards.
    """
    outside, inside = 0.0, events / (events + others)
    if not events:
        return 0.0
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        if level - events * log(middle) - (others * log1p(-middle) if others else 0.0) >= 0:
            outside = middle
        else:
            inside = middle
    return outside


def surely_above(events: int, n: int, rate: float, alpha: float) -> bool:
    """Whether the lower bound is at or above `rate`. The same answer as `rate_bounds`, without the search."""
    return events > rate * n and log_evidence(events, n, rate) >= -log(alpha)


def surely_below(events: int, n: int, rate: float, alpha: float) -> bool:
    """Whether the upper bound is at or below `rate`."""
    return events < rate * n and log_evidence(events, n, rate) >= -log(alpha)


def tail_bounds(buckets: Mapping[int, int], tail: float, alpha: float) -> tuple[float, float]:
    """Bounds in milliseconds on the latency that a share `tail` of requests exceeds (0.01: the p99), at every look at once.

    By inverting the rate's bounds: were the true quantile above the upper bound x, at least `tail` of all requests would be
    slower than x, which the count above x refutes. One Bernoulli sequence (slower than the true quantile, or not) carries
    the argument, so no correction for the many buckets is due. (0, inf) while there are too few requests.
    """
    n = sum(buckets.values())
    lower, upper = 0.0, inf
    above = 0
    for index in sorted(buckets, reverse=True):
        if not surely_below(above, n, tail, alpha):
            break
        upper = bounds(index)[1] if index < LAST_BUCKET else inf
        above += buckets[index]
    above = 0
    for index in sorted(buckets, reverse=True):
        above += buckets[index]
        if surely_above(above, n, tail, alpha):
            lower = bounds(index)[0]
            break
    return lower, upper
