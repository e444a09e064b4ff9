"""The whole experiment: lanes deploy, traffic flows, parts die, everything is checked, a table tells. See __main__ for use."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

from hotswap import temporal
from hotswap.embedded.parts import Restart
from tests.chaos.checks import check_end
from tests.chaos.injector import Injection, Injector
from tests.chaos.lane import Lane, Run, new_lane
from tests.chaos.scenarios import Scenario, draw
from tests.chaos.watched import WatchedTraffic
from tests.e2e.live import Live

SETTLE = 2.0
"""Seconds of traffic after the last kill: what it broke must show."""


@dataclass
class Report:
    """What was done and what was wrong. `passed` is the verdict."""

    seed: int
    asked: int
    seconds: float = 0.0
    runs: list[Run] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    requests: int = 0
    in_doubt: Counter[str] = field(default_factory=Counter)
    restarts: list[Restart] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.all_faults() and len(self.runs) > 0

    def all_faults(self) -> list[str]:
        of_runs = [
            f"{run.plugin} {run.id} {run.scenario.describe()} {run.before} -> {run.after} {run.status}: {fault}"
            for run in self.runs
            for fault in run.faults
        ]
        return of_runs + self.faults

    def table(self) -> str:
        """For a person: what ran, what was killed, what traffic saw, every fault."""
        lines = [
            f"seed {self.seed}: {len(self.runs)} deployments ({self.asked} asked for), {len(self.injections)} kills, "
            f"{self.requests} requests in {self.seconds:.0f} s",
            "",
            *_rows("strategy", self._by_strategy()),
            "",
            *_rows("killed", self._by_part()),
            "",
            f"requests in doubt on a killed node: {self.in_doubt.total()}{_named(self.in_doubt)}",
        ]
        faults = self.all_faults()
        lines += [f"faults: {len(faults)}", *(f"  {fault}" for fault in faults)]
        lines += [f"  restart of {one.part} failed once: {reason}" for one in self.restarts for reason in one.failed]
        return "\n".join(lines)

    def _by_strategy(self) -> dict[str, str]:
        rows = {}
        for strategy in sorted({run.scenario.strategy for run in self.runs}):
            runs = [run for run in self.runs if run.scenario.strategy == strategy]
            ends = Counter(run.status for run in runs)
            took = [run.seconds for run in runs]
            ended = ", ".join(f"{count} {status}" for status, count in sorted(ends.items()))
            rows[strategy] = f"{len(runs):4}   {ended}; {median(took):.1f} s median, {max(took):.1f} s longest"
        return rows

    def _by_part(self) -> dict[str, str]:
        rows = {}
        for part in sorted({one.part for one in self.injections}):
            downs = [one.down for one in self.injections if one.part == part and one.down is not None]
            rows[part] = (
                f"{len(downs):4}   back after {median(downs):.1f} s median, {max(downs):.1f} s longest" if downs else ""
            )
        return rows


def _named(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in sorted(counts.items()))})" if counts else ""


def _rows(title: str, rows: dict[str, str]) -> list[str]:
    return [f"{title:<12}times", *(f"{name:<12} {text}" for name, text in rows.items())]


async def run_chaos(
    live: Live,
    seed: int,
    deployments: int,
    lanes: int = 5,
    gap: tuple[float, float] = (0.3, 2.5),
    rate: float = 25.0,
    deadline: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """`deployments` runs over `lanes` plugins; no new one begins after `deadline` seconds. `rate` is requests/s a plugin."""
    choose = random.Random(seed)
    report = Report(seed, deployments)
    scenarios = deque(draw(choose, deployments))
    began, restarts = time.monotonic(), len(live.stack.restart_events)
    made = await asyncio.gather(*(new_lane(live) for _ in range(lanes)))
    injector = Injector(live.stack, random.Random(choose.random()), gap)
    async with AsyncExitStack() as open_traffic:
        traffic = [await _flowing(open_traffic, live, lane, rate) for lane in made]
        killing = asyncio.create_task(injector.run(), name="injector")
        try:
            late = None if deadline is None else began + deadline
            await asyncio.gather(*(work(lane, scenarios, report, late, say) for lane in made))
        finally:
            killing.cancel()
            ended = (await asyncio.gather(killing, return_exceptions=True))[0]
        if not isinstance(ended, asyncio.CancelledError):
            report.faults.append(f"the injector ended by itself: {ended!r}")
        await _whole_again(injector)
        await asyncio.sleep(SETTLE)
    client = await temporal.connect(live.settings.temporal)
    report.faults += injector.lost + await check_end(live, client, made)
    report.restarts = live.stack.restart_events[restarts:]
    report.faults += deaths_of_their_own(report.restarts, injector.injections)
    report.injections = injector.injections
    for one in traffic:
        report.requests += one.report.requests
        report.in_doubt += one.in_doubt(injector.injections)
        report.faults += one.faults(injector.injections)
    report.seconds = time.monotonic() - began
    return report


def deaths_of_their_own(restarts: Sequence[Restart], injections: Sequence[Injection]) -> list[str]:
    """Of every part that ended though nobody killed it."""
    killed = {(one.part, one.pid) for one in injections}
    return [
        f"{one.part} (pid {one.old_pid}) ended by itself with code {one.exit_code} and was back at {one.at.timestamp():.3f}"
        for one in restarts
        if (one.part, one.old_pid) not in killed
    ]


async def _flowing(open_traffic: AsyncExitStack, live: Live, lane: Lane, rate: float) -> WatchedTraffic:
    traffic = WatchedTraffic(live.stack.info, lane.plugin, rate)
    await traffic.start()
    open_traffic.push_async_callback(traffic.stop)
    return traffic


async def work(
    lane: Lane, scenarios: deque[Scenario], report: Report, late: float | None, say: Callable[[str], None]
) -> None:
    """Deploy one scenario after the other; none begins after `late`, by the monotonic clock."""
    while scenarios and (late is None or time.monotonic() < late):
        for run in await lane.deploy(scenarios.popleft()):
            report.runs.append(run)
            wrong = f"  WRONG: {'; '.join(run.faults)}" if run.faults else ""
            say(
                f"{len(report.runs):4} {run.plugin} {run.scenario.describe():<28} {run.before} -> {run.after}  "
                f"{run.status} in {run.seconds:.1f} s{wrong}"
            )
            if not run.over:
                return  # lost: this plugin's next deployment could only be refused


async def _whole_again(injector: Injector) -> None:
    """Cancelled between a kill and the return: await what is still away."""
    async with asyncio.timeout(60):
        for injection in injector.injections:
            while injection.down is None and not any(injection.part in lost for lost in injector.lost):
                restarts = [one for one in injector.stack.restart_events if one.part == injection.part]
                later = [one for one in restarts if one.at.timestamp() > injection.at]
                if later:
                    injection.came_back(later[0])
                await asyncio.sleep(0.1)
