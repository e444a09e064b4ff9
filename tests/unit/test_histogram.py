"""Latency buckets: where a value falls, that sums are exact, that quantiles are close."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.analysis.histogram import (
    HIGHEST_MS,
    LAST_BUCKET,
    LOWEST_MS,
    bounds,
    bucket_of,
    count_above,
    merge,
    quantile,
)

latencies = st.floats(min_value=0, max_value=1e7, allow_nan=False)
in_range = st.floats(min_value=LOWEST_MS, max_value=HIGHEST_MS * 0.999)


def fill(values: list[float]) -> dict[int, int]:
    buckets: dict[int, int] = {}
    for value in values:
        index = bucket_of(value)
        buckets[index] = buckets.get(index, 0) + 1
    return buckets


@given(in_range)
def test_a_value_lies_within_the_bounds_of_its_bucket(value: float) -> None:
    lower, upper = bounds(bucket_of(value))
    assert lower * (1 - 1e-12) <= value < upper * (1 + 1e-12)
    assert (upper - lower) / lower <= 1 / 32 + 1e-9


@given(latencies, latencies)
def test_slower_is_never_in_a_lower_bucket(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert bucket_of(low) <= bucket_of(high)


def test_buckets_tile_the_range_without_gap() -> None:
    for index in range(LAST_BUCKET):
        assert bounds(index)[1] == pytest.approx(bounds(index + 1)[0])
    assert bounds(1)[0] == LOWEST_MS
    assert bounds(LAST_BUCKET)[0] <= HIGHEST_MS < bounds(LAST_BUCKET)[1] * 1.0001


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, 0), (-1.0, 0), (0.00999, 0), (math.inf, LAST_BUCKET), (math.nan, LAST_BUCKET), (1e12, LAST_BUCKET)],
)
def test_values_out_of_range_are_kept_at_the_ends(value: float, bucket: int) -> None:
    assert bucket_of(value) == bucket


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("seed", range(3))
def test_quantiles_are_within_three_percent_of_exact_ones(q: float, seed: int) -> None:
    chance = random.Random(seed)
    values = sorted(chance.lognormvariate(1.5, 0.8) for _ in range(20_000))
    exact = values[math.ceil(q * len(values)) - 1]
    assert quantile(fill(values), q) == pytest.approx(exact, rel=0.031)


def test_quantiles_of_nothing_are_an_error_and_not_fast() -> None:
    with pytest.raises(ValueError, match="no observations"):
        quantile({}, 0.99)
    with pytest.raises(ValueError, match="no observations"):
        quantile({5: 0}, 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile({5: 1}, 1.5)
    with pytest.raises(ValueError, match="outside"):
        bounds(LAST_BUCKET + 1)


@given(st.lists(st.lists(latencies, max_size=30), max_size=5))
def test_merging_nodes_is_the_same_as_counting_in_one_place(nodes: list[list[float]]) -> None:
    assert merge(fill(values) for values in nodes) == fill([value for values in nodes for value in values])


@given(st.lists(in_range, min_size=1, max_size=50), in_range)
def test_count_above_is_exact_but_for_values_near_the_limit(values: list[float], limit: float) -> None:
    counted = count_above(fill(values), limit)
    assert sum(value > limit * 1.033 for value in values) <= counted <= sum(value > limit / 1.033 for value in values)
