"""`hotswap demo`: a plugin from a zip to live traffic, a killed worker, a bad version taken back, and the proof.

Neighbours: rollout watches deployments, traffic_process makes traffic, examples builds plugins, claims judges,
hotswap.embedded runs the servers. Every step is a function of its own, so that tests/e2e can tell other stories.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from hotswap.cli.client import ApiClient
from hotswap.cli.faults import CliError
from hotswap.cli.follow import Happening, Kind
from hotswap.demo.claims import Seen, judge
from hotswap.demo.examples import Example, build_examples, find_examples, push_all
from hotswap.demo.rollout import NotSo, Rollout, connection_of
from hotswap.demo.summary import address_lines, claim_lines, figure_lines, verdict_line
from hotswap.demo.traffic_process import TrafficProcess, TrafficStopped
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import HotSwapError
from hotswap.embedded.stack import EmbeddedStack
from hotswap.lifeline import die_with_parent

PLUGIN = "phone-format"
FIRST, SECOND, BAD = "1.0.0", "2.0.0", "2.1.0"
ENVIRONMENT = "Staging"
TENANTS = 200
RATE = 400.0
"""Requests a second in all: 120 for the first step's tenants in its 3 s, enough to judge, and little for four cores."""

STEPS = (10, 30, 50, 100)
CANARY: dict[str, Any] = {
    "steps": list(STEPS),
    "evaluationPeriod": "PT3S",
    "evaluationInterval": "PT1S",
    "drainGrace": "PT5S",
    "onInconclusive": "extend",
    # 5: with a worker killed and everything on one laptop, the slowest hundredth of 0.5 ms requests is the scheduler's.
    "thresholds": {"minSample": 40, "maxLatencyRatio": 5.0},
}
KILL_AT_WEIGHT = 30
MAX_MESSAGE = 140
AFTERGLOW = 1.5
"""Seconds of traffic after the rollback, to see that everybody is home."""


class Narrator:
    """Tells the story, each line with the seconds since it began."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str, style: str = "") -> None:
        line = Text(f"{self.elapsed:6.1f} s  ", style="dim")
        line.append(text, style=style or "none")
        self._console.print(line, soft_wrap=True)

    def chapter(self, text: str) -> None:
        self._console.print()
        self.say(text, "bold")

    def plain(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def event(self, rollout: Rollout, happening: Happening) -> None:
        """A listener for Rollout: every timeline event as a line."""
        match happening.kind:
            case Kind.TIMELINE:
                self.say(f"  · {_short(happening.data['message'])}", "cyan")
            case Kind.LOST:
                self.say(f"  · lost the api: {happening.data['why']}", "yellow")
            case Kind.BACK:
                self.say("  · the api is back", "yellow")
            case Kind.STATUS | Kind.END:
                pass

    async def traffic(self, traffic: TrafficProcess) -> None:
        """A line whenever the share of a version moved by five points or something broke; until cancelled."""
        told: tuple[Any, ...] = ()
        while True:
            tick = await traffic.seen(_beyond(traffic.latest["requests"]))
            served = sum(tick["versions"].values())
            shares = {version: 100 * count / served for version, count in sorted(tick["versions"].items())}
            mark = (tick["failed"], tick["broken"], *((version, round(share / 5)) for version, share in shares.items()))
            if shares and mark != told:
                told = mark
                told_shares = ", ".join(f"{version} {share:.0f} %" for version, share in shares.items())
                broken = f", {tick['broken']} broken by the plugin" if tick["broken"] else ""
                self.say(f"  ~ {tick['rate']} requests/s: {told_shares}; {tick['failed']} failed{broken}", "dim")


class _Aloud(logging.Handler):
    """What the stack logs as a warning, in the story's voice instead of on stderr."""

    def __init__(self, narrator: Narrator) -> None:
        super().__init__(logging.WARNING)
        self._narrator = narrator

    def emit(self, record: logging.LogRecord) -> None:
        self._narrator.say(f"  ! {record.getMessage()}", "yellow")


@dataclass
class Stage:
    """What the steps of the story share."""

    stack: EmbeddedStack
    narrator: Narrator
    admin: ApiClient
    approver: ApiClient
    plugin: str = PLUGIN
    environment: str = ENVIRONMENT

    def body(self, version: str, strategy: str, config: dict[str, Any], reason: str) -> dict[str, Any]:
        return {
            "pluginId": self.plugin,
            "version": version,
            "environment": self.environment,
            "strategy": strategy,
            "config": config,
            "reason": reason,
        }

    def traffic(self, example: Example) -> TrafficProcess:
        """Constant traffic to every node of the stack."""
        info = self.stack.info
        urls = [node["routerUrl"] for node in info["nodes"]]
        return TrafficProcess(urls, info["tenantToken"], self.plugin, example.payloads, TENANTS, RATE)


@contextlib.asynccontextmanager
async def running_stack(data_dir: Path, narrator: Narrator, nodes: int = 3) -> AsyncIterator[EmbeddedStack]:
    """The whole system on this machine; nothing of it is left afterwards."""
    stack = EmbeddedStack(data_dir, nodes, Environment(ENVIRONMENT), progress=lambda line: narrator.say(f"  {line}"))
    await stack.start()
    try:
        yield stack
    finally:
        await stack.stop()


async def deploy_first(stage: Stage, version: str) -> Rollout:
    """Version 1 by a Direct deployment, approved as the environment asks; returns it ended."""
    rollout = await Rollout.start(
        stage.admin, stage.body(version, "Direct", {"drainGrace": "PT5S"}, "the first version"), stage.narrator.event
    )
    async with rollout:
        await rollout.approve(stage.approver, "a first version has nobody to disturb")
        return await to_the_end(rollout)


async def to_the_end(rollout: Rollout) -> Rollout:
    """Wait for the end. Raises NotSo at once when it pauses: nobody is here to decide."""
    await rollout.until(lambda one: one.over or one.status == "Paused", "the end", 90)
    if rollout.status == "Paused":
        raise NotSo(f"it paused and waits for a person: {rollout.describe()}")
    return await rollout.until_over()


@dataclass(frozen=True)
class Resumed:
    """A worker was killed and replaced. `after`: seconds from the kill until its work was seen to go on."""

    old_pid: int
    new_pid: int
    after: float


async def kill_worker(stage: Stage, rollout: Rollout) -> Resumed:
    """SIGKILL, as the kernel's out-of-memory killer does it; waits until the deployment goes on."""
    killed_at = time.time()
    old = stage.stack.kill("worker")
    stage.narrator.say(f"  killed the worker (pid {old}) with SIGKILL", "bold red")
    seen_at = await rollout.until_progress_after(killed_at)
    async with asyncio.timeout(30):
        restart = await stage.stack.restarted("worker", old)
    resumed = Resumed(old, restart.new_pid, seen_at - killed_at)
    stage.narrator.say(
        f"  the rollout goes on after {resumed.after:.1f} s under worker pid {resumed.new_pid}", "bold green"
    )
    return resumed


async def canary_with_a_killed_worker(stage: Stage, version: str) -> tuple[Rollout, Resumed]:
    """The good version by canary; the worker dies while it watches the second step."""
    rollout = await Rollout.start(
        stage.admin, stage.body(version, "Canary", CANARY, "newer library underneath"), stage.narrator.event
    )
    async with rollout:
        await rollout.approve(stage.approver, "looks good")
        await rollout.until(lambda one: one.weight() >= KILL_AT_WEIGHT, f"{KILL_AT_WEIGHT} % of tenants", 60)
        resumed = await kill_worker(stage, rollout)
        return await to_the_end(rollout), resumed


async def deploy_the_bad_one(stage: Stage, version: str) -> Rollout:
    """The bad version by the same canary: the platform has to take it back by itself."""
    rollout = await Rollout.start(
        stage.admin, stage.body(version, "Canary", CANARY, "a hurried fix"), stage.narrator.event
    )
    async with rollout:
        await rollout.approve(stage.approver, "the tests were green")
        return await to_the_end(rollout)


async def tell(stage: Stage, examples: dict[str, Example]) -> Seen:
    """The story itself, on a running stack. Raises NotSo, CliError or TrafficStopped when it breaks off."""
    narrator = stage.narrator
    narrator.chapter(f"2. Build {PLUGIN} {FIRST}, {SECOND} and {BAD}, push them to the registry")
    await push_all(stage.admin, examples.values(), narrator.say)

    narrator.chapter(f"3. {FIRST} goes live directly")
    first = await deploy_first(stage, FIRST)

    narrator.chapter(f"4. {TENANTS} tenants call it, {RATE:.0f} requests a second")
    async with stage.traffic(examples[FIRST]) as traffic:
        tick = await traffic.seen(lambda tick: tick["ok"] >= RATE)
        narrator.say(f"  {tick['ok']} answered, {tick['failed']} failed")
        async with _aside(narrator.traffic(traffic)):
            narrator.chapter(
                f"5. {SECOND} by canary, {', '.join(map(str, STEPS))} % of tenants; the worker is killed on the way"
            )
            canary_began = time.time()
            second, resumed = await canary_with_a_killed_worker(stage, SECOND)

            narrator.chapter(f"6. {BAD} is bad, and nobody knows it yet")
            bad_began = time.time()
            bad = await deploy_the_bad_one(stage, BAD)
        await traffic.seen(_beyond(traffic.latest["requests"] + RATE * AFTERGLOW))
        report = await traffic.stop()
    return Seen(
        versions=(FIRST, SECOND, BAD),
        statuses=(first.status, second.status, bad.status),
        worker_pids=(resumed.old_pid, resumed.new_pid),
        resumed_after=resumed.after,
        canary_began=canary_began,
        bad_began=bad_began,
        bad_verdict_at=bad.verdict_at("Fail"),
        bad_rolled_back_at=bad.at("rolledBackAt"),
        first_step_percent=STEPS[0],
        traffic=report,
    )


@contextlib.asynccontextmanager
async def _aside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let `work` run beside the story until the block ends; whatever broke it, breaks the story."""
    task = asyncio.create_task(work)
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _beyond(requests: float) -> Callable[[dict[str, Any]], bool]:
    """Whether a tick of the traffic counts more than so many requests."""
    return lambda tick: bool(tick["requests"] > requests)


def _short(message: str) -> str:
    """A message of the timeline that fits on two lines of a terminal; the whole of it is in the api."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


async def play(data_dir: Path, narrator: Narrator, keep: bool, examples: Path, judged: Callable[[bool], None]) -> None:
    """Start everything, tell the story, print the summary, stop everything. `judged` hears whether every claim held."""
    narrator.chapter(f"1. Start the stack: real servers, three nodes of {ENVIRONMENT}, everything on loopback")
    building = asyncio.create_task(
        asyncio.to_thread(build_examples, examples, data_dir / "zips", PLUGIN, (FIRST, SECOND, BAD))
    )
    try:
        async with running_stack(data_dir, narrator) as stack:
            info = stack.info
            async with (
                ApiClient(connection_of(info, "admin")) as admin,
                ApiClient(connection_of(info, "approver")) as approver,
            ):
                began = narrator.elapsed
                seen = await tell(Stage(stack, narrator, admin, approver), await building)
            judged(_summarise(narrator, seen, narrator.elapsed - began))
            if keep:
                for line in address_lines(stack.info, ENVIRONMENT, PLUGIN):
                    narrator.plain(line)
                narrator.plain()
                narrator.plain(f"up until Ctrl-C; in another terminal: HOTSWAP_HOME={data_dir} hotswap list", "bold")
                await asyncio.Event().wait()
    finally:
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)


def _summarise(narrator: Narrator, seen: Seen, took: float) -> bool:
    claims = judge(seen)
    held = all(claim.ok for claim in claims)
    narrator.chapter("Summary")
    for line, claim in zip(claim_lines(claims), claims, strict=True):
        narrator.plain(line, "green" if claim.ok else "bold red")
    narrator.plain(verdict_line(claims), "bold green" if held else "bold red")
    narrator.plain()
    for line in figure_lines(seen, took):
        narrator.plain(line)
    for sample in seen.traffic.failure_samples[:5]:
        narrator.plain(f"failure: {sample}", "red")
    narrator.plain()
    return held


def run_demo(data_dir: Path | None = None, keep: bool | None = None, examples_dir: Path | None = None) -> int:
    """The whole demo; the exit code: 0 = every claim held, 1 = one did not or it broke off, 130 = Ctrl-C in the middle,
    143 and 129 = SIGTERM and SIGHUP.

    A second Ctrl-C kills everything at once. `keep` None: stay up on a terminal. Without `data_dir` everything lives in a
    temporary directory, removed when the story went well or was stopped.
    """
    die_with_parent()
    narrator = Narrator()
    logging.getLogger("hotswap").addHandler(_Aloud(narrator))
    stay = sys.stdout.isatty() if keep is None else keep
    root = data_dir.absolute() if data_dir else Path(tempfile.mkdtemp(prefix="hotswap-demo-"))
    held: list[bool] = []
    stopped_by = signal.SIGINT
    stopping = False

    def stop(main: "asyncio.Task[Any]", how: signal.Signals) -> None:
        nonlocal stopping, stopped_by
        if stopping:
            narrator.say(f"killed; logs and data stay in {root}")
            # The children are tied to this process; what they still write keeps the folder from being removed.
            os._exit(128 + how)
        stopping, stopped_by = True, how
        main.cancel()

    async def whole() -> None:
        main = asyncio.current_task()
        assert main is not None
        for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(caught, stop, main, caught)
        await play(root, narrator, stay, find_examples(examples_dir), held.append)

    code = 1
    try:
        asyncio.run(whole())
    except (HotSwapError, CliError) as fault:
        narrator.say(f"FAILED {fault.message}", "bold red")
    except (NotSo, TrafficStopped, TimeoutError) as fault:
        narrator.say(f"FAILED {fault or 'something took too long'}", "bold red")
    except (KeyboardInterrupt, asyncio.CancelledError):
        narrator.say("stopped")
        code = 128 + stopped_by
    if held:
        code = 0 if all(held) else 1
    if data_dir is None and code != 1:
        # Everything has ended: one more Ctrl-C would only leave the folder.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        shutil.rmtree(root)
        narrator.say(f"everything has ended, {root} is removed")
    elif data_dir is None and not any(root.iterdir()):
        root.rmdir()  # it broke off before anything was started
    elif root.exists():
        narrator.plain(f"logs and data: {root}")
    return code
