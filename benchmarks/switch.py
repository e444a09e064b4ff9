"""A thousand switches of route and host under traffic: what fails, and what the worst request near one has to wait.

Each flip loads a fresh sandboxed process of the other version, shifts every tenant to it in one step and unloads the old
one when it has drained: what a Direct deployment does on a node. Flips begin every PACE seconds; a request is near a flip
when it was under way at any time between its start and NEAR after its end, and away otherwise.

The worst of many requests is never within a few times their p99 on a shared machine, flip or no flip: `away_worst_over_p99`
says what it is here without one, and `worst_over_away_worst` compares the worst near flips with the (median) worst of as
many requests away from any.
Run: make bench NAME=switch
"""

import asyncio
import statistics
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from time import monotonic

import uvloop

from benchmarks.data_plane import BODY, TOKEN, DataPlane, data_plane, tier
from benchmarks.figures import figure
from benchmarks.hammer import Group, Samples, hammer, percentile, request
from hotswap.domain.routes import ArtifactRef
from tests.integration.node_bench import order

FLIPS = 1000
RATE = 2000.0
PACE = 0.08
NEAR = 0.005
GRACE = timedelta(seconds=10)


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        async with data_plane(Path(scratch)) as plane:
            one, two = await plane.version("1.0.0"), await plane.version("2.0.0")
            await plane.supervisor.stage(order(1, one))
            load = asyncio.create_task(hammer([Group("all", plane.port, ask(), 64, RATE)], FLIPS * PACE + 2, None))
            await asyncio.sleep(1)
            flips = await flip_often(plane, one, two, load)
            report((await load)["all"], flips)


async def flip_often(
    plane: DataPlane, old: ArtifactRef, new: ArtifactRef, load: "asyncio.Task[dict[str, Samples]]"
) -> list[tuple[float, float]]:
    """When each flip began and ended. Ends early when the load does: a flip without traffic shows nothing."""
    flips = []
    generation = 1
    for _ in range(FLIPS):
        began = monotonic()
        await plane.supervisor.stage(order(generation + 1, old, new))
        await plane.supervisor.apply(order(generation + 2, old, new, 10_000))
        await plane.supervisor.retire(order(generation + 3, new), GRACE)
        ended = monotonic()
        if load.done():
            break
        flips.append((began, ended))
        generation += 3
        old, new = new, old
        await asyncio.sleep(max(0.0, began + PACE - ended))
    return flips


def report(seen: Samples, flips: list[tuple[float, float]]) -> None:
    failed = len(seen.status) - len(seen.latencies())
    near: list[float] = []
    away: list[float] = []
    position = 0
    for began, took in sorted(zip(seen.began, seen.took, strict=True)):
        while position < len(flips) and flips[position][1] + NEAR < began:
            position += 1
        touches = position < len(flips) and flips[position][0] <= began + took
        (near if touches else away).append(took)
    near.sort()
    away.sort()
    quiet = percentile(away, 0.99)
    loaded = statistics.median(ended - began for began, ended in flips) * 1e3
    setting = f"{len(seen.status)} requests at {RATE:.0f}/s, hosts {tier()}, a flip took {loaded:.0f} ms (median)"
    figure("switch.flips", len(flips), "flips", len(flips), setting)
    figure("switch.failed_requests", failed, "requests", len(seen.status), setting)
    figure(
        "switch.worst_over_p99", near[-1] / quiet, "ratio", len(near), f"p99 of {len(away)} requests away from flips"
    )
    figure("switch.near_p99_over_p99", percentile(near, 0.99) / quiet, "ratio", len(near), "the same")
    figure("switch.away_p99_ms", quiet * 1e3, "ms", len(away), "")
    figure("switch.away_worst_over_p99", away[-1] / quiet, "ratio", len(away), "what the machine does without a flip")
    usual = usual_worst(away, len(near))
    figure("switch.worst_over_away_worst", near[-1] / usual, "ratio", len(near), "the worst of as many away from flips")
    if failed:
        sys.exit(f"requests failed: {seen.statuses()} {seen.faults}")


def usual_worst(away: list[float], draw: int) -> float:
    """The median worst of `draw` requests drawn from these (sorted): each of them is the worst with its own chance."""
    share = 0.5 ** (1 / draw)  # a draw of so many stays below this quantile half of the time
    return percentile(away, share)


def ask() -> bytes:
    return request("/invoke/acme/invoice/echo", TOKEN, BODY)


if __name__ == "__main__":
    uvloop.run(main())
