"""Thousands of simulated canaries through the real planner and judge: how often a good version is taken back or waits.

`python -m benchmarks.simulate_analysis [rollouts]` (default 300 for each line, under two minutes; 2,000 take ten) prints one
JSON object a figure. Needs no server. tests/unit/test_analysis_announced.py runs the same simulation and asserts.
"""

import json
import os
import platform
import sys
from collections.abc import Iterator

from hotswap.domain.analysis import InconclusivePolicy, Outcome
from hotswap.domain.deployment import CanaryConfig
from hotswap.domain.plan import Observe
from hotswap.strategies.canary import canary_weights
from hotswap.strategies.common import shift_and_watch
from tests.unit.fast_rollouts import FastBehaviour, rollouts

USUAL = FastBehaviour(error_rate=0.01)
AT_LIMITS = FastBehaviour(error_rate=0.05, p99_ms=500)


def figures(count: int) -> Iterator[dict[str, object]]:
    for policy in (InconclusivePolicy.EXTEND, InconclusivePolicy.PAUSE):
        config = CanaryConfig(on_inconclusive=policy)
        steps = shift_and_watch(canary_weights(config), config, config.evaluation_period)
        windows = [step for step in steps if isinstance(step, Observe)]
        looks = windows[0].period // windows[0].interval
        for name, version in (("usual", USUAL), ("at_limits", AT_LIMITS)):
            for requests in (10, 100, 400, 1_000):
                ends = list(rollouts(name, count, windows, requests, version, version))
                for what, outcome in (("taken_back", Outcome.FAIL), ("waits_for_a_person", Outcome.INCONCLUSIVE)):
                    yield {
                        "figure": f"analysis.{what}.{policy}.{name}.{requests * looks}_requests_a_window",
                        "value": sum(end.outcome is outcome for end in ends) / count,
                        "unit": "share of rollouts",
                        "n": count,
                        "against": "alpha 0.05 for taken_back",
                    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    machine = f"{os.cpu_count()} cores, python {platform.python_version()}"
    for figure in figures(count):
        print(json.dumps({**figure, "machine": machine}), flush=True)


if __name__ == "__main__":
    main()
