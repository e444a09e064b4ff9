"""One look at the version in place: which hosts are faulty, and when that is a fault of the version."""

from datetime import UTC, datetime

import pytest

from hotswap.domain.analysis import HostReport, NodeFigures
from hotswap.domain.health import Condition, HealthLook, look_at

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def node(number: int, **host: object) -> NodeFigures:
    given = {"plugin": "invoice", "version": "2.0.0", "state": "Ready", **host}
    hosts = () if host.get("state") == "none" else (HostReport.model_validate(given),)
    return NodeFigures(node_id=f"node-{number}", plugin="invoice", since=NOW, taken_at=NOW, hosts=hosts)


def look(*nodes: NodeFigures, silent: tuple[str, ...] = (), before: dict[str, int] | None = None) -> HealthLook:
    return look_at(nodes, silent, "2.0.0", before or {}, 0.2)


@pytest.mark.parametrize(
    ("host", "before", "condition", "said"),
    [
        ({}, {}, Condition.WELL, "all 1 hosts of 2.0.0 are well"),
        ({"state": "Starting"}, {}, Condition.WELL, ""),
        ({"crashes": 5}, {"node-1": 5}, Condition.WELL, ""),
        ({"crashes": 5}, {}, Condition.WELL, "all 1"),  # nobody knows when they were: the next look will
        ({"crashes": 6}, {"node-1": 5}, Condition.FAULTY, "crashed 1 times since the last look"),
        ({"crashes": 2}, {"node-1": 5}, Condition.FAULTY, "crashed 2 times"),  # the node was restarted and counts anew
        ({"crashes": 0}, {"node-1": 5}, Condition.WELL, ""),
        (
            {"state": "Crashed", "crashes": 3, "last_error": "exit code 1"},
            {"node-1": 3},
            Condition.FAULTY,
            "exit code 1",
        ),
        ({"probe_failures": 1}, {}, Condition.FAULTY, "failed 1 probes in a row"),
        ({"state": "none"}, {}, Condition.FAULTY, "is not loaded"),
        ({"state": "Draining"}, {}, Condition.FAULTY, "is not loaded"),
        ({"version": "1.0.0"}, {}, Condition.FAULTY, "is not loaded"),
    ],
)
def test_a_host_is_judged_by_its_state_its_crashes_and_its_probes(
    host: dict[str, object], before: dict[str, int], condition: Condition, said: str
) -> None:
    found = look(node(1, **host), before=before)
    assert found.condition is condition
    assert said in found.evidence


@pytest.mark.parametrize(
    ("nodes", "ill", "condition"), [(5, 1, "Well"), (5, 2, "Faulty"), (4, 1, "Faulty"), (10, 2, "Well")]
)
def test_more_than_a_fifth_of_the_hosts_is_a_fault_of_the_version(nodes: int, ill: int, condition: str) -> None:
    found = look(*(node(number, probe_failures=int(number < ill)) for number in range(nodes)))
    assert (found.condition, found.hosts, found.faulty_hosts) == (condition, nodes, ill)


def test_silent_nodes_count_neither_way() -> None:
    found = look(node(1), silent=("node-2", "node-3", "node-4"))
    assert found.condition is Condition.WELL
    assert "node-2, node-3, node-4 did not answer" in found.evidence


@pytest.mark.parametrize("silent", [(), ("node-1",)])
def test_no_data_is_neither_success_nor_fault(silent: tuple[str, ...]) -> None:
    found = look(silent=silent, before={"node-1": 4})
    assert found.condition is Condition.UNKNOWN
    assert found.crashes == {"node-1": 4}, "the next look still compares with the last that saw something"


def test_crashes_are_carried_to_the_next_look() -> None:
    first = look(node(1, crashes=2), node(2))
    assert first.crashes == {"node-1": 2, "node-2": 0}
    assert look(node(1, crashes=3), node(2), before=first.crashes).faulty_hosts == 1
