"""What a host costs: how fast it loads, what it needs idle, how fast it ends and is replaced. One node, real hosts.

`serving again` is measured from outside: callers in a process of their own (benchmarks.load_callers) note when they got
which answer, this process notes when it killed; the clock is the machine's. Run: make bench NAME=load. The sandbox tier
is the strongest that works here; TIER=standard takes another.
"""

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import mean
from typing import get_args

import uvloop

from benchmarks.figures import figure
from hotswap.domain.errors import SandboxUnavailable
from hotswap.domain.manifest import Resources
from hotswap.domain.routes import ArtifactRef, RouteOrder, RouteState
from hotswap.node import seat
from hotswap.node.figures import FigureBook
from hotswap.node.router import Router
from hotswap.node.supervisor import EVERY_PLUGIN, NodeSupervisor
from hotswap.ports.hosts import HostSpec
from hotswap.runtime.bytecode import compile_bundle
from hotswap.runtime.launcher import ZygoteLauncher
from hotswap.runtime.sandbox import Tier

HOSTS = 1000
MIB_EACH = 8
"""Available memory that a host takes at most: for a benchmark nobody's machine should swap."""
KILLS = 20
STEADY = 0.05
"""Seconds after which a host counts as steady here. A node takes 10 s; killing 20 hosts of that age would take minutes."""
LIMIT = timedelta(seconds=60)
TOKEN = "benchmark"

CODE = """\
import os

PROCESS = os.urandom(8).hex()


class Echo:
    async def where(self, parameters, context):
        return PROCESS
"""


class OneBundle:
    """Stands for hotswap.node.bundles.BundleCache: every plugin is the same unpacked bundle, so that hosts are measured."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o755)
        folder.parent.chmod(0o755)  # hosts have users of their own
        (folder / "echo.py").write_text(CODE, encoding="utf-8")
        compile_bundle(folder)

    async def prepare(self, ref: ArtifactRef) -> HostSpec:
        return HostSpec(
            plugin=ref.plugin,
            version=ref.version,
            bundle_dir=self._folder,
            entry_point="echo:Echo",
            resources=Resources(),
            methods=("where",),
        )


async def main() -> None:
    launcher, tier = await start_launcher()
    gc.collect()
    gc.freeze()  # as a node does (hotswap.node.__main__)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            bundles = OneBundle(Path(scratch) / "bundle")
            await many_hosts(launcher, bundles, tier)
            for standby in (False, True):
                await kills(launcher, bundles, tier, standby=standby)
    finally:
        await launcher.close()


async def start_launcher() -> tuple[ZygoteLauncher, str]:
    """The strongest tier that works here, unless TIER names one."""
    tiers: Sequence[Tier] = [tier for tier in ("strong", "standard") if tier in get_args(Tier)]
    if named := os.environ.get("TIER"):
        tiers = [tier for tier in get_args(Tier) if tier == named]
        if not tiers:
            sys.exit(f"TIER={named}: there are {', '.join(get_args(Tier))}")
    fault: SandboxUnavailable | None = None
    for tier in tiers:
        launcher = ZygoteLauncher(tier, 512)
        try:
            await launcher.start()
        except SandboxUnavailable as unavailable:
            await launcher.close()
            fault = unavailable
            print(f"tier {tier} does not work here: {unavailable.message}", file=sys.stderr)
        else:
            return launcher, tier
    sys.exit(f"no sandbox tier works here: {fault}")


async def many_hosts(launcher: ZygoteLauncher, bundles: OneBundle, tier: str) -> None:
    """Load them one after another, look, end them one after another."""
    count = min(HOSTS, _available_mib() // MIB_EACH)
    node = _node(launcher, bundles)
    loads, unloads = [], []
    try:
        for number in range(count):
            report = await node.stage(_order(f"echo-{number}", 1, "1.0.0"))
            loads.append(report.hosts[0].load_ms)
        handles = [handle for host, _ in node.loaded() for handle in host.handles()]
        answers = await asyncio.gather(*(handle.invoke("where", "acme", b"{}", LIMIT) for handle in handles))
        own = mean(handle.own_memory_bytes() for handle in handles)
        for number in range(count):
            began = time.perf_counter()
            await node.retire(_order(f"echo-{number}", 2, None), timedelta(seconds=5))
            unloads.append((time.perf_counter() - began) * 1000)
    finally:
        await node.close()
    host = f"a {tier} host from the zygote"
    figure("load.p99_ms", _percentile(loads, 99), "ms", count, f"order to READY of {host}, one after another")
    live = len(set(answers))
    figure("load.hosts_live", live, "hosts", count, f"{tier}, one node process; each answered a call")
    figure("load.kib_per_idle_host", own / 1024, "KiB", count, f"memory that only this {tier} host has, after one call")
    figure("load.unload_p99_ms", _percentile(unloads, 99), "ms", count, f"order to reaped of {host}, idle")


async def kills(launcher: ZygoteLauncher, bundles: OneBundle, tier: str, *, standby: bool) -> None:
    """Kill the serving process again and again under load; from each kill to the first answer of another process."""
    seat.STEADY_SECONDS = STEADY
    logging.getLogger("hotswap.node").setLevel(logging.ERROR)  # each death is a warning, and meant
    node = _node(launcher, bundles, standby=(EVERY_PLUGIN,) if standby else ())
    router = Router("bench", node.routes, TOKEN, LIMIT)
    node.on_change(router.wake)
    port = await router.bind("127.0.0.1", 0)
    await router.serve()
    try:
        await node.stage(_order("echo", 1, "1.0.0"))
        callers = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "benchmarks.load_callers", str(port), TOKEN, "echo"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        assert callers.stdout is not None
        await callers.stdout.readline()
        killed: list[tuple[float, int]] = []
        for turn in range(KILLS):
            await _all_ready(node, 2 if standby else 1, turn)
            await asyncio.sleep(2 * STEADY)
            pid = node.hosts()[0].pid
            assert pid is not None
            killed.append((time.monotonic(), pid))
            os.kill(pid, signal.SIGKILL)
        await _all_ready(node, 2 if standby else 1, KILLS)
        await asyncio.sleep(2 * STEADY)
        said, _ = await callers.communicate(b"")
    finally:
        await router.close()
        await node.close()
    waits, failed = _waits([at for at, _ in killed], json.loads(said))
    name = "standby" if standby else "fresh"
    against = (
        f"{tier}, kill -9 under load to the first answer of another process, the worst (the median is "
        f"{_percentile(waits, 50):.1f}); {failed} calls had begun and failed"
    )
    figure(f"load.serving_again_ms_{name}", max(waits), "ms", KILLS, against)


def _waits(killed: Sequence[float], answers: Sequence[tuple[float, int, str]]) -> tuple[list[float], int]:
    """Milliseconds from each kill to the first good answer of a process that had not answered before it; and the failures."""
    waits = []
    answers = sorted(answers)
    for at in killed:
        before = {process for when, status, process in answers if status == 200 and when <= at}
        first = next(when for when, status, process in answers if status == 200 and when > at and process not in before)
        waits.append((first - at) * 1000)
    return waits, sum(status != 200 for _, status, _ in answers)


async def _all_ready(node: NodeSupervisor, processes: int, crashes: int) -> None:
    async with asyncio.timeout(LIMIT.total_seconds()):
        while True:
            hosts = node.hosts()
            ready = [host for host in hosts if host.state in ("Ready", "Standby")]
            if len(ready) == processes and sum(host.crashes for host in hosts) == crashes:
                return
            await asyncio.sleep(0.002)


def _node(launcher: ZygoteLauncher, bundles: OneBundle, standby: Sequence[str] = ()) -> NodeSupervisor:
    probe_every = timedelta(seconds=30)
    return NodeSupervisor("bench", launcher, bundles, FigureBook(), probe_every, standby=standby)  # type: ignore[arg-type]


def _order(plugin: str, generation: int, version: str | None) -> RouteOrder:
    ref = ArtifactRef(plugin=plugin, version=version, digest="0" * 64, size_bytes=1) if version else None
    return RouteOrder(plugin=plugin, generation=generation, state=RouteState(stable=ref))


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _available_mib() -> int:
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) // 1024


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # two a host
    uvloop.run(main())
