"""Whole canaries, simulated look by look as the plan has them, fast enough for thousands in a normal test run.

What makes it fast: how many fail or are slow is one draw from the binomial distribution, of the latencies only the slow
ones are drawn one by one, and a look at which no metric can fail (the
estimate is within every limit, so its lower bound is) does not call the judge. `test_the_short_cut_never_hides_a_fail` and
the equality of both traffics' distributions hold it to that.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

from hotswap.analysis.histogram import count_above, quantile
from hotswap.analysis.metrics import LEAST_SLOWDOWN_MS, TAIL, TAIL_MARGIN
from hotswap.domain.analysis import InconclusivePolicy, Outcome, Thresholds
from hotswap.domain.plan import Observe
from tests.unit.simulated_rollouts import NEW, OLD, Behaviour, Traffic

SLOW_SHARE = 0.15
"""Of the pool, drawn one by one; the rest counts as one middling latency: no limit of a judge lies there."""


def binomial(rng: random.Random, rate: float, trials: int) -> int:
    """How many of `trials` have an event of probability `rate`: the inverse of the distribution, so exact."""
    return bisect_left(_at_most(rate, trials), rng.random())


@lru_cache(maxsize=1_000)
def _at_most(rate: float, trials: int) -> list[float]:
    """The probability of at most 0, 1, 2... `trials` events."""
    if rate in (0.0, 1.0):
        return [0.0 if events < trials * rate else 1.0 for events in range(trials + 1)]
    exactly = (
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(events + 1)
            - math.lgamma(trials - events + 1)
            + events * math.log(rate)
            + (trials - events) * math.log1p(-rate)
        )
        for events in range(trials)
    )
    return [*accumulate(exactly), 1.0]


@dataclass
class FastBehaviour(Behaviour):
    slow: list[int] = field(init=False)
    usual: int = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        ranked = sorted(self.pool)
        self.slow = ranked[round(len(ranked) * (1 - SLOW_SHARE)) :]
        self.usual = ranked[len(ranked) // 2]


class FastTraffic(Traffic):
    def more(self, version: str, behaviour: Behaviour, count: int) -> None:
        assert isinstance(behaviour, FastBehaviour)
        self.requests[version] += count
        self.errors[version] += binomial(self.rng, behaviour.error_rate, count)
        slow = binomial(self.rng, SLOW_SHARE, count)
        seen = self.latencies[version]
        seen[behaviour.usual] += count - slow
        seen.update(self.rng.choices(behaviour.slow, k=slow))

    def may_fail(self, limits: Thresholds, weight_percent: int) -> bool:
        """False when no metric's estimate is beyond its limit: then no bound is."""
        new, old = self.requests[NEW], self.requests[OLD]
        if new < limits.min_sample:
            return False
        failed, slow = self.errors[NEW] / new, self.latencies[NEW]
        if failed > min(limits.max_error_rate, 1 - limits.min_success_rate):
            return True
        if count_above(slow, limits.max_latency_p99_ms) > TAIL * new:
            return True
        if weight_percent == 100 or old < limits.min_sample:
            return False
        if failed - self.errors[OLD] / old > limits.max_error_rate_increase:
            return True
        p99 = quantile(self.latencies[OLD], 1 - TAIL)
        limit = max(p99 * limits.max_latency_ratio, p99 + LEAST_SLOWDOWN_MS)
        return count_above(slow, limit) > (TAIL + TAIL_MARGIN) * new


@dataclass(frozen=True, slots=True)
class Ending:
    """How a simulated canary went: as the machinery's gates would have it, by the plan's own intervals and policy."""

    outcome: Outcome
    extensions: int
    looks: int
    candidate_requests: int


def canary(
    rng: random.Random, windows: list[Observe], requests_a_look: int, new: FastBehaviour, old: FastBehaviour
) -> Ending:
    """Judged at every interval. `Inconclusive` is a canary that waits for a person."""
    looks = extensions = requests = 0
    for window in windows:
        traffic, share = FastTraffic(rng), window.weight_percent / 100
        allowed = window.max_extensions if window.on_inconclusive is InconclusivePolicy.EXTEND else 0
        while True:
            for _ in range(math.ceil(window.period / window.interval)):
                looks += 1
                mine = round(requests_a_look * share)
                requests += mine
                traffic.more(NEW, new, mine)
                traffic.more(OLD, old, requests_a_look - mine)
                suspect = traffic.may_fail(window.thresholds, window.weight_percent)
                if suspect and traffic.verdict(window.thresholds, window.weight_percent).outcome is Outcome.FAIL:
                    return Ending(Outcome.FAIL, extensions, looks, requests)
            if traffic.verdict(window.thresholds, window.weight_percent).outcome is Outcome.PASS:
                break
            if not allowed:
                return Ending(Outcome.INCONCLUSIVE, extensions, looks, requests)
            allowed -= 1
            extensions += 1
    return Ending(Outcome.PASS, extensions, looks, requests)


def rollouts(
    name: str, count: int, windows: list[Observe], requests_a_look: int, new: FastBehaviour, old: FastBehaviour
) -> Iterator[Ending]:
    """Seeded: the same name gives the same rollouts."""
    for index in range(count):
        yield canary(random.Random(f"{name} {requests_a_look} {index}"), windows, requests_a_look, new, old)
