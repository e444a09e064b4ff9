"""Does a series of measurements grow? Pure: numbers in, a table and names out. tests.chaos.soak measures.

A leak lifts the floor for as long as it runs; work under way only moves the value up and down, and a process fills its caches
first. So the beginning is left out, medians of the first and the last quarter of the rest are compared, and the slope
(the median of all slopes between two points, Theil and Sen) must say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median

WARM_UP = 0.25
"""Share of the run that is left out: imports, caches and pools fill up in the first minutes."""

DAY = 600.0
"""Seconds of soak that stand for 24 hours."""

MOST_POINTS = 120
"""Points that slopes are taken between: 7,000 pairs."""


@dataclass(frozen=True)
class Kind:
    """What is counted: its unit, and the growth that is noise (the larger of a number and a share of the first value)."""

    unit: str
    number: float
    share: float
    scale: float = 1.0

    def allowed(self, first: float) -> float:
        return max(self.number, self.share * first)


PROCESSES = Kind("processes", 4, 0.10)
"""A deployment under way has a second version on each of three nodes, a trial has three processes."""

DESCRIPTORS = Kind("descriptors", 12, 0.10)
"""A pool of connections opens a few more when load peaks; a leak of one for each deployment is 300 in a run."""

MEMORY = Kind("MiB", 16, 0.10, scale=2**20)
"""Private bytes. The heap's fragments move by some MiB; a leak of 100 KB for each deployment is 30 MiB in a run."""

ENTRIES = Kind("entries", 12, 0.05)
"""Files and directories. One left by each deployment is 300 in a run."""


@dataclass
class Series:
    name: str
    kind: Kind
    points: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the beginning, value)."""

    def add(self, at: float, value: float) -> None:
        self.points.append((at, value / self.kind.scale))


@dataclass(frozen=True)
class Finding:
    """One series, judged. `slope` is for DAY seconds."""

    name: str
    unit: str
    first: float
    last: float
    slope: float
    allowed: float
    points: int
    grew: bool

    def row(self) -> str:
        word = "GREW" if self.grew else "ok"
        return (
            f"{self.name:<28} {self.first:>9.1f} {self.last:>9.1f} {self.slope:>+10.1f} {self.allowed:>9.1f}"
            f"  {self.unit:<11} {word}"
        )


HEADER = f"{'what':<28} {'first':>9} {'last':>9} {'slope/24h':>10} {'allowed':>9}  {'unit':<11} verdict"


def judge(series: Series) -> Finding:
    """Raises ValueError for fewer than eight points: nothing can be said of those."""
    if len(series.points) < 8:
        raise ValueError(f"{series.name}: {len(series.points)} measurements are too few; run for longer")
    begin, end = series.points[0][0], series.points[-1][0]
    kept = [point for point in series.points if point[0] >= begin + WARM_UP * (end - begin)]
    quarter = max(1, len(kept) // 4)
    first, last = (median(value for _, value in part) for part in (kept[:quarter], kept[-quarter:]))
    each_second = _slope(kept)
    allowed = series.kind.allowed(first)
    risen = each_second * (kept[-1][0] - kept[0][0])
    return Finding(
        name=series.name,
        unit=series.kind.unit,
        first=first,
        last=last,
        slope=each_second * DAY,
        allowed=allowed,
        points=len(kept),
        grew=last - first > allowed and risen > allowed / 2,
    )


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """A second, Theil and Sen's: half of the points may be outliers."""
    thinned = points[:: max(1, -(-len(points) // MOST_POINTS))]
    return median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(thinned, 2) if b[0] > a[0])
