"""The bounds on a rate: exact by enumeration, in agreement with each other, and covering at every look at once."""

import math
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.analysis.histogram import LAST_BUCKET, bounds, bucket_of
from hotswap.analysis.sequential import log_evidence, rate_bounds, surely_above, surely_below, tail_bounds
from tests.unit.simulated_rollouts import event_positions


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.99])
def test_evidence_is_a_martingale_of_mean_one(rate: float) -> None:
    for n in range(9):
        mean = sum(
            math.prod(rate if event else 1 - rate for event in path) * math.exp(log_evidence(sum(path), n, rate))
            for path in product((0, 1), repeat=n)
        )
        assert mean == pytest.approx(1)


counts = st.integers(0, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
alphas = st.floats(1e-6, 0.49)


@settings(deadline=None)
@given(counts, alphas)
def test_bounds_enclose_the_estimate_and_end_where_the_evidence_does(count: tuple[int, int], alpha: float) -> None:
    events, n = count
    seen = rate_bounds(events, n, alpha)
    assert 0 <= seen.lower <= seen.upper <= 1
    if n == 0:
        assert (seen.estimate, seen.lower, seen.upper) == (None, 0, 1)
        return
    assert seen.estimate == events / n
    assert seen.lower <= seen.estimate <= seen.upper
    for end in [end for end in (seen.lower, seen.upper) if 1e-6 < end < 1 - 1e-6]:  # floats are coarse near 1
        assert log_evidence(events, n, end) == pytest.approx(-math.log(alpha), rel=1e-6, abs=1e-6)
    assert (seen.lower == 0) is (events == 0)
    assert seen.upper == 1 or events < n
    assert seen.upper < 1 or events / n > 0.9


@settings(deadline=None)
@given(counts, alphas, st.floats(0.001, 0.999))
def test_the_quick_answers_are_those_of_the_bounds(count: tuple[int, int], alpha: float, rate: float) -> None:
    seen = rate_bounds(*count, alpha)
    near = 1e-9
    if abs(seen.lower - rate) > near:
        assert surely_above(*count, rate, alpha) is (seen.lower > rate)
    if abs(seen.upper - rate) > near:
        assert surely_below(*count, rate, alpha) is (seen.upper < rate)


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), alphas)
def test_more_events_raise_both_bounds_and_more_confidence_widens_them(count: tuple[int, int], alpha: float) -> None:
    events, n = count
    fewer, more = rate_bounds(events, n, alpha), rate_bounds(events + 1, n, alpha)
    assert fewer.lower < more.lower
    assert fewer.upper <= more.upper
    wider = rate_bounds(events, n, alpha / 10)
    assert wider.lower <= fewer.lower
    assert fewer.upper <= wider.upper


@pytest.mark.parametrize(("events", "n", "alpha"), [(-1, 5, 0.1), (6, 5, 0.1), (1, 5, 0), (1, 5, 1)])
def test_counts_that_cannot_be_are_refused(events: int, n: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="cannot bound"):
        rate_bounds(events, n, alpha)


def test_a_rate_of_zero_or_one_is_refuted_by_a_single_contrary_request() -> None:
    assert log_evidence(1, 100, 0.0) == math.inf
    assert log_evidence(99, 100, 1.0) == math.inf
    assert log_evidence(0, 100, 0.0) < 0
    assert rate_bounds(10**9 // 20, 10**9, 0.01).lower == pytest.approx(0.05, rel=1e-3), "a billion requests are fine"


ALPHA = 0.05
STREAMS = 800
SLACK = 3 * math.sqrt(ALPHA * (1 - ALPHA) / STREAMS)
"""Three standard deviations of the count of misses at exactly alpha: seeded, so the test never flickers."""


@pytest.mark.parametrize("rate", [0.005, 0.05, 0.4])
def test_bounds_cover_the_rate_at_every_request_of_a_stream(rate: float) -> None:
    trials = round(150 / rate)
    above = below = missed = 0
    for stream in range(STREAMS):
        rng = random.Random(f"cover {rate} {stream}")
        low = high = False
        # The lower bound is highest right after an event, the upper bound lowest right before one.
        for events, position in enumerate(event_positions(rng, rate, trials)):
            low = low or surely_below(events, position - 1, rate, ALPHA)
            high = high or surely_above(events + 1, position, rate, ALPHA)
        above, below, missed = above + high, below + low, missed + (low or high)
    assert missed / STREAMS <= ALPHA + SLACK
    assert above + below >= 1, "a bound that never misses in 800 streams is far wider than it says"


def test_a_rate_that_wanders_but_stays_within_the_limit_is_no_more_often_refuted() -> None:
    limit, missed = 0.05, 0
    for stream in range(STREAMS):
        rng = random.Random(f"wander {stream}")
        events = 0
        for n in range(1, 1_501):
            # An adversary that sees the past: quiet while ahead, at the limit otherwise.
            rate = limit if events > limit * n or n % 300 < 150 else 0.0
            if rng.random() < rate:
                events += 1
                if surely_above(events, n, limit, ALPHA):
                    missed += 1
                    break
    assert missed / STREAMS <= ALPHA + SLACK


def test_a_fixed_sample_interval_would_be_fooled_by_peeking() -> None:
    """The control: Wald's interval (2.5 % on this side), looked at after every error, refutes the truth five times as often."""
    limit, missed = 0.05, 0
    for stream in range(STREAMS):
        for events, position in enumerate(event_positions(random.Random(f"wald {stream}"), limit, 3_000), start=1):
            share = events / position
            if position >= 50 and share - 1.96 * math.sqrt(share * (1 - share) / position) > limit:
                missed += 1
                break
    assert missed / STREAMS > 4 * 0.025


def test_tail_bounds_hold_the_true_p99_at_every_look() -> None:
    # Latencies uniform on 0..1000 ms: the true p99 is 990 ms.
    true, missed, finite = 990.0, 0, 0
    for stream in range(100):
        rng = random.Random(f"tail {stream}")
        buckets: dict[int, int] = {}
        for _ in range(12):
            for _ in range(250):
                index = bucket_of(1_000 * rng.random())
                buckets[index] = buckets.get(index, 0) + 1
            lower, upper = tail_bounds(buckets, 0.01, 0.1)
            assert lower <= upper
            if not lower <= true <= upper:
                missed += 1
                break
        finite += upper < math.inf
    assert missed <= 10
    assert finite == 100, "3,000 requests are enough for a bound"


def test_tail_bounds_say_nothing_on_few_requests() -> None:
    assert tail_bounds({}, 0.01, 0.05) == (0.0, math.inf)
    assert tail_bounds({bucket_of(5): 1}, 0.01, 0.01) == (0.0, math.inf)
    lower, upper = tail_bounds({bucket_of(5): 400}, 0.01, 0.01)
    assert (lower, upper) == (bounds(bucket_of(5))[0], math.inf), "none was faster; whether 1 % are slower is open"
    lower, upper = tail_bounds({bucket_of(5): 2_000}, 0.01, 0.01)
    assert (lower, upper) == bounds(bucket_of(5)), "ties: all in one bucket"
    assert tail_bounds({LAST_BUCKET: 2_000}, 0.01, 0.01)[1] == math.inf, "the last bucket has no end"
