"""Three times what a version can serve, and one tenant's flood beside another's usual traffic.

Twice: with a method that waits in one of the host's threads (overload.*; its capacity does not move with other load on the
machine) and with one that computes on the host's loop (overload.computing_*). Capacity is measured first (callers that send
one request after the other), then the same router is offered exactly that, and three times that, at a fixed rate:
latencies count from when a request was due. Run: make bench NAME=overload
"""

import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks.data_plane import BODY, TOKEN, DataPlane, data_plane, pin
from benchmarks.figures import figure
from benchmarks.hammer import Group, Samples, hammer, percentile, request
from benchmarks.invoke import OTHER_CORE, ROUTER_CORE
from hotswap.domain.quota import Quota, QuotaOverride
from tests.integration.node_bench import order

WAIT_MS = 20
WORK_MS = 3
SECONDS = 6.0
ONSET = 2.0
"""Left out at the start of each round: until it is sure that this is no burst, the router lets up to 0.25 s of it wait."""
TIMES = 3
USUAL_SHARE = 0.2
"""Of the capacity: what the tenant sends that must not notice the flood."""

EXTRA = f"""
    def wait(self, parameters, context):
        import time
        time.sleep({WAIT_MS / 1000})
        return {{"done": True}}

    async def burn(self, parameters, context):
        import time
        until = time.process_time() + {WORK_MS / 1000}
        while time.process_time() < until:
            pass
        return {{"done": True}}
"""


async def main() -> None:
    pin(0, ROUTER_CORE)
    with tempfile.TemporaryDirectory() as scratch:
        async with data_plane(Path(scratch)) as plane:
            await load_burner(plane)
            for method, prefix in (("wait", "overload"), ("burn", "overload.computing")):
                await overload(plane, method, prefix)
            rate = await capacity(plane.port, "wait")
            await flood(plane, rate, "fair")
            plane.meters.set_overrides({("flood", "invoice"): QuotaOverride(**Quota().model_dump(by_alias=False))})
            await flood(plane, rate, "quota")


async def load_burner(plane: DataPlane) -> None:
    report = await plane.supervisor.stage(order(1, await plane.version("1.0.0", extra=EXTRA, methods=("burn", "wait"))))
    pid = report.hosts[0].pid
    assert pid
    pin(pid, OTHER_CORE)


async def capacity(port: int, method: str) -> float:
    """Requests/s that sixteen callers get out of it, each waiting for its answer."""
    seen = await hammer([Group("all", port, ask("usual", method), 16)], 3.0, ROUTER_CORE)
    return len(seen["all"].latencies()) / 3.0


async def overload(plane: DataPlane, method: str, prefix: str) -> None:
    rate = await capacity(plane.port, method)
    setting = f"{method}: {rate:.0f} requests/s are its capacity"
    at, over = [await offered(plane, method, rate * times) for times in (1, TIMES)]
    admitted = over.latencies()
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        ratio = percentile(admitted, share) / percentile(at.latencies(), share)
        figure(f"{prefix}.admitted_{name}_ratio", ratio, "ratio", len(admitted), f"{name} at capacity; {setting}")
    figure(f"{prefix}.admitted_p99_ms", percentile(admitted, 0.99) * 1e3, "ms", len(admitted), setting)
    goodput = len(admitted) / SECONDS / rate
    figure(f"{prefix}.goodput_ratio", goodput, "ratio", len(over.took), f"capacity; {TIMES} times it offered")
    refused = over.latencies(503)
    figure(f"{prefix}.refused_p99_ms", percentile(refused, 0.99) * 1e3, "ms", len(refused), "503, from when it was due")
    figure(f"{prefix}.other_answers", others(over), "requests", len(over.took), "neither 200 nor 503")


async def offered(plane: DataPlane, method: str, rate: float) -> Samples:
    """What clients saw at that rate, once it had lasted for ONSET."""
    group = Group("all", plane.port, ask("usual", method), 1024, rate)
    return (await hammer([group], ONSET + SECONDS, ROUTER_CORE))["all"].after(ONSET)


async def flood(plane: DataPlane, rate: float, kind: str) -> None:
    """One tenant's usual traffic alone, then beside another tenant's flood of three times the capacity."""
    usual = Group("usual", plane.port, ask("usual", "wait"), 64, rate * USUAL_SHARE)
    flooding = Group("flood", plane.port, ask("flood", "wait"), 512, rate * TIMES)
    alone = (await hammer([usual], ONSET + SECONDS, ROUTER_CORE))["usual"].after(ONSET)
    both = await hammer([usual, flooding], ONSET + SECONDS, ROUTER_CORE)
    beside, flooded = both["usual"].after(ONSET), both["flood"].after(ONSET)
    what = "no quota on the flood: only turns" if kind == "fair" else "default quotas on the flood"
    ratio = percentile(beside.latencies(), 0.99) / percentile(alone.latencies(), 0.99)
    figure(
        f"overload.{kind}_other_p99_ratio", ratio, "ratio", len(beside.took), f"its own p99 without the flood; {what}"
    )
    refused = 1 - len(beside.latencies()) / len(beside.took)
    figure(f"overload.{kind}_other_refused", refused, "share", len(beside.took), what)
    refused = 1 - len(flooded.latencies()) / len(flooded.took)
    figure(f"overload.{kind}_flood_refused", refused, "share", len(flooded.took), what)


def others(seen: Samples) -> int:
    found = seen.statuses()
    return sum(count for status, count in found.items() if status not in (200, 503))


def ask(tenant: str, method: str) -> bytes:
    return request(f"/invoke/{tenant}/invoice/{method}", TOKEN, BODY)


if __name__ == "__main__":
    uvloop.run(main())
    sys.stdout.flush()
