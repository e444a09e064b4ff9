"""`python -m tests.chaos.soak [--seconds 600]`: deployments, kills and traffic without a pause; nothing may grow.

One node is killed again and again, one is replaced while it serves, hosts are killed on the others. The rest lives through
the whole run and is measured: processes, descriptors, memory, files. Ends with a table; exit code 1 when something grew or
anything was wrong, by name. What the servers keep by design (rows, histories, artifacts) and their memory are not judged.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hotswap import temporal
from hotswap.domain.deployment import Environment
from hotswap.embedded.data_dir import StackError
from hotswap.embedded.stack import EmbeddedStack
from hotswap.runtime.process_memory import own_memory
from tests.chaos import growth
from tests.chaos.checks import check_end
from tests.chaos.growth import DESCRIPTORS, ENTRIES, HEADER, MEMORY, PROCESSES, Finding, Kind, Series
from tests.chaos.injector import RETURN_WITHIN, Injection
from tests.chaos.lane import Run, new_lane
from tests.chaos.run import SETTLE, Report, work
from tests.chaos.scenarios import draw
from tests.chaos.watched import FailedRequest, WatchedTraffic
from tests.e2e.live import Live, live_settings

KILLED, REPLACED = "node-3", "node-2"
LASTING = ("api", "worker", "node-1", "temporal", "postgres", "valkey", "seaweedfs")
OURS = ("api", "worker", "node-1")
"""Whose memory is judged: what the servers keep grows with what was deployed."""

SAMPLES = 150
HOST_RESTS = 12.0
"""Seconds between two kills of one version's host on one node: it is restarted at once when it has lived for 10."""


class Measure:
    """Reads /proc and the stack's directories at even intervals."""

    def __init__(self, stack: EmbeddedStack, folders: dict[str, Path]) -> None:
        self._stack = stack
        self._folders = folders
        self._pids = {name: stack.pid(name) for name in LASTING}
        self._zygote = min(_children(self._pids["node-1"]))
        self.of_traffic: Callable[[], int] = lambda: 0
        """Connections of the clients in this process: as many as were ever busy at once, which is the machine's doing."""
        self._series: dict[tuple[str, Kind], Series] = {}
        self._began = time.monotonic()

    async def run(self, every: float) -> None:
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(every)

    def _look(self) -> None:
        family = _descendants(os.getpid())
        self._note("all processes", PROCESSES, len(family))
        self._note("soak and supervisor", DESCRIPTORS, _descriptors(os.getpid()) - self.of_traffic())
        for name, pid in {**self._pids, "node-1 zygote": self._zygote}.items():
            self._note(name, DESCRIPTORS, _descriptors(pid))
        for name in OURS:
            self._note(name, MEMORY, own_memory(self._pids[name]))
        self._note("node-1 zygote", MEMORY, own_memory(self._zygote))
        for name, folder in self._folders.items():
            self._note(name, ENTRIES, sum(len(names) + len(files) for _, names, files in os.walk(folder)))

    def _note(self, name: str, kind: Kind, value: float) -> None:
        series = self._series.setdefault((name, kind), Series(name, kind))
        series.add(time.monotonic() - self._began, value)

    def findings(self) -> list[Finding]:
        return [growth.judge(series) for series in self._series.values()]

    def gone(self) -> list[str]:
        """What should have lived through the run and did not."""
        return [f"{name} died or was restarted" for name, pid in self._pids.items() if self._stack.pid(name) != pid]


def _children(pid: int) -> list[int]:
    found = []
    for task in Path("/proc", str(pid), "task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text("ascii").split()]
        except OSError:
            continue  # the thread, or the process, has ended
    return found


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    return [*found, *(below for child in found for below in _descendants(child))]


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path("/proc", str(pid), "fd").iterdir())


class SoakTraffic(WatchedTraffic):
    """Knows of killed hosts too: what one was working on fails once, and its client is told."""

    host_kills: Sequence[Injection] = ()

    def _stranded_on(self, failure: FailedRequest, injections: Sequence[Injection]) -> str:
        if failure.code == "HOST_FAILED":
            node = next((name for url, name in self._node_of.items() if failure.text.startswith(f"{url} ")), "")
            return node if any(kill.explains(node, failure.at, 1.0) for kill in self.host_kills) else ""
        return super()._stranded_on(failure, injections)


@dataclass
class Disorder:
    """Kills a node, replaces a node, kills hosts of the bystander, one after the other."""

    live: Live
    bystander: str
    choose: random.Random
    node_kills: list[Injection] = field(default_factory=list)
    host_kills: list[Injection] = field(default_factory=list)
    replaced: int = 0
    faults: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end after what is being done: everything serves then."""

    async def run(self) -> None:
        turn = 0
        while not self.over.is_set():
            await asyncio.sleep(self.choose.uniform(1.0, 3.0))
            await self._kill_hosts()
            await (self._replace_node() if turn % 2 else self._kill_node())
            turn += 1

    async def _kill_node(self) -> None:
        stack, kill = self.live.stack, Injection(KILLED, time.time())
        pid = stack.kill(KILLED)
        self.node_kills.append(kill)
        try:
            async with asyncio.timeout(RETURN_WITHIN):
                kill.came_back(await stack.restarted(KILLED, pid))
        except TimeoutError:
            self.faults.append(f"{KILLED} was killed and did not serve again within {RETURN_WITHIN:.0f} s")

    async def _replace_node(self) -> None:
        try:
            async with asyncio.timeout(RETURN_WITHIN):
                before = await self.live.stack.replace_node(REPLACED)
                code = await before.wait()
        except (StackError, TimeoutError) as fault:
            self.faults.append(f"{REPLACED} was not replaced: {fault}")
        else:
            self.replaced += 1
            if code:
                self.faults.append(f"{REPLACED} was replaced, and the process before ended with code {code}")

    async def _kill_hosts(self) -> None:
        for node in await self.live.node_figures(self.bystander):
            last = max((kill.at for kill in self.host_kills if kill.part == node.node_id), default=0.0)
            pids = [host.pid for host in node.hosts if host.pid and host.state == "Ready"]
            if node.node_id in ("node-1", REPLACED) and pids and time.time() - last > HOST_RESTS:
                self.host_kills.append(Injection(node.node_id, time.time()))
                os.kill(self.choose.choice(pids), signal.SIGKILL)


@dataclass
class Outcome:
    runs: list[Run]
    requests: int
    disorder: Disorder
    findings: list[Finding]
    faults: list[str]

    def table(self) -> str:
        disorder = self.disorder
        return "\n".join(
            [
                f"{len(self.runs)} deployments, {self.requests} requests, {len(disorder.node_kills)} kills of {KILLED}, "
                f"{len(disorder.host_kills)} of hosts, {disorder.replaced} replacements of {REPLACED}",
                "",
                HEADER,
                *(finding.row() for finding in self.findings),
                "",
                f"faults: {len(self.faults)}",
                *(f"  {fault}" for fault in self.faults),
            ]
        )


async def soak(
    live: Live, measure: Measure, seed: int, seconds: float, lanes: int, rate: float, say: Callable[[str], None]
) -> Outcome:
    """Deploy on every lane, kill and replace, all the time; then let everything come to rest and judge."""
    choose = random.Random(seed)
    report = Report(seed, 0)
    bystander = await live.new_plugin("1.0.0")
    await live.deploy(bystander, "1.0.0")
    made = await asyncio.gather(*(new_lane(live) for _ in range(lanes)))
    scenarios = deque(draw(choose, int(seconds) * lanes))
    disorder = Disorder(live, bystander, random.Random(choose.random()))
    began = time.monotonic()
    async with AsyncExitStack() as open_traffic:
        traffic = []
        for plugin in (bystander, *(lane.plugin for lane in made)):
            flowing = SoakTraffic(live.stack.info, plugin, rate)
            await flowing.start()
            open_traffic.push_async_callback(flowing.stop)
            traffic.append(flowing)
        measure.of_traffic = lambda: sum(one.connections for one in traffic)
        tasks = [asyncio.create_task(disorder.run()), asyncio.create_task(measure.run(seconds / SAMPLES))]
        try:
            await asyncio.gather(*(work(lane, scenarios, report, began + seconds, say) for lane in made))
        finally:
            disorder.over.set()
            await asyncio.gather(tasks[0])
            tasks[1].cancel()
            await asyncio.gather(tasks[1], return_exceptions=True)
        await asyncio.sleep(SETTLE)
    faults = report.all_faults() + disorder.faults + measure.gone()
    client = await temporal.connect(live.settings.temporal)
    faults += await check_end(live, client, made)
    for one in traffic:
        one.host_kills = disorder.host_kills
        faults += one.faults(disorder.node_kills)
    findings = measure.findings()
    faults += [f"{one.name}: {one.unit} grew from {one.first:.1f} to {one.last:.1f}" for one in findings if one.grew]
    return Outcome(report.runs, sum(one.report.requests for one in traffic), disorder, findings, faults)


async def _run(options: argparse.Namespace, scratch: Path) -> Outcome:
    temporary = scratch / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = str(temporary)  # of every part: what they leave there counts
    stack = EmbeddedStack(scratch / "stack", nodes=3, environment=Environment.DEVELOPMENT, progress=lambda line: None)
    await stack.start()
    try:
        settings = live_settings(stack, os.environ.__setitem__)
        folders = {f"{name}/": scratch / "stack" / name for name in ("nodes", "work", "run")}
        measure = Measure(stack, {**folders, "temporary files": temporary})
        async with Live(stack, scratch, settings) as live:
            return await soak(
                live,
                measure,
                options.seed,
                options.seconds,
                options.lanes,
                options.rate,
                lambda line: print(line, flush=True),
            )
    finally:
        await stack.stop()


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.chaos.soak", description="24 hours in ten minutes: what grows?")
    parser.add_argument("--seconds", type=float, default=growth.DAY, help="under 300, memory is not settled enough")
    parser.add_argument("--lanes", type=int, default=4, help="plugins deployed at the same time")
    parser.add_argument("--rate", type=float, default=25.0, help="requests a second for each plugin")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    scratch = Path(tempfile.mkdtemp(prefix="hotswap-soak-"))
    began = time.monotonic()
    try:
        outcome = asyncio.run(_run(options, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    left = _descendants(os.getpid())
    outcome.faults += [f"process {pid} outlived the stack" for pid in left]
    word = "FAILED" if outcome.faults or not outcome.runs else "PASSED"
    print(f"\n{outcome.table()}\n\n{word} after {time.monotonic() - began:.0f} s")
    return 0 if word == "PASSED" else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a Temporal client was used: an ordinary exit may abort (sdk-python #300)
