"""The soak's judgement: a leak is named, and what merely works, warms up or stumbles once is not."""

import random
from collections.abc import Callable

import pytest

from tests.chaos.growth import DAY, DESCRIPTORS, ENTRIES, MEMORY, PROCESSES, Kind, Series, judge

NOISE = random.Random(7)


def of(kind: Kind, value: Callable[[float], float], seconds: int = 600, every: int = 5) -> Series:
    series = Series("node-1", kind)
    for at in range(0, seconds, every):
        series.add(at, value(at))
    return series


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (PROCESSES, lambda at: 60 + at / 30),
        (DESCRIPTORS, lambda at: 50 + at / 10 + NOISE.uniform(-10, 10)),
        (MEMORY, lambda at: (120 + at / 15 + NOISE.uniform(-8, 8)) * 2**20),
        (ENTRIES, lambda at: 400 + (at // 60) * 12),
    ],
)
def test_a_leak_is_found(kind: Kind, value: Callable[[float], float]) -> None:
    found = judge(of(kind, value))
    assert found.grew
    assert "node-1" in found.row()
    assert "GREW" in found.row()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (PROCESSES, lambda at: 60 + 9 * (at // 5 % 3)),
        (DESCRIPTORS, lambda at: 50 + NOISE.uniform(-10, 10)),
        (MEMORY, lambda at: (120 + min(at, 140) / 4) * 2**20),
        (MEMORY, lambda at: (120 + (at % 60) / 2) * 2**20),
        (ENTRIES, lambda at: 400 if at < 590 else 4000),
        (DESCRIPTORS, lambda at: 80 - at / 20),
    ],
    ids=["work", "noise", "caches that fill", "sawtooth", "one outlier", "fewer"],
)
def test_what_does_not_grow_is_left_alone(kind: Kind, value: Callable[[float], float]) -> None:
    assert not judge(of(kind, value)).grew


def test_the_slope_is_that_of_a_whole_soak() -> None:
    assert judge(of(ENTRIES, lambda at: at)).slope == pytest.approx(DAY)
    assert judge(of(ENTRIES, lambda at: at, seconds=60, every=1)).slope == pytest.approx(DAY)


def test_too_few_measurements_say_nothing() -> None:
    with pytest.raises(ValueError, match="too few; run for longer"):
        judge(of(ENTRIES, lambda at: at, seconds=20))
