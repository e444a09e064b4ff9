"""Commands on how a plugin does: health, a check now, figures of a window."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from hotswap.cli.client import API, environment_name
from hotswap.cli.durations import iso_duration
from hotswap.cli.session import Session, command

PluginArgument = Annotated[str, typer.Argument(metavar="PLUGIN")]
Environment = Annotated[
    str | None, typer.Option("--environment", "-e", help="Only this one; default: all.", show_default=False)
]


def add_commands(group: typer.Typer) -> None:
    """Register every command of this module under `hotswap plugin`."""
    command(group, examples="hotswap plugin health invoice\nhotswap plugin health invoice -e production --check")(
        health
    )
    command(group, examples="hotswap plugin metrics invoice --window 1h -e production")(metrics)


async def health(
    session: Session,
    plugin: PluginArgument,
    environment: Environment = None,
    check: Annotated[bool, typer.Option("--check", help="Probe every version on every node now.")] = False,
) -> None:
    """How each version does on each node."""
    where = environment_name(environment) if environment else None
    path = f"{API}/plugins/{quote(plugin, safe='')}"
    async with session.api() as api:
        if check:
            body = {"environment": where} if where else {}
            seen = await api.call("POST", f"{path}/health-check", body=body, repeatable=True)
        else:
            seen = await api.call("GET", f"{path}/health", environment=where, limit=20)
    rows = [
        (
            one["environment"],
            one["nodeId"],
            one["version"],
            one["status"],
            f"{one['serving']}/{one['processes']}" if not check else f"{one['latencyMs']:.1f} ms",
            one["crashes"],
            one["lastError"],
        )
        for one in seen["versions"]
    ]
    columns = ("environment", "node", "version", "status", "probe" if check else "serving", "crashes", "last error")
    session.output.table(columns, rows, seen, "nothing of it is loaded on a node that answers")
    _note_silent(session, seen)


async def metrics(
    session: Session,
    plugin: PluginArgument,
    environment: Environment = None,
    window: Annotated[str, typer.Option("--window", "-w", help="How far back, at most 24h.")] = "5m",
) -> None:
    """Requests, errors and latencies of each version in a window of time."""
    query: dict[str, Any] = {
        "window": iso_duration(window, "--window"),
        "environment": environment_name(environment) if environment else None,
    }
    async with session.api() as api:
        seen = await api.call("GET", f"{API}/plugins/{quote(plugin, safe='')}/metrics", **query)
    rows = [
        (
            one["version"],
            one["requests"],
            f"{one['requestsPerSecond']:.1f}",
            "" if one["errorRate"] is None else f"{one['errorRate']:.2%}",
            *(_ms(one[name]) for name in ("p50Ms", "p95Ms", "p99Ms")),
            f"{one['memoryBytes'] / 1024 / 1024:.0f} MiB",
            "" if one["cpuPercent"] is None else f"{one['cpuPercent']:.0f} %",
        )
        for one in seen["versions"]
    ]
    columns = ("version", "requests", "per second", "errors", "p50", "p95", "p99", "memory", "cpu")
    session.output.table(columns, rows, seen, "no version was called or is loaded")
    _note_silent(session, seen)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms"


def _note_silent(session: Session, seen: dict[str, Any]) -> None:
    if seen["silent"]:
        session.output.note(f"did not answer: {', '.join(seen['silent'])}")
