"""What reading through the facade costs: single resources and lists over a full registry, against a bare FastAPI route.

The facade is a process of its own (one, as `hotswap up` starts it) over the embedded servers, with a user's JWT, limits, traces and ids on
every answer; the floor (benchmarks.api_floor) another, which does one primary-key select. Rounds alternate, ratios are
medians of pairs. Before anything is measured every route is asked once and its answer looked at.
Run: make bench NAME=api
"""

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.api_seed import Crowd, deployment_id, plugin_name, seed, tenant_name
from benchmarks.figures import figure
from benchmarks.hammer import Group, Samples, hammer, percentile
from hotswap.domain.deployment import Environment
from hotswap.embedded.ports import choose
from hotswap.embedded.stack import FIRST_ADMIN, EmbeddedStack

PAIRS = 5
SECONDS = 2.0
CONNECTIONS = 12
SEED = 20260131
API = "/api/v1"


def gets(crowd: Crowd, chance: random.Random) -> list[str]:
    """Single resources, anywhere in the tables."""
    paths = []
    for _ in range(CONNECTIONS // 3):
        plugin = plugin_name(chance.randrange(crowd.plugins))
        paths += [f"{API}/plugins/{plugin}", f"{API}/plugins/{plugin}/versions/1.1.0"]
        paths.append(f"{API}/deployments/{deployment_id(chance.randrange(crowd.deployments))}")
    return paths


def lists(crowd: Crowd, chance: random.Random) -> list[str]:
    """Pages of 20: of everything, by filter, deep in, and of a tenant."""
    paths = []
    for _ in range(CONNECTIONS // 6):
        plugin = plugin_name(chance.randrange(crowd.plugins))
        paths += [
            f"{API}/plugins?offset={chance.randrange(crowd.plugins - 20)}",
            f"{API}/plugins?type=Other&tags=team-{chance.randrange(20)}",
            f"{API}/deployments",
            f"{API}/deployments?pluginId={plugin}",
            f"{API}/deployments?environment=Staging&status=RolledBack",
            f"{API}/tenants/{tenant_name(chance.randrange(crowd.tenants))}/plugins",
        ]
    return paths


async def main() -> None:
    os.environ["HOTSWAP_API__RATE_LIMIT_FACTOR"] = "100000"  # counted as ever, never reached
    with tempfile.TemporaryDirectory() as scratch:
        stack = EmbeddedStack(
            Path(scratch) / "stack", 0, Environment.DEVELOPMENT, progress=lambda line: print(line, file=sys.stderr)
        )
        await stack.start()
        try:
            url = stack.environment["HOTSWAP_POSTGRES__URL"]
            crowd = Crowd()
            began = time.perf_counter()
            await asyncio.to_thread(seed, url, crowd)
            print(f"{crowd} in {time.perf_counter() - began:.1f} s", file=sys.stderr)
            async with floor(url) as floor_port:
                token = await login(
                    stack.info["apiUrl"], (Path(scratch) / "stack" / "admin-password").read_text().strip()
                )
                await measure(crowd, floor_port, httpx.URL(stack.info["apiUrl"]).port or 80, token)
        finally:
            await stack.stop()


@asynccontextmanager
async def floor(url: str) -> AsyncIterator[int]:
    """Port of the floor, which serves."""
    port = choose(set())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.api_floor", str(port), env={**os.environ, "HOTSWAP_POSTGRES__URL": url}
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            until = time.monotonic() + 30
            while True:
                try:
                    (await client.get(f"http://127.0.0.1:{port}/plugins/{plugin_name(0)}")).raise_for_status()
                    break
                except httpx.TransportError:
                    if time.monotonic() > until or process.returncode is not None:
                        raise
                    await asyncio.sleep(0.1)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def login(api: str, password: str) -> str:
    """A person's JWT: what most callers send, and dearer to check than a development token."""
    async with httpx.AsyncClient(base_url=api, trust_env=False) as client:
        body = {"user": FIRST_ADMIN, "password": password}
        answer = await client.post(f"{API}/authentication/login", json=body)
        return str(answer.raise_for_status().json()["token"])


async def measure(crowd: Crowd, floor_port: int, api_port: int, token: str) -> None:
    chance = random.Random(SEED)
    keys = [f"/plugins/{plugin_name(chance.randrange(crowd.plugins))}" for _ in range(CONNECTIONS)]
    loads = {"floor": asked(floor_port, keys, "")}
    for name, paths in (("get", gets(crowd, chance)), ("list", lists(crowd, chance))):
        await check(api_port, paths, token)
        loads[name] = asked(api_port, paths, token)
    for groups in loads.values():  # warm-up: connections, statement caches, the adaptive interpreter
        await hammer(groups, 1.0)
    rates: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(PAIRS):
        for name, groups in loads.items():
            rates[name].append(rate(await hammer(groups, SECONDS)))
    figure("api.floor_reads_per_second", statistics.median(rates["floor"]), "1/s", PAIRS, "")
    for name in ("get", "list"):
        ratio = statistics.median(own / bare for own, bare in zip(rates[name], rates["floor"], strict=True))
        against = f"reads/s of a bare FastAPI route doing one primary-key select; {CONNECTIONS} connections"
        figure(f"api.{name}_ratio_to_floor", ratio, "ratio", PAIRS, against)
        served = statistics.median(rates[name])
        figure(f"api.{name}_reads_per_second", served, "1/s", PAIRS, "")
        await at_half_load(name, loads[name], served / 2)


async def at_half_load(name: str, groups: Sequence[Group], total: float) -> None:
    """Latency where a service should run, not where it is full."""
    even = [Group(one.name, one.port, one.request, 1, total / len(groups)) for one in groups]
    seen = await hammer(even, SECONDS * 2)
    whole = sorted(took for samples in seen.values() for took in answered(samples))
    figure(f"api.{name}_p99_ms", percentile(whole, 0.99) * 1e3, "ms", len(whole), f"{total:.0f} reads/s")
    for path, samples in seen.items():
        took = samples.latencies()
        p50, p99 = percentile(took, 0.5) * 1e3, percentile(took, 0.99) * 1e3
        print(f"  {path:<75} p50 {p50:6.1f} ms  p99 {p99:6.1f} ms", file=sys.stderr)


def asked(port: int, paths: Sequence[str], token: str) -> list[Group]:
    """A connection for each path."""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    heads = [f"GET {path} HTTP/1.1\r\nHost: api\r\n{bearer}\r\n" for path in paths]
    names = [f"{number:02} {path}" for number, path in enumerate(paths)]
    return [Group(name, port, head.encode(), 1) for name, head in zip(names, heads, strict=True)]


async def check(port: int, paths: Sequence[str], token: str) -> None:
    """A benchmark of refusals would be fast."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
        for path in paths:
            document = (await client.get(path)).raise_for_status().json()
            if "items" in document and not document["items"]:
                sys.exit(f"{path} lists nothing: {document}")


def rate(seen: Mapping[str, Samples]) -> float:
    """Reads a second of all groups together."""
    began = min(samples.began[0] for samples in seen.values())
    ended = max(samples.began[-1] + samples.took[-1] for samples in seen.values())
    return sum(len(answered(samples)) for samples in seen.values()) / (ended - began)


def answered(samples: Samples) -> Sequence[float]:
    if samples.statuses().keys() != {200}:
        sys.exit(f"not all requests were answered: {samples.statuses()} {samples.faults}")
    return samples.took


if __name__ == "__main__":
    asyncio.run(main())
