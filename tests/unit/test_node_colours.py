"""What a node does for Rolling and BlueGreen: all tenants by the new version where it is switched, smoke tests on the idle one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.domain.errors import StaleGeneration
from hotswap.domain.routes import FULL_WEIGHT, ArtifactRef, RouteState
from hotswap.node.supervisor import NodeSupervisor
from hotswap.routing.decide import choose_version, state_on_node
from tests.unit.node_fakes import FakeLauncher, make_supervisor, order, refused

TENANTS = [f"tenant-{number}" for number in range(200)]
SECOND = timedelta(seconds=1)


def served(supervisor: NodeSupervisor) -> set[str | None]:
    route = supervisor.routes["invoice"]
    return {choose_version(tenant, route.state, route.pins) for tenant in TENANTS}


async def test_a_switched_node_serves_all_tenants_by_the_new_version_and_another_none() -> None:
    here, there = make_supervisor(FakeLauncher()), make_supervisor(FakeLauncher())
    there.node_id = "node-u"
    wanted = order(2, "1.0.0", "2.0.0", switched=("node-t",))
    for supervisor in (here, there):
        await supervisor.stage(order(1, "1.0.0", "2.0.0"))
        assert served(supervisor) == {"1.0.0"}
        await supervisor.apply(wanted)
    assert served(here) == {"2.0.0"}
    assert served(there) == {"1.0.0"}
    assert here.figures("invoice", datetime.now(UTC)).candidate_weight == FULL_WEIGHT
    assert there.figures("invoice", datetime.now(UTC)).candidate_weight == 0
    for supervisor in (here, there):
        await supervisor.apply(order(3, "1.0.0"))
        assert served(supervisor) == {"1.0.0"}, "giving the traffic back needs no list of nodes"
        await supervisor.close()


async def test_one_generation_with_another_list_of_nodes_is_refused() -> None:
    supervisor = make_supervisor(FakeLauncher())
    await supervisor.apply(order(2, "1.0.0", "2.0.0", switched=("node-t",)))
    fault = await refused(supervisor.apply(order(2, "1.0.0", "2.0.0", switched=("node-u",))))
    assert isinstance(fault, StaleGeneration)
    await supervisor.close()


def test_nodes_are_switched_only_to_a_candidate() -> None:
    with pytest.raises(ValueError, match="switchedNodes: must be empty without a candidate"):
        RouteState(switched_nodes=("n1",))


NODES = st.lists(st.sampled_from(["n1", "n2", "n3", "n4"]), unique=True).map(tuple)


@given(
    nodes=NODES, here=st.sampled_from(["n1", "n2", "n3", "n4"]), weight=st.integers(0, FULL_WEIGHT), tenant=st.text()
)
def test_a_pin_is_honoured_on_a_switched_node_too(nodes: tuple[str, ...], here: str, weight: int, tenant: str) -> None:
    old, new = (ArtifactRef(plugin="p", version=v, digest="a" * 64, size_bytes=1) for v in ("1.0.0", "2.0.0"))
    state = RouteState(stable=old, candidate=new, candidate_weight=weight, seed="s", switched_nodes=nodes)
    mine = state_on_node(state, here)
    assert choose_version(tenant, mine, {tenant: old}) == "1.0.0"
    expected = "2.0.0" if here in nodes else choose_version(tenant, state, {})
    assert choose_version(tenant, mine, {}) == expected


async def smoke(*tests: dict[str, Any], timeout: timedelta = SECOND, version: str = "2.0.0") -> tuple[bool, str, int]:
    launcher = FakeLauncher()
    launcher.smoke_tests = list(tests)
    supervisor = make_supervisor(launcher)
    await supervisor.stage(order(1, "1.0.0", "2.0.0"))
    report = await supervisor.smoke("invoice", version, timeout)
    calls = [call for host in launcher.live("1.0.0") for call in host.calls]
    assert not calls, "the version that serves is left alone"
    assert supervisor.figures("invoice", datetime.now(UTC) - SECOND).versions[-1].requests == 0, "not in the figures"
    await supervisor.close()
    return report.passed, report.detail, len(report.smoke_tests)


async def test_smoke_tests_run_on_the_idle_host() -> None:
    good = {"method": "echo", "parameters": {"n": 1}, "expected": {"version": "2.0.0", "echo": {"n": 1}}}
    assert await smoke(good, good) == (True, "", 2)
    assert await smoke() == (True, "", 0)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ({"method": "echo", "expected": {"other": 1}}, "smoke test of 'echo': expected {\"other\": 1} and got"),
        ({"method": "boom"}, "smoke test of 'boom': raised LookupError: no such invoice"),
        ({"method": "echo", "expectedSchema": {"type": "object"}}, "cannot be checked on this node"),
    ],
)
async def test_a_failed_smoke_test_is_an_answer_and_ends_the_tests(test: dict[str, Any], said: str) -> None:
    passed, detail, count = await smoke(test, {"method": "echo"})
    assert not passed
    assert said in detail
    assert count == 1


async def test_smoke_tests_that_hang_end_with_their_time() -> None:
    passed, detail, _ = await smoke({"method": "hold"}, timeout=timedelta(milliseconds=50))
    assert not passed
    assert detail == "the smoke tests took longer than 0.05 s"


async def test_a_version_that_is_not_loaded_cannot_pass() -> None:
    assert await smoke(version="9.9.9") == (False, "is not loaded on this node", 0)
