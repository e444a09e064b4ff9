"""What serving through an isolated process costs: router + sandboxed host against the same function called in process.

The floor (benchmarks.floor) and the node's router live in this one process and loop, on core 0; the plugin host is on core
1 and the load generator on core 2. Rounds alternate, ratios are medians of pairs, so that a busy machine bends both sides.
With two cores the generator shares the host's, which then is full before the router's: there the ratio at saturation of
the router's core is that of this process's CPU time for a request (what a saturated core can serve is its inverse), and
`invoke.rate_ratio_to_floor` is what was served. Beside it what else people run (benchmarks.rivals).
Run: make bench NAME=invoke. ROUTERS=N in the environment: N router processes (ADR 23), each on a core of its own while
there are some, against the same floor of one core; it takes a core for each, the host and the load to mean anything.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.data_plane import BODY, TOKEN, DataPlane, cpu_seconds, data_plane, pin, tier
from benchmarks.figures import figure
from benchmarks.floor import serve_floor
from benchmarks.hammer import Group, hammer, percentile, request
from benchmarks.rivals import Yardstick, measure_rivals
from tests.integration.node_bench import order

PAIRS = 7
SECONDS = 2.0
CONNECTIONS = 64

ROUTER_CORE = 0
CORES = os.cpu_count() or 1
OTHER_CORE = min(1, CORES - 1)
LOAD_CORE = min(2, CORES - 1)
BY_CPU = CORES <= 2
ROUTERS = int(os.environ.get("ROUTERS", "1"))
ROUTER = "router" if ROUTERS == 1 else f"{ROUTERS} routers on as many cores"
SETTING = f"{ROUTER} and floor on core {ROUTER_CORE}, host ({tier()}) on core {OTHER_CORE}, load generator on core {LOAD_CORE}"


async def echo(parameters: dict[str, Any], context: Any) -> Any:
    """What the plugin's own `echo` does (tests.integration.node_bench)."""
    return {"version": "1.0.0", "tenant": "acme", "echo": parameters}


async def main() -> None:
    pin(0, ROUTER_CORE)
    floor = await serve_floor(echo)
    floor_port = floor.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        async with data_plane(Path(scratch), routers=ROUTERS) as plane:
            report = await plane.supervisor.stage(order(1, await plane.version("1.0.0")))
            host_pid = report.hosts[0].pid
            assert host_pid
            pin(host_pid, OTHER_CORE)
            if ROUTERS > 1:
                for number, pid in enumerate(plane.router_pids()):
                    pin(pid, number % CORES)
            await measure(floor_port, plane)
        by = Yardstick(lambda: saturate(floor_port), BY_CPU, ROUTER_CORE, LOAD_CORE)
        await measure_rivals(Path(scratch), by)
    floor.close()


async def measure(floor_port: int, plane: DataPlane) -> None:
    router_port = plane.port
    for port in (floor_port, router_port):  # warm-up: caches, allocator, the adaptive interpreter
        await saturate(port, 0.5)
    ratios, by_cpu, rates = [], [], []
    for _ in range(PAIRS):
        floor_rate, floor_cpu = await saturate(floor_port)
        rate, cpu = await saturate(router_port, pids=plane.router_pids())
        ratios.append(rate / floor_rate)
        by_cpu.append(floor_cpu / cpu)
        rates.append(rate)
    against = f"raw uvloop server, function in process; {CONNECTIONS} connections, {SETTING}"
    rate_ratio, cpu_ratio = statistics.median(ratios), statistics.median(by_cpu)
    if BY_CPU:
        figure("invoke.ratio_to_floor", cpu_ratio, "ratio", PAIRS, f"by CPU time of the router's core: {against}")
    else:
        figure("invoke.ratio_to_floor", rate_ratio, "ratio", PAIRS, against)
    figure("invoke.rate_ratio_to_floor", rate_ratio, "ratio", PAIRS, f"requests served: {against}")
    figure("invoke.requests_per_second", statistics.median(rates), "1/s", PAIRS, "")
    added = []
    for _ in range(PAIRS):
        alone = [await latency(port) for port in (floor_port, router_port)]
        added.append((alone[1] - alone[0]) * 1e6)
    figure(
        "invoke.added_p50_us", statistics.median(added), "us", PAIRS, f"p50 over the floor's, 1 connection; {SETTING}"
    )
    half = statistics.median(rates) / 2
    group = Group("half", router_port, ask(), CONNECTIONS, half)
    seen = (await hammer([group], SECONDS * 3, LOAD_CORE))["half"]
    late = seen.latencies()
    figure(
        "invoke.p99_ms_at_half_load", percentile(late, 0.99) * 1e3, "ms", len(late), f"{half:.0f} requests/s; {SETTING}"
    )
    if seen.statuses().keys() != {200}:
        sys.exit(f"not all requests were answered: {seen.statuses()} {seen.faults}")


def ask() -> bytes:
    return request("/invoke/acme/invoice/echo", TOKEN, BODY)


async def saturate(port: int, seconds: float = SECONDS, pids: Sequence[int] = (0,)) -> tuple[float, float]:
    """Requests a second, and the CPU seconds for each of these processes together; 0 = this one."""
    used = sum(cpu_seconds(pid or os.getpid()) for pid in pids)
    seen = (await hammer([Group("all", port, ask(), CONNECTIONS)], seconds, LOAD_CORE))["all"]
    used = sum(cpu_seconds(pid or os.getpid()) for pid in pids) - used
    if seen.statuses().keys() != {200}:
        sys.exit(f"not all requests were answered: {seen.statuses()} {seen.faults}")
    span = max(b + t for b, t in zip(seen.began, seen.took, strict=True)) - seen.began[0]
    return len(seen.took) / span, used / len(seen.took)


async def latency(port: int) -> float:
    """The p50 in seconds of one connection's requests, one after the other."""
    seen = (await hammer([Group("one", port, ask(), 1)], SECONDS / 2, LOAD_CORE))["one"]
    return percentile(seen.latencies(), 0.5)


if __name__ == "__main__":
    uvloop.run(main())
