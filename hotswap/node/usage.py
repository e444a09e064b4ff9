"""How much CPU the plugins' processes use, by two looks at /proc: a little apart, or from scrape to scrape.

For hotswap.node.admin and hotswap.node.metrics.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic

from hotswap.node.supervisor import NodeSupervisor
from hotswap.ports.health import NodeUsage, VersionUsage

APART_SECONDS = 0.5
"""The kernel counts in ticks of 10 ms, so a figure is right to 2 percent of a core; nodes have 2 s to answer."""

_TICKS = os.sysconf("SC_CLK_TCK")


async def usage(supervisor: NodeSupervisor, plugin: str) -> NodeUsage:
    """In percent of one core, by version; what began or ended between the looks is left out."""
    pids = {host.pid: host.version for host in supervisor.hosts(plugin) if host.pid is not None}
    began, before = monotonic(), {pid: cpu_seconds(pid) for pid in pids}
    await asyncio.sleep(APART_SECONDS)
    seconds = monotonic() - began
    used: dict[str, float] = {}
    for pid, version in pids.items():
        first, now = before[pid], cpu_seconds(pid)
        if first is not None and now is not None and now >= first:
            used[version] = used.get(version, 0.0) + (now - first) / seconds * 100
    return NodeUsage(
        node_id=supervisor.node_id,
        versions=tuple(VersionUsage(version=one, cpu_percent=round(used[one], 1)) for one in sorted(used)),
    )


class CpuShares:
    """Shares since the look before, process by process. One for each reader: two would shorten each other's stretch."""

    def __init__(
        self, clock: Callable[[], float] = monotonic, read: Callable[[int], float | None] | None = None
    ) -> None:
        self._clock = clock
        self._read = read or cpu_seconds
        self._before: dict[int, tuple[float, float]] = {}
        self._now: dict[int, tuple[float, float]] = {}

    def of(self, pids: Iterable[int]) -> float:
        """Percent of one core that these processes used together; one that was not there before counts from now on."""
        percent = 0.0
        for pid in pids:
            seconds = self._read(pid)
            if seconds is None:
                continue
            at = self._clock()
            self._now[pid] = (at, seconds)
            then, used = self._before.get(pid, (at, seconds))
            if at > then and seconds >= used:  # less: another process of the same number
                percent += (seconds - used) / (at - then) * 100
        return round(percent, 1)

    def forget_others(self) -> None:
        """The look is over: what it did not meet has ended."""
        self._before, self._now = self._now, {}


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process, its threads included; None when there is none (proc(5): stat, 14 and 15)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return (int(fields[11]) + int(fields[12])) / _TICKS
