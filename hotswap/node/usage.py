"""How much CPU the plugin's processes use at this moment: two looks at /proc, a little apart. For hotswap.node.admin."""

import asyncio
import os
from pathlib import Path
from time import monotonic

from hotswap.node.supervisor import NodeSupervisor
from hotswap.ports.health import NodeUsage, VersionUsage

APART_SECONDS = 0.5
"""The kernel counts in ticks of 10 ms, so a figure is right to 2 percent of a core; nodes have 2 s to answer."""

_TICKS = os.sysconf("SC_CLK_TCK")


async def usage(supervisor: NodeSupervisor, plugin: str) -> NodeUsage:
    """In percent of one core, by version; what began or ended between the looks is left out."""
    pids = {host.pid: host.version for host in supervisor.hosts() if host.plugin == plugin and host.pid is not None}
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


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process, its threads included; None when there is none (proc(5): stat, 14 and 15)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return (int(fields[11]) + int(fields[12])) / _TICKS
