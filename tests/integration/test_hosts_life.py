"""A host's life and end: loading, dying in every way, its zygote dying, closing; nothing is left behind."""

import asyncio
import logging
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from hotswap.domain.errors import HostFailed
from hotswap.domain.manifest import Resources
from hotswap.runtime import output, protocol, zygote_link
from hotswap.runtime.exits import Exit
from hotswap.runtime.handle import ZygoteHost
from hotswap.runtime.launcher import ZygoteLauncher
from tests.integration.host_lab import (
    SOON,
    Replies,
    alive,
    ask,
    children_of,
    exit_of,
    launched,
    leaves_nothing,
    spec_of,
    spec_of_source,
    until,
)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class Other: pass", "no class 'Plugin'"),
        ("import missing_library", "ModuleNotFoundError: No module named 'missing_library' (made.py:1)"),
        ("def broken(:", "SyntaxError"),
        ("class Plugin:\n    def __init__(self): raise ValueError('no key')", "ValueError: no key (made.py:2)"),
        ("class Plugin:\n    def __init__(self, needed): pass", "TypeError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("class Plugin: pass", "no method wanted"),
    ],
)
async def test_a_plugin_that_cannot_load_says_why(tmp_path: Path, source: str, says: str) -> None:
    with leaves_nothing():
        with pytest.raises(HostFailed) as caught:
            async with launched(spec_of_source(tmp_path, source, methods=("wanted",))):
                pass
        assert caught.value.limit == "LOAD_FAILED"
        assert says in caught.value.message


async def test_loading_is_limited_in_time_memory_and_process(tmp_path: Path) -> None:
    bombs = {
        "TIMEOUT": "import time\ntime.sleep(60)",
        "MEMORY_LIMIT": "kept = bytearray(2 * 1024 ** 3)",
        "DIED": "import os\nos._exit(3)",
    }
    for limit, source in bombs.items():
        spec = spec_of_source(tmp_path / limit, source, load_timeout=timedelta(seconds=1.5))
        with pytest.raises(HostFailed) as caught:
            async with launched(spec):
                pass
        assert caught.value.limit == limit


async def test_a_missing_bundle_is_a_load_failure(tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="is not at") as caught:
        async with launched(spec_of("worker", bundle_dir=tmp_path / "gone")):
            pass
    assert caught.value.limit == "LOAD_FAILED"


async def test_a_cancelled_launch_leaves_no_process(tmp_path: Path) -> None:
    launcher = ZygoteLauncher("standard", 2048)
    try:
        await launcher.start()
        spec = spec_of_source(tmp_path, "import time\ntime.sleep(60)")
        for _ in range(5):
            launch = asyncio.create_task(launcher.launch(spec))
            await asyncio.sleep(0)  # somewhere on its way
            await until(lambda: bool(children_of(launcher.zygote_pid)))
            launch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await launch
            await until(lambda: not children_of(launcher.zygote_pid))
        early = asyncio.create_task(launcher.launch(spec))
        await asyncio.sleep(0)
        early.cancel()  # before there is a pid
        with pytest.raises(asyncio.CancelledError):
            await early
        await until(lambda: not children_of(launcher.zygote_pid))
    finally:
        await launcher.close()


async def test_a_launch_cancelled_while_it_connects_leaves_no_fault_in_the_loop(tmp_path: Path) -> None:
    """Its channel is lost after its shared memory is gone: 'mmap closed or invalid' came out of a callback."""
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context.get("exception") or context["message"]))
    launcher = ZygoteLauncher("standard", 2048)
    spec = spec_of_source(tmp_path, "class Plugin: pass")
    try:
        await launcher.start()
        for turns in range(8):  # one of the first turns of the loop is the one in which it connects
            launching = asyncio.create_task(launcher.launch(spec))
            for _ in range(turns):
                await asyncio.sleep(0)
            launching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await launching
    finally:
        await launcher.close()
        loop.set_exception_handler(None)
    assert faults == []


async def test_a_killed_host_answers_everyone_and_tells_once(tmp_path: Path) -> None:
    async with launched(spec_of("worker", resources=Resources(processes=1))) as host:
        ended = exit_of(host)
        replies = Replies()
        for _ in range(3):
            host.submit("sleep_async", "t", b'{"seconds": 60}', 60.0, replies)
        await host.ping(SOON)  # the host has seen them by now
        os.kill(host.pid, signal.SIGKILL)
        got = await replies.wait(3)
        assert [(reply.ok, reply.limit, reply.started) for reply in got] == [(False, "DIED", True)] * 3
        assert "SIGKILL" in await ended
        assert not host.alive
        assert host.memory_bytes() == 0
        host.submit("echo", "t", b"{}", 1.0, replies)
        assert (await replies.wait(4))[3].started is False
        with pytest.raises(HostFailed):
            await host.ping(SOON)
        late = exit_of(host)  # who asks afterwards is told as well
        assert "SIGKILL" in await late


async def test_what_a_dead_host_never_began_may_be_sent_to_another(tmp_path: Path) -> None:
    source = """
        import os, time
        class Plugin:
            async def stop(self, parameters, context):
                time.sleep(60)
            async def count(self, parameters, context):
                return 1
    """
    async with launched(spec_of_source(tmp_path, source)) as host:
        begun, unseen = Replies(), Replies()
        host.submit("count", "t", b"{}", 60.0, begun)
        await begun.wait(1)
        host.submit("stop", "t", b"{}", 60.0, begun)
        watermark = host._watermark
        await until(lambda: watermark[0] == 2)
        for _ in range(20):
            host.submit("count", "t", b"{}", 60.0, unseen)
        os.kill(host.pid, signal.SIGKILL)
        assert [reply.started for reply in await unseen.wait(20)] == [False] * 20
        assert [reply.started for reply in await begun.wait(2)] == [True, True]


@pytest.mark.parametrize(("how", "says"), [("exit", "code 7"), ("segfault", "SIGSEGV"), ("hang up", "SIGKILL")])
async def test_a_host_that_ends_itself_is_reaped_and_named(how: str, says: str) -> None:
    async with launched(spec_of("worker")) as host:
        ended = exit_of(host)
        with pytest.raises(HostFailed, match=says) as caught:
            await ask(host, "leave", how=how)
        assert caught.value.limit == "DIED"
        assert says in await ended
        assert not alive(host.pid)


@pytest.mark.parametrize(
    "forged",
    {
        "unknown request": "00000002 00000063 0005 0000 7b7d",
        "unknown error": "00000002 00000063 0006 0000 7b7d",
        "second READY": "00000000 00000000 0002 0000",
        "call to the node": "00000000 00000001 0004 0000",
        "unknown kind": "00000000 00000001 00ff 0000",
        "flags": "00000000 00000001 0008 0001",
        "endless result": "ffffffff 00000001 0005 0000",
        "pong for a call": "00000000 00000001 0008 0000",
        "error that is no JSON": "00000002 00000001 0006 0000 7b7b",
        "noise": "deadbeefdeadbeefdeadbeef",
    }.items(),
    ids=lambda item: item[0],
)
async def test_a_host_that_breaks_the_protocol_is_killed(forged: tuple[str, str]) -> None:
    async with launched(spec_of("prober")) as host:
        ended = exit_of(host)
        with pytest.raises(HostFailed) as caught:
            await ask(host, "forge", bytes=forged[1].replace(" ", ""))
        assert caught.value.limit == "BAD_REPLY"
        assert "broke the protocol" in await ended
        assert not alive(host.pid)


async def test_a_dead_zygote_takes_its_hosts_along_and_the_next_launch_starts_another() -> None:
    launcher = ZygoteLauncher("standard", 2048)
    try:
        hosts = [await launcher.launch(spec_of("worker")) for _ in range(3)]
        ends = [exit_of(host) for host in hosts]
        waiting = asyncio.create_task(ask(hosts[0], "spin"))
        await until(lambda: bool(hosts[0]._watermark[0]))
        os.kill(launcher.zygote_pid, signal.SIGKILL)
        assert all("zygote was killed by signal 9" in reason for reason in await asyncio.gather(*ends))
        with pytest.raises(HostFailed) as caught:
            await waiting
        assert caught.value.limit == "DIED"
        await until(lambda: not any(alive(host.pid) for host in hosts))
        for host in hosts:
            await host.close()
        again = await launcher.launch(spec_of("worker"))
        assert await ask(again, "echo", a=1) == {"a": 1}
    finally:
        await launcher.close()


def test_a_zygote_whose_node_was_killed_goes_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    """Its socket is reset, not ended, when the node had not read all that it was told; the node's log is JSON."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = zygote_link._spawn("standard", theirs.fileno(), [])
        ready, _, _ = select.select([ours], [], [], zygote_link.START_PATIENCE)
        assert ready
    assert process.wait(zygote_link.START_PATIENCE) == 0
    assert capfd.readouterr().err == ""


def test_everything_dies_with_the_node() -> None:
    """A SIGKILL of the process that holds the launcher leaves no zygote and no host, not even one that reads nothing."""
    script = """
import asyncio, sys
sys.path[:0] = sys.argv[1:]
from tests.integration.host_lab import spec_of
from hotswap.runtime.launcher import ZygoteLauncher
async def main():
    launcher = ZygoteLauncher("standard", 2048)
    hosts = [await launcher.launch(spec_of("worker")) for _ in range(2)]
    hosts[0].submit("spin", "t", b"{}", 60.0, print)
    while not hosts[0]._watermark[0]:
        await asyncio.sleep(0.01)
    print(launcher.zygote_pid, *(host.pid for host in hosts), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(here), str(here.parent.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        pids = [int(word) for word in node.stdout.readline().split()]
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
        node.kill()

    async def gone() -> None:
        await until(lambda: not any(alive(pid) for pid in pids))

    asyncio.run(gone())


async def test_close_lets_the_plugin_say_good_bye(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hotswap.plugin")
    source = """
        class Plugin:
            async def close(self):
                print("good bye")
    """
    async with launched(spec_of_source(tmp_path, source)) as host:
        ended = exit_of(host)
        await asyncio.gather(host.close(), host.close())
        await host.close()
        assert not alive(host.pid)
        assert not ended.done()  # on_exit is for ends nobody asked for
        assert "good bye" in caplog.messages


async def test_close_kills_a_plugin_that_does_not_go(tmp_path: Path) -> None:
    source = """
        import time
        class Plugin:
            def close(self):
                time.sleep(60)
            async def wait(self, parameters, context):
                time.sleep(60)
    """
    launcher = ZygoteLauncher("standard", 2048, close_grace=timedelta(milliseconds=100))
    try:
        polite, busy = [await launcher.launch(spec_of_source(tmp_path, source)) for _ in range(2)]
        replies = Replies()
        busy.submit("wait", "t", b"{}", 60.0, replies)
        await asyncio.gather(polite.close(), busy.close())
        assert not alive(polite.pid)
        assert not alive(busy.pid)
        assert replies.got[0].limit == "DIED"
    finally:
        await launcher.close()


async def test_nothing_is_left_behind() -> None:
    with leaves_nothing():
        launcher = ZygoteLauncher("standard", 2048)
        hosts = await asyncio.gather(*(launcher.launch(spec_of("worker")) for _ in range(10)))
        await asyncio.gather(*(ask(host, "echo", a=1) for host in hosts))
        await asyncio.gather(*(host.close() for host in hosts[:3]))
        os.kill(hosts[3].pid, signal.SIGKILL)
        await launcher.close()
        await launcher.close()
        assert not any(alive(host.pid) for host in hosts)
    with pytest.raises(HostFailed, match="closed"):
        await launcher.launch(spec_of("worker"))


async def test_a_plugins_output_reaches_the_log_in_whole_clean_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hotswap.plugin")
    async with launched(spec_of("worker")) as host:
        await ask(host, "shout", lines=3)
        await until(lambda: len(caplog.messages) >= 5)
        assert not host.output_limited
    assert caplog.messages[0] == "worker was imported"
    assert caplog.messages[1].startswith("line 0 xxx")
    assert caplog.messages[4] == "raw\ufffd[31m\ufffd to stderr"
    assert caplog.records[0].__dict__["plugin"] == "worker"


async def test_a_flood_of_output_is_cut_and_blocks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hotswap.plugin")
    async with launched(spec_of("worker")) as host:
        assert await ask(host, "shout", lines=200_000) == "shouted"
        assert host.output_limited
        assert any("OUTPUT_LIMIT" in message for message in caplog.messages)
    assert sum(len(message) for message in caplog.messages) < 100 * output.BYTES_PER_WINDOW


async def test_tier_none_is_said_aloud_and_ties_hosts_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    launcher = ZygoteLauncher("none", 2048)
    try:
        await launcher.start()
        assert any("WITHOUT isolation" in message for message in caplog.messages)
        host = await launcher.launch(spec_of("prober"))
        assert host.sandbox_tier == "none"
        assert await ask(host, "escape", attempt="read /etc/passwd") == ""  # the probes do find a missing sandbox
        assert await ask(host, "escape", attempt="open a UDP socket") == ""
        os.kill(launcher.zygote_pid, signal.SIGKILL)
        await until(lambda: not alive(host.pid))
    finally:
        await launcher.close()


async def test_last_words_are_heard_even_when_the_death_is_reported_first() -> None:
    """Channel and zygote are two sources: what the host said before it died must not be lost to their order."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reader, writer = os.pipe()
    os.close(writer)
    loop = asyncio.get_running_loop()
    host = ZygoteHost(
        spec_of("worker"),
        "standard",
        mmap.mmap(-1, protocol.WATERMARK_BYTES),
        output.PluginOutput(reader, "worker", "1.0.0", loop),
        cpu_limit=None,
        close_grace=1.0,
        order_kill=lambda pid: None,
        zygote_hangs=lambda: None,
    )
    await loop.create_unix_connection(lambda: host, sock=ours)
    host.forked(1)
    fault = protocol.encode_fault(protocol.Fault("no key", kind="ValueError", limit="LOAD_FAILED"))
    with theirs:
        theirs.sendall(protocol.encode(0, protocol.Kind.ISOLATED) + protocol.encode(0, protocol.Kind.FAILED, fault))
    host.exited(Exit(protocol.EXIT_LOAD << 8))
    with pytest.raises(HostFailed, match="ValueError: no key") as caught:
        await host.wait_ready(0.0)
    assert caught.value.limit == "LOAD_FAILED"
    await host.kill()
