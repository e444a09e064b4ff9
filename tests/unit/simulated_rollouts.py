"""Makes traffic for the tests of hotswap.analysis: seeded, exact draws, fast enough for hundreds of rollouts."""

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hotswap.analysis import judge
from hotswap.analysis.histogram import bucket_of
from hotswap.domain.analysis import HostReport, NodeFigures, Thresholds, Verdict, VersionFigures

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = "1.0.0", "2.0.0"


def event_positions(rng: random.Random, rate: float, trials: int) -> Iterator[int]:
    """Which of `trials` (from 1) have an event of probability `rate`, drawn by the gaps between events."""
    position = 0
    while rate > 0:
        position += 1 if rate >= 1 else 1 + int(math.log(1 - rng.random()) / math.log1p(-rate))
        if position > trials:
            return
        yield position


@dataclass
class Behaviour:
    """How a version does: share of requests that fail, and lognormal latencies by their p99 in milliseconds."""

    error_rate: float = 0.01
    p99_ms: float = 60.0
    pool: list[int] = field(init=False)

    def __post_init__(self) -> None:
        # 4,000 quantiles at even ranks: choosing among them draws from the distribution, in C.
        spread = 0.5
        median = self.p99_ms / math.exp(2.3263 * spread)
        rng = random.Random(4000)
        self.pool = [bucket_of(median * rng.lognormvariate(0, spread)) for _ in range(4_000)]


@dataclass
class Traffic:
    """Grows by `more`, and is judged as it stands: what a node counts since the window began."""

    rng: random.Random
    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, Counter[int]] = field(default_factory=lambda: {OLD: Counter(), NEW: Counter()})

    def more(self, version: str, behaviour: Behaviour, count: int) -> None:
        self.requests[version] += count
        self.errors[version] += sum(1 for _ in event_positions(self.rng, behaviour.error_rate, count))
        self.latencies[version].update(self.rng.choices(behaviour.pool, k=count))

    def verdict(self, thresholds: Thresholds, weight_percent: int) -> Verdict:
        node = NodeFigures(
            node_id="node-1",
            plugin="phone",
            since=START,
            taken_at=START,
            versions=tuple(
                VersionFigures(
                    version=version,
                    requests=self.requests[version],
                    errors=self.errors[version],
                    latency_buckets=dict(self.latencies[version]),
                )
                for version in (OLD, NEW)
            ),
            hosts=(HostReport(plugin="phone", version=NEW, state="Ready"),),
        )
        now = START + timedelta(minutes=1)
        return judge([node], [], NEW, OLD, thresholds, START, now, weight_percent)
