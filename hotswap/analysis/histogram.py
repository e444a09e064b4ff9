"""Latency buckets that add up: log-linear, 32 to an octave, from 10 us to 10 min. Pure: integers and math.

Neighbours: hotswap.node.figures fills them on the hot path, nodes send them as {index: count}, hotswap.analysis judges
from the sum of all nodes. A bucket is at most 1/32 = 3.1 % wide, so a quantile is within 1.6 % of the exact one when
its rank falls anywhere in the bucket's middle half, and never more than 3.1 % away.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import frexp

LOWEST_MS = 0.01
"""10 us. Anything faster is in bucket 0."""

HIGHEST_MS = 600_000.0
"""10 minutes. Anything slower is in the last bucket."""

_PER_OCTAVE = 32
_SCALE = 2.0 * _PER_OCTAVE
_UNITS = 1.0 / LOWEST_MS


def _index(ms: float) -> int:
    mantissa, exponent = frexp(ms * _UNITS)  # ms * _UNITS = mantissa * 2**exponent, mantissa in [0.5, 1)
    return (exponent - 2) * _PER_OCTAVE + int(mantissa * _SCALE) + 1


LAST_BUCKET = _index(HIGHEST_MS)


def bucket_of(ms: float) -> int:
    """The bucket of a latency in milliseconds: 0 (below 10 us) to LAST_BUCKET. Not-a-number counts as slowest."""
    if ms < HIGHEST_MS:
        return _index(ms) if ms >= LOWEST_MS else 0
    return LAST_BUCKET


@lru_cache(maxsize=LAST_BUCKET + 1)
def bounds(index: int) -> tuple[float, float]:
    """[lower, upper) of a bucket in milliseconds. Raises ValueError outside 0..LAST_BUCKET."""
    if not 0 <= index <= LAST_BUCKET:
        raise ValueError(f"bucket {index} is outside 0 to {LAST_BUCKET}")
    if index == 0:
        return 0.0, LOWEST_MS
    octave, step = divmod(index - 1, _PER_OCTAVE)
    unit = LOWEST_MS * 2.0**octave / _PER_OCTAVE
    return (_PER_OCTAVE + step) * unit, (_PER_OCTAVE + step + 1) * unit


def merge(parts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """The sum of several histograms."""
    total: dict[int, int] = {}
    for part in parts:
        for index, count in part.items():
            total[index] = total.get(index, 0) + count
    return total


def quantile(buckets: Mapping[int, int], q: float) -> float:
    """The latency in milliseconds below which a share `q` (0 to 1) of the observations lies, interpolated in its bucket.

    Raises ValueError when there are no observations (no data is not fast) or `q` is out of range.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"a quantile is between 0 and 1, not {q}")
    count = sum(buckets.values())
    if count <= 0:
        raise ValueError("there are no observations")
    rank = q * count
    below = 0
    upper = 0.0
    for index in sorted(buckets):
        here = buckets[index]
        if here <= 0:
            continue
        lower, upper = bounds(index)
        if below + here >= rank:
            return lower + (upper - lower) * (rank - below) / here
        below += here
    return upper  # only by rounding of q * count


def count_above(buckets: Mapping[int, int], limit_ms: float) -> int:
    """How many observations were slower than `limit_ms`; a bucket is above when its middle is (limit held to 1.6 %)."""
    return sum(count for index, count in buckets.items() if sum(bounds(index)) / 2 > limit_ms)
