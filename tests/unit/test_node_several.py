"""Versions with several processes and with a standby: who takes a call, who takes over, who is restarted. Hosts are fakes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from hotswap.analysis.sample import collect
from hotswap.domain.analysis import MAX_HOSTS_TOLD
from hotswap.domain.errors import HostFailed, PluginError
from hotswap.domain.health import Condition, look_at
from hotswap.node.cores import Cores
from hotswap.node.hosts import SupervisedHost
from hotswap.node.supervisor import EVERY_PLUGIN, NodeSupervisor
from hotswap.ports.hosts import Reply
from tests.unit.node_fakes import FakeHost, FakeLauncher, eventually, make_supervisor, order, refused

SECOND = timedelta(seconds=1)
LOAD_FAILED = HostFailed("cannot import", "LOAD_FAILED")


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
async def node(launcher: FakeLauncher) -> AsyncIterator[NodeSupervisor]:
    made = make_supervisor(launcher, standby=("invoice",))
    yield made
    await made.close()
    assert launcher.live() == []


@pytest.fixture
async def plain(launcher: FakeLauncher) -> AsyncIterator[NodeSupervisor]:
    made = make_supervisor(launcher)
    yield made
    await made.close()
    assert launcher.live() == []


def states(node: NodeSupervisor, version: str = "1.0.0") -> list[str]:
    return [report.state for report in node.hosts() if report.version == version]


def host_of(node: NodeSupervisor, version: str = "1.0.0") -> SupervisedHost:
    host = node.routes["invoice"].hosts[version]
    assert isinstance(host, SupervisedHost)
    return host


def picked(host: SupervisedHost) -> FakeHost:
    handle = host.pick()
    assert isinstance(handle, FakeHost)
    return handle


def hold(handle: FakeHost) -> list[Reply]:
    """One call that is in flight until it is released."""
    answers: list[Reply] = []
    handle.submit("hold", "acme", b"{}", 5, answers.append)
    return answers


# -- several processes -----------------------------------------------------------------------------------------------


async def test_a_version_runs_as_many_processes_as_its_manifest_says_each_on_a_core(
    plain: NodeSupervisor, launcher: FakeLauncher
) -> None:
    launcher.concurrency = 3
    report = await plain.stage(order(1, "1.0.0"))
    assert [host.state for host in report.hosts] == ["Ready"] * 3
    assert len({host.pid for host in report.hosts}) == 3
    assert None not in {host.spec.core for host in launcher.live()}
    assert len({host.spec.core for host in launcher.live()}) == min(3, len(Cores()))


async def test_a_history_is_told_of_a_few_processes_the_crashed_ones_first(
    plain: NodeSupervisor, launcher: FakeLauncher
) -> None:
    launcher.concurrency = 64
    report = await plain.stage(order(1, "1.0.0"))
    assert len(report.hosts) == MAX_HOSTS_TOLD
    launcher.hosts[50].die()
    assert len(plain.figures("invoice", datetime.now(UTC)).hosts) == 64
    again = await plain.apply(order(2, "1.0.0"))
    assert (len(again.hosts), again.hosts[0].crashes) == (MAX_HOSTS_TOLD, 1)


async def test_one_process_is_pinned_nowhere(plain: NodeSupervisor, launcher: FakeLauncher) -> None:
    await plain.stage(order(1, "1.0.0"))
    assert [host.spec.core for host in launcher.live()] == [None]


async def test_calls_go_to_the_least_busy_process(plain: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.concurrency = 3
    await plain.stage(order(1, "1.0.0"))
    host = host_of(plain)
    for _ in range(9):
        hold(picked(host))
    assert [each.in_flight for each in launcher.live()] == [3, 3, 3]
    launcher.live()[1].release()
    assert picked(host) is launcher.live()[1]
    for each in launcher.live():
        each.release()


async def test_idle_processes_take_turns(plain: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.concurrency = 2
    await plain.stage(order(1, "1.0.0"))
    assert set(Counter(picked(host_of(plain)).pid for _ in range(10)).values()) == {5}


async def test_each_process_is_restarted_alone(plain: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.concurrency = 3
    await plain.stage(order(1, "1.0.0"))
    first, second, third = launcher.live()
    launcher.gates["1.0.0"] = asyncio.Event()
    second.die()
    assert states(plain) == ["Ready", "Crashed", "Ready"]
    assert {picked(host_of(plain)).pid for _ in range(6)} == {first.pid, third.pid}
    await eventually(lambda: launcher.launches["1.0.0"] == 4)
    launcher.gates["1.0.0"].set()
    await eventually(lambda: states(plain) == ["Ready"] * 3)
    assert [host.pid for host in plain.hosts()] == [first.pid, launcher.hosts[3].pid, third.pid]
    assert launcher.hosts[3].spec.core == second.spec.core
    assert [host.crashes for host in plain.hosts()] == [0, 1, 0]


async def test_a_version_of_which_one_process_cannot_load_is_not_staged(
    plain: NodeSupervisor, launcher: FakeLauncher
) -> None:
    launcher.concurrency = 2
    launcher.fail_launches = {2: LOAD_FAILED}
    assert await refused(plain.stage(order(1, "1.0.0"))) is LOAD_FAILED
    assert launcher.live() == []
    assert plain.routes == {}


async def test_a_drain_waits_for_every_process(plain: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.concurrency = 2
    await plain.stage(order(1, "1.0.0"))
    held = [hold(each) for each in launcher.live()]
    first, second = launcher.live()
    retiring = asyncio.create_task(plain.retire(order(2, "2.0.0"), timedelta(minutes=1)))
    await eventually(lambda: states(plain) == ["Draining", "Draining"])
    first.release()
    await eventually(lambda: first.closed)
    assert not retiring.done()
    second.release()
    await retiring
    assert [answer.ok for answers in held for answer in answers] == [True, True]


async def test_a_probe_asks_every_process(plain: NodeSupervisor, launcher: FakeLauncher) -> None:
    launcher.concurrency = 2
    await plain.stage(order(1, "1.0.0"))
    launcher.live()[1].ping_fault = PluginError("no database", "Unhealthy")
    report = await plain.probe("invoice", "1.0.0")
    assert (report.health, report.detail) == ("Unhealthy", "no database")
    assert [host.probe_failures for host in plain.hosts()] == [0, 1]


async def test_cores_are_shared_out_evenly_and_given_back() -> None:
    cores = Cores([4, 6])
    assert [cores.take() for _ in range(4)] == [4, 6, 4, 6]
    cores.give_back(6)
    assert cores.take() == 6


# -- standby ---------------------------------------------------------------------------------------------------------


async def test_a_standby_is_made_beside_what_serves_and_serves_nobody(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0"))
    await eventually(lambda: states(node) == ["Ready", "Standby"])
    assert {picked(host_of(node)).pid for _ in range(5)} == {launcher.hosts[0].pid}


async def test_a_standby_takes_over_within_the_call_that_finds_the_process_dead(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0"))
    await eventually(lambda: states(node) == ["Ready", "Standby"])
    first, spare = launcher.hosts
    first.alive = False  # its channel is closed; that it ended is not reported yet
    assert picked(host_of(node)) is spare
    first.die()
    assert picked(host_of(node)) is spare
    assert node.tally.takeovers == 1
    await eventually(lambda: states(node) == ["Ready", "Standby"])
    assert [host.crashes for host in node.hosts()] == [0, 1]


async def test_a_plugin_that_kills_every_process_is_not_restarted_without_end(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    """Two places that spare each other must not undo the backoff."""
    await node.stage(order(1, "1.0.0"))
    deadline = asyncio.get_running_loop().time() + 0.6
    while asyncio.get_running_loop().time() < deadline:
        for host in launcher.live():
            host.die()
        await asyncio.sleep(0.001)
    assert launcher.launches["1.0.0"] <= 2 * 6  # 0, 50, 100, 200, 400 ms and the first, at each place


async def test_a_standby_that_cannot_be_made_does_not_fail_the_stage(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    launcher.fail_launches = {2: LOAD_FAILED}
    report = await node.stage(order(1, "1.0.0"))
    assert report.generation == 1
    await eventually(lambda: states(node) == ["Ready", "Standby"])  # tried again


async def test_standbys_follow_the_switches(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "1.0.0"))
    await eventually(lambda: states(node) == ["Ready", "Standby"])
    await node.stage(order(2, "1.0.0", "2.0.0", 0))
    await node.apply(order(3, "1.0.0", "2.0.0", 1000))
    await eventually(lambda: states(node, "2.0.0") == ["Ready", "Standby"])
    assert states(node) == ["Ready", "Standby"]
    await node.apply(order(4, "1.0.0", "2.0.0", 10_000))
    await eventually(lambda: states(node) == ["Ready"])  # only kept warm
    await node.retire(order(5, "2.0.0"), SECOND)
    await eventually(lambda: len(launcher.live()) == 2)
    assert states(node, "2.0.0") == ["Ready", "Standby"]


async def test_a_version_kept_warm_has_no_standby(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    await node.stage(order(1, "2.0.0", warm=("1.0.0",)))
    await eventually(lambda: states(node, "2.0.0") == ["Ready", "Standby"])
    assert states(node) == ["Ready"]


async def test_only_the_plugins_named_have_a_standby(launcher: FakeLauncher) -> None:
    node = make_supervisor(launcher, standby=("payment",))
    everywhere = make_supervisor(launcher, standby=(EVERY_PLUGIN,))
    await node.stage(order(1, "1.0.0"))
    await everywhere.stage(order(1, "1.0.0"))
    await eventually(lambda: states(everywhere) == ["Ready", "Standby"])
    assert states(node) == ["Ready"]
    await node.close()
    await everywhere.close()


async def test_a_standby_given_up_takes_no_crash_off_the_count(node: NodeSupervisor, launcher: FakeLauncher) -> None:
    """A count that falls reads as a node that was restarted, and every crash of it as a new one."""
    await node.stage(order(1, "1.0.0"))
    await eventually(lambda: states(node) == ["Ready", "Standby"])
    launcher.hosts[0].die()
    await eventually(lambda: states(node) == ["Ready", "Standby"])
    await node.apply(order(2, "2.0.0", warm=("1.0.0",)))
    assert [host.crashes for host in node.hosts() if host.version == "1.0.0"] == [1]


async def test_with_several_processes_the_standby_replaces_any_of_them(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    launcher.concurrency = 2
    await node.stage(order(1, "1.0.0"))
    await eventually(lambda: states(node) == ["Ready", "Ready", "Standby"])
    spare = launcher.hosts[2]
    assert spare.spec.core is None  # which core will be free is not known yet
    launcher.hosts[1].die()
    assert {picked(host_of(node)).pid for _ in range(4)} == {launcher.hosts[0].pid, spare.pid}
    await eventually(lambda: states(node) == ["Ready", "Ready", "Standby"])


async def test_verdicts_do_not_count_standbys_and_see_their_crashes(
    node: NodeSupervisor, launcher: FakeLauncher
) -> None:
    await node.stage(order(1, "1.0.0"))
    await eventually(lambda: states(node) == ["Ready", "Standby"])
    figures = node.figures("invoice", datetime.now(UTC))
    assert len(collect([figures], "1.0.0", None).hosts) == 1
    assert look_at([figures], [], "1.0.0", {"node-t": 0}, 0.0).condition is Condition.WELL
    launcher.hosts[1].die()
    await eventually(lambda: states(node) == ["Ready", "Standby"])
    after = node.figures("invoice", datetime.now(UTC))
    assert look_at([after], [], "1.0.0", {"node-t": 0}, 0.0).condition is Condition.FAULTY
    assert look_at([after], [], "1.0.0", {"node-t": 1}, 0.0).condition is Condition.WELL
