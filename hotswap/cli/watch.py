"""Shows a rollout until it ends and turns its outcome into the exit code. Neighbours: follow (what happens), render (how it looks)."""

from collections import deque
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live

from hotswap.cli.client import ApiClient
from hotswap.cli.faults import OTHER
from hotswap.cli.follow import Happening, Kind, follow
from hotswap.cli.output import Output, clean, clock
from hotswap.cli.render import commands_for, deployment_tree, short_id, status_line

EXIT_OF_STATUS = {
    "Completed": 0,
    "RolledBack": 10,
    "Aborted": 11,
    "Rejected": 12,
    "Superseded": 13,
    "Failed": 14,
}
"""Exit code of a watched deployment, by its terminal status."""

TIMELINE_LINES = 8

FULL_HEIGHT = 45
"""Rows from which the tree of three nodes fits with every host and every metric."""

COMPACT_LINES = 18
"""Rows that a compact tree of three nodes takes besides its timeline."""


class _Screen:
    """The live tree: drawn anew, with the present time, at every refresh."""

    def __init__(self) -> None:
        self.deployment: dict[str, Any] = {}
        self.timeline: deque[dict[str, Any]] = deque(maxlen=TIMELINE_LINES)
        self.notice = ""

    def take(self, happening: Happening) -> None:
        match happening.kind:
            case Kind.TIMELINE:
                self.timeline.append(happening.data)
            case Kind.STATUS:
                self.deployment = happening.data
            case Kind.LOST:
                self.notice = f"lost the api ({happening.data['why']}); the rollout goes on, trying to reconnect"
            case Kind.BACK:
                self.notice = ""
            case Kind.END:
                pass

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = min(max(console.size.height - COMPACT_LINES, 2), TIMELINE_LINES)
        timeline = list(self.timeline)[-lines:]
        yield deployment_tree(self.deployment, timeline, self.notice, compact=console.size.height < FULL_HEIGHT)

    def whole(self) -> RenderableType:
        """Everything, for the last look: what does not fit scrolls."""
        return deployment_tree(self.deployment, list(self.timeline), self.notice)


class _Lines:
    """Timestamped lines for a log: each timeline event, and the status whenever something in it changed."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last: tuple[Any, ...] = ()
        self.deployment: dict[str, Any] = {}

    def take(self, happening: Happening) -> None:
        now = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
        match happening.kind:
            case Kind.TIMELINE:
                data = happening.data
                self._output.line(f"{clock(data.get('at'))} {clean(data.get('kind'))}: {clean(data.get('message'))}")
            case Kind.STATUS:
                self.deployment = happening.data
                mark = _mark(happening.data)
                if mark != self._last:
                    self._last = mark
                    self._output.line(f"{now} now: {status_line(happening.data)}")
                    for command in commands_for(happening.data):
                        self._output.line(f"{now} you can: {command}")
            case Kind.LOST:
                self._output.line(f"{now} lost the api ({happening.data['why']}); the rollout goes on, reconnecting")
            case Kind.BACK:
                self._output.line(f"{now} the api is back")
            case Kind.END:
                pass


def _mark(deployment: dict[str, Any]) -> tuple[Any, ...]:
    """What a new status line is worth printing for."""
    verdict = deployment.get("verdict") or {}
    names = ("status", "stepNumber", "setWeightPercent", "waitingFor", "outcomeReason")
    return (*(deployment.get(name) for name in names), verdict.get("outcome"))


async def watch(api: ApiClient, deployment_id: str, output: Output) -> int:
    """Show the deployment until it ends; returns the exit code of its outcome.

    With --json one JSON object a line: {"event": "timeline" | "status" | "lost" | "back" | "end", "data": {...}}.
    """
    if output.as_json:
        status = ""
        async with aclosing(follow(api, deployment_id)) as happenings:
            async for happening in happenings:
                output.document({"event": str(happening.kind), "data": happening.data}, indent=None)
                status = str(happening.data.get("status", status))
        return EXIT_OF_STATUS.get(status, OTHER)
    if not output.live:
        lines = _Lines(output)
        return await _drive(api, deployment_id, lines)
    screen = _Screen()
    screen.deployment = await api.deployment(deployment_id)
    try:
        with Live(screen, console=output.console, refresh_per_second=4, vertical_overflow="crop", transient=True):
            return await _drive(api, deployment_id, screen)
    finally:
        output.console.print(screen.whole())


async def _drive(api: ApiClient, deployment_id: str, shown: "_Screen | _Lines") -> int:
    status = ""
    async with aclosing(follow(api, deployment_id)) as happenings:
        async for happening in happenings:
            shown.take(happening)
            if happening.kind in (Kind.STATUS, Kind.END):
                status = str(happening.data.get("status", status))
    return EXIT_OF_STATUS.get(status, OTHER)


def how_to_return(deployment_id: str) -> str:
    """What to tell a person who stops watching."""
    return f"the rollout goes on without you; come back with: hotswap status {short_id(deployment_id)} --watch"
