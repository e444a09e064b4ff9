"""Tier strong: a world of its own for each host, and nothing lost of what the node knows of a host in any other tier."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from hotswap.config import SandboxSettings
from hotswap.domain.errors import HostFailed
from hotswap.domain.manifest import Resources
from hotswap.runtime.launcher import ZygoteLauncher
from hotswap.runtime.private_root import Plan
from hotswap.runtime.trial import SandboxTrialRunner
from tests.integration.host_lab import alive, ask, children_of, exit_of, leaves_nothing, spec_of, spec_of_source, until
from tests.integration.test_trial import ECHO, archive

MIB = 1024 * 1024
WITNESS = """
    import os, socket, threading, time

    class Plugin:
        def look(self, parameters, context):
            return {
                "pids": [os.getpid(), os.getppid()],
                "name": os.uname().nodename,
                "there": [path for path in parameters["paths"] if os.path.lexists(path)],
                "user": [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()],
            }

        def die(self, parameters, context):
            os.kill(os.getpid(), parameters["signal"])
            time.sleep(60)

        def stay(self, parameters, context):
            import signal
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
            for _ in range(5):
                threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)]).start()
            return "dug in"

        def eat(self, parameters, context):
            self.kept = bytearray(os.urandom(1)) * parameters["bytes"]

        def close(self):
            time.sleep(60)
"""


@pytest_asyncio.fixture(loop_scope="session")
async def launcher() -> AsyncIterator[ZygoteLauncher]:
    made = ZygoteLauncher("strong", 2048, close_grace=timedelta(milliseconds=100))
    yield made
    await made.close()


async def test_a_host_sees_its_bundle_and_the_interpreter_and_nothing_else(
    launcher: ZygoteLauncher, tmp_path: Path
) -> None:
    bundle = tmp_path / "closed" / "bundle"
    spec = spec_of_source(bundle, WITNESS)
    bundle.parent.chmod(0o700)  # what lies above a bundle is not there, so it need not be open to anybody
    beside = spec_of_source(tmp_path / "closed" / "beside", WITNESS)
    host, other = [await launcher.launch(each) for each in (spec, beside)]
    paths = ["/etc/passwd", "/proc/self", "/sys/kernel", "/bin/sh", "/dev/shm", "/run/systemd", str(beside.bundle_dir)]
    seen = await ask(host, "look", paths=[*paths, str(bundle / "made.py"), os.__file__, "/dev/null", "/dev/urandom"])
    assert seen["there"] == [str(bundle / "made.py"), os.__file__, "/dev/null", "/dev/urandom"]
    assert seen["pids"] == [2, 1]
    assert seen["name"] == "plugin"
    assert 0 not in (*seen["user"][:3], *seen["user"][3])
    assert host.sandbox_tier == "strong"
    # The node, however, sees it as any process.
    assert {host.pid, other.pid} <= {int(path.name) for path in Path("/proc").glob("[0-9]*")}
    assert Path(f"/proc/{host.pid}/comm").read_text("ascii") == "host made\n"


async def test_two_hosts_share_no_namespace(launcher: ZygoteLauncher) -> None:
    hosts = [await launcher.launch(spec_of("worker")) for _ in range(2)]
    if os.geteuid() != 0:
        pytest.skip("only root may look at the namespaces of others")
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts"):
        ids = {os.stat(f"/proc/{pid}/ns/{kind}").st_ino for pid in (os.getpid(), *(host.pid for host in hosts))}  # noqa: PTH116
        assert len(ids) == 3, kind


@pytest.mark.parametrize(
    ("number", "says"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGKILL, "SIGKILL"), (signal.SIGABRT, "SIGABRT")]
)
async def test_the_end_of_a_host_is_known_as_it_was(
    launcher: ZygoteLauncher, tmp_path: Path, number: int, says: str
) -> None:
    """As process 1 it would have ignored the first."""
    host = await launcher.launch(spec_of_source(tmp_path / "bundle", WITNESS))
    ended = exit_of(host)
    with pytest.raises(HostFailed, match=says):
        await ask(host, "die", signal=number)
    assert says in await ended
    await until(lambda: not children_of(launcher.zygote_pid))


async def test_an_exit_code_survives_the_kill_that_follows_a_lost_channel(launcher: ZygoteLauncher) -> None:
    """The node orders a kill as soon as the channel closes, mostly before process 1 has reaped the plugin."""
    for _ in range(10):
        host = await launcher.launch(spec_of("worker"))
        ended = exit_of(host)
        with pytest.raises(HostFailed, match="code 7"):
            await ask(host, "leave", how="exit")
        assert "code 7" in await ended


async def test_a_host_killed_from_outside_is_reaped_with_its_process_1(launcher: ZygoteLauncher) -> None:
    for victim in ("plugin", "process 1"):
        host = await launcher.launch(spec_of("worker"))
        ended = exit_of(host)
        (first,) = children_of(launcher.zygote_pid)
        assert children_of(first) == {host.pid}
        os.kill(host.pid if victim == "plugin" else first, signal.SIGKILL)
        assert "SIGKILL" in await ended
        await until(lambda: not children_of(launcher.zygote_pid))
        assert not alive(host.pid)


async def test_its_memory_and_its_cpu_seconds_are_the_plugins(launcher: ZygoteLauncher, tmp_path: Path) -> None:
    spec = spec_of_source(tmp_path / "bundle", WITNESS, resources=Resources(memory_mb=512))
    host = await launcher.launch(spec)
    before = host.memory_bytes()
    await ask(host, "eat", bytes=64 * MIB)
    assert host.memory_bytes() > before + 60 * MIB
    await host.kill()
    assert host.peak_memory_bytes() > before + 60 * MIB
    assert host._exit is not None
    assert 0 < host._exit.cpu_seconds < 30
    assert host._exit.status == signal.SIGKILL


async def test_a_plugin_that_digs_in_is_gone_with_its_host(launcher: ZygoteLauncher, tmp_path: Path) -> None:
    """Threads without end, every signal blocked, a close hook that never returns."""
    host = await launcher.launch(spec_of_source(tmp_path / "bundle", WITNESS))
    assert await ask(host, "stay") == "dug in"
    await host.close()
    assert not alive(host.pid)
    await until(lambda: not children_of(launcher.zygote_pid))


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text("utf-8")
    with leaves_nothing():
        launcher = ZygoteLauncher("strong", 2048)
        specs = [spec_of("worker", resources=Resources(scratch_mb=scratch)) for scratch in (0, 1) * 5]
        hosts = await asyncio.gather(*(launcher.launch(spec) for spec in specs))
        await asyncio.gather(*(ask(host, "echo", a=1) for host in hosts))
        descriptors = len(list(Path(f"/proc/{launcher.zygote_pid}/fd").iterdir()))
        firsts = children_of(launcher.zygote_pid)
        await asyncio.gather(*(host.close() for host in hosts[:5]))
        await until(lambda: len(children_of(launcher.zygote_pid)) == 5)
        assert len(list(Path(f"/proc/{launcher.zygote_pid}/fd").iterdir())) == descriptors  # none is a host's
        broken = spec_of_source(tmp_path / "broken", "raise ValueError")
        with pytest.raises(HostFailed):
            await launcher.launch(broken)
        await launcher.close()
        assert not any(alive(pid) for pid in (*firsts, *(host.pid for host in hosts)))
    assert Path("/proc/self/mountinfo").read_text("utf-8") == mounts


async def test_a_cancelled_launch_leaves_no_process(launcher: ZygoteLauncher, tmp_path: Path) -> None:
    spec = spec_of_source(tmp_path / "bundle", "import time\ntime.sleep(60)")
    await launcher.start()
    for turns in range(8):
        launch = asyncio.create_task(launcher.launch(spec))
        if turns < 7:
            for _ in range(turns):
                await asyncio.sleep(0)
        else:
            await until(lambda: bool(children_of(launcher.zygote_pid)))
        launch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launch
        await until(lambda: not children_of(launcher.zygote_pid))


def test_everything_dies_with_the_node() -> None:
    """A SIGKILL of the process that holds the launcher leaves no zygote, no process 1 and no plugin."""
    script = """
import asyncio, sys
sys.path[:0] = sys.argv[1:]
from tests.integration.host_lab import children_of, spec_of
from hotswap.runtime.launcher import ZygoteLauncher
async def main():
    launcher = ZygoteLauncher("strong", 2048)
    hosts = [await launcher.launch(spec_of("worker")) for _ in range(3)]
    hosts[0].submit("spin", "t", b"{}", 60.0, print)  # this one does not notice that its channel closes
    while not hosts[0]._watermark[0]:
        await asyncio.sleep(0.01)
    print(launcher.zygote_pid, *children_of(launcher.zygote_pid), *(host.pid for host in hosts), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(here), str(here.parent.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        pids = [int(word) for word in node.stdout.readline().split()]
        assert len(set(pids)) == 7
        assert all(alive(pid) for pid in pids)
        node.kill()

    async def gone() -> None:
        await until(lambda: not any(alive(pid) for pid in pids))

    asyncio.run(gone())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's hosts are another user")
async def test_a_bundle_that_its_host_cannot_read_is_told_so(launcher: ZygoteLauncher, tmp_path: Path) -> None:
    spec = spec_of_source(tmp_path / "bundle", WITNESS)
    spec.bundle_dir.chmod(0o700)
    with pytest.raises(HostFailed, match="own user may not read it") as caught:
        await launcher.launch(spec)
    assert caught.value.limit == "LOAD_FAILED"


async def test_process_1_holds_nothing_and_may_do_nothing(launcher: ZygoteLauncher) -> None:
    await launcher.launch(spec_of("worker"))
    (first,) = children_of(launcher.zygote_pid)

    def holds_nothing() -> bool:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{first}/status").read_text("ascii").splitlines())
        held = {status["CapEff"].strip("0"), status["CapPrm"].strip("0"), status["NoNewPrivs"]}
        # Its log and its word to the zygote. Nobody but root may look at that of a process whose user has changed.
        return held == {"", "1"} and (os.geteuid() != 0 or len(list(Path(f"/proc/{first}/fd").iterdir())) == 2)

    await until(holds_nothing)  # soon after the fork


async def test_a_trial_runs_in_the_tier_that_is_set(tmp_path: Path) -> None:
    runner = SandboxTrialRunner(SandboxSettings(tier="strong"), tmp_path / "trials")
    try:
        schema = {"type": "object", "required": ["a"]}
        smoke = {"method": "run", "parameters": {"a": 1}, "expectedSchema": schema}
        report = await runner.run_trial(
            archive(tmp_path, ECHO, smoke, resources={"scratchMb": 1}), timedelta(minutes=1)
        )
        assert (report.passed, report.detail, report.sandbox_tier) == (True, "", "strong")
        assert report.peak_memory_bytes > MIB
    finally:
        await runner.close()


# The plan of a root, as data


def test_a_plan_shows_what_was_asked_links_included_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to("real/deep")
    (tmp_path / "far").symlink_to(tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    here = str(tmp_path)
    plan = Plan().with_paths([f"{here}/far", f"{here}/real/file", f"{here}/missing"])
    assert plan.binds == {f"{here}/real/deep": True, f"{here}/real/file": False}
    assert plan.links == {f"{here}/far": f"{here}/link", f"{here}/link": "real/deep"}
    assert plan.directories()[-2:] == [f"{here}/real", f"{here}/real/deep"]
    assert "/" not in plan.directories()
    # A directory shows what is beneath it: nothing is bound twice, and no place is made within another's.
    whole = plan.with_paths([here])
    assert whole.binds == {here: True}
    assert whole.links == {}
    assert whole.with_paths([f"{here}/real/deep/../file"]).binds == {here: True}
    with pytest.raises(FileNotFoundError):
        plan.with_paths([f"{here}/missing"], required=True)
    with pytest.raises(OSError, match="symbolic links"):
        plan.with_paths([f"{here}/loop"])
