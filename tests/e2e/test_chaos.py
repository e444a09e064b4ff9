"""The fault injector's short form: every strategy, parts killed at random, traffic all the time. Long: `make test-chaos`.

The seed is printed; set HOTSWAP_CHAOS_SEED to repeat one.
"""

import os
import random

import pytest

from tests.chaos.run import run_chaos
from tests.chaos.scenarios import strategies
from tests.e2e.live import Live

DEPLOYMENTS = 20


@pytest.mark.timeout(300)
async def test_parts_killed_at_random_lose_nothing_and_do_nothing_twice(live: Live) -> None:
    seed = int(os.environ.get("HOTSWAP_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"HOTSWAP_CHAOS_SEED={seed}")
    report = await run_chaos(live, seed, DEPLOYMENTS, lanes=5)
    print(report.table())
    assert report.passed, report.table()
    assert len(report.runs) >= DEPLOYMENTS
    assert {run.scenario.strategy for run in report.runs} == set(strategies())
    assert report.injections
    assert report.requests > 1000
