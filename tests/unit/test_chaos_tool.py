"""The fault injector's own judgement: what a kill explains, and that every strategy has its share."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.embedded.parts import Restart
from tests.chaos import scenarios
from tests.chaos.injector import Injection
from tests.chaos.run import deaths_of_their_own
from tests.chaos.watched import IN_DOUBT, FailedRequest, WatchedTraffic

INFO = {
    "tenantToken": "t",
    "nodes": [{"id": "node-1", "routerUrl": "http://127.0.0.1:1"}, {"id": "node-2", "routerUrl": "http://127.0.0.1:2"}],
}
KILLED = [Injection("node-1", at=100.0, down=2.0)]


@pytest.mark.parametrize(
    ("code", "at", "node", "excused"),
    [
        (IN_DOUBT, 100.01, 1, True),
        (IN_DOUBT, 100.01, 2, False),
        (IN_DOUBT, 110.0, 1, False),
        (IN_DOUBT, 90.0, 1, False),
        ("SERVICE_UNAVAILABLE", 100.01, 1, False),
        ("HOST_FAILED", 100.01, 1, False),
        ("NO_NODE", 100.01, 1, False),
    ],
)
async def test_only_a_connection_lost_to_a_node_killed_just_then_is_excused(
    code: str, at: float, node: int, excused: bool
) -> None:
    traffic = WatchedTraffic(INFO, "p", rate=1.0)
    traffic.failures.append(FailedRequest(code, at, f"http://127.0.0.1:{node}: reset"))
    assert bool(traffic.in_doubt(KILLED)) is excused
    assert bool(traffic.faults(KILLED)) is not excused


async def test_a_connection_lost_while_the_kernel_ends_a_killed_node_is_excused_however_long_that_takes() -> None:
    traffic = WatchedTraffic(INFO, "p", rate=1.0)
    traffic.failures += [FailedRequest(IN_DOUBT, at, "http://127.0.0.1:1: reset") for at in (103.0, 106.0)]
    slow = Injection("node-1", at=100.0)
    slow.came_back(Restart("node-1", datetime.fromtimestamp(109.5, UTC), -9, 1, 2, timedelta(seconds=6)))
    assert slow.ended == 103.5
    assert traffic.in_doubt([slow]).total() == 1
    assert len(traffic.faults([slow])) == 1


async def test_errors_of_a_version_that_makes_none_are_faults() -> None:
    traffic = WatchedTraffic(INFO, "p", rate=1.0)
    traffic.report.plugin_errors.update({scenarios.BROKEN: 5})
    assert not traffic.faults([])
    traffic.report.plugin_errors.update({scenarios.GOOD[0]: 1})
    assert traffic.faults([]) == ["p: 1 plugin errors of 1.0.0"]


def test_every_strategy_gets_its_share_and_a_seed_repeats() -> None:
    drawn = scenarios.draw(random.Random(7), 20)
    shares = Counter(one.strategy for one in drawn)
    assert set(shares) == set(scenarios.strategies())
    assert max(shares.values()) - min(shares.values()) <= 1
    assert drawn == scenarios.draw(random.Random(7), 20)


def test_a_strategy_without_a_configuration_here_is_not_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scenarios.WORKFLOW_OF_STRATEGY, "Sideways", "SidewaysDeployment")
    with pytest.raises(KeyError, match="Sideways"):
        scenarios.strategies()


def test_a_part_that_nobody_killed_has_died_by_itself() -> None:
    killed = Injection("node-1", at=100.0, pid=11)
    restarts = [
        Restart(part, datetime.fromtimestamp(101.0, UTC), -6, pid, pid + 100, timedelta(seconds=1))
        for part, pid in (("node-1", 11), ("node-1", 111), ("node-2", 11))
    ]
    said = deaths_of_their_own(restarts, [killed])
    assert len(said) == 2
    assert said[0].startswith("node-1 (pid 111) ended by itself with code -6")
    assert said[1].startswith("node-2 (pid 11) ended by itself")
