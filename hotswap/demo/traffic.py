"""Constant traffic of many tenants against the nodes' routers, every answer classified.

A tenant has a home node, as behind a load balancer with affinity, and asks another when it cannot connect there; its
requests follow one another, so the order of versions it saw is exact. `TrafficGenerator` runs in this event loop;
`python -m hotswap.demo.traffic` runs one in a process of its own (hotswap.demo.traffic_process drives that).
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from hotswap.demo.lines import CannotConnect, ConnectionLost, HttpAnswer, Node
from hotswap.demo.report import TrafficReport

MAX_SAMPLES = 20
"""Failures whose text is kept."""


@dataclass(frozen=True)
class Payload:
    """One call to make: a method of the plugin and its parameters."""

    method: str
    parameters: dict[str, Any]


def read_payloads(document: Any) -> list[Payload]:
    """traffic.json of an example: a list of {"method", "parameters"}. Raises ValueError naming the fault."""
    items = document.get("payloads", document) if isinstance(document, dict) else document
    if not isinstance(items, list) or not items:
        raise ValueError("traffic.json must hold a list of {method, parameters}")
    return [Payload(str(item["method"]), dict(item.get("parameters", {}))) for item in items]


class TrafficGenerator:
    """`rate` requests a second in all, spread evenly over `tenants`. start() ... stop() -> TrafficReport."""

    def __init__(
        self,
        node_urls: Sequence[str],
        token: str,
        plugin: str,
        payloads: Sequence[Payload],
        tenants: int | Sequence[str] = 200,
        rate: float = 300.0,
        timeout: float = 10.0,
        affinity: bool = True,
    ) -> None:
        if not node_urls or not payloads or rate <= 0:
            raise ValueError("traffic needs at least one node, one payload and a rate above 0")
        self.report = TrafficReport()
        names = [f"tenant-{number:04}" for number in range(tenants)] if isinstance(tenants, int) else list(tenants)
        self._tenants = names
        self._nodes = [Node(url, token) for url in node_urls]
        self._calls = [(f"/{plugin}/{payload.method}", json.dumps(payload.parameters).encode()) for payload in payloads]
        self._period = len(names) / rate
        self._timeout = timeout
        self._affinity = affinity
        self._turn = itertools.count()
        self._running: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    @property
    def connections(self) -> int:
        """Open to all nodes now."""
        return sum(node.connections for node in self._nodes)

    async def start(self) -> None:
        """Begin; every tenant at its own moment within the first period."""
        self.report.started_at = time.time()
        self._running = [asyncio.create_task(self._tenant(name)) for name in self._tenants]

    async def stop(self) -> TrafficReport:
        """Let every request that is under way end, then report. Repeats are fine."""
        self._stopping.set()
        running, self._running = self._running, []
        await asyncio.gather(*running)
        for node in self._nodes:
            await node.close()
        if running:
            self.report.finished_at = time.time()
        return self.report

    async def _tenant(self, name: str) -> None:
        """One tenant's requests, one after the other; a late one shortens the wait for the next, but never bunches."""
        home = xxhash.xxh3_64_intdigest(name.encode()) % len(self._nodes)
        turn = random.randrange(len(self._calls))
        loop = asyncio.get_running_loop()
        due = loop.time() + random.uniform(0, self._period)
        while not await self._stopped_within(due - loop.time()):
            path, body = self._calls[turn % len(self._calls)]
            turn += 1
            first = home if self._affinity else next(self._turn) % len(self._nodes)
            await self._request(name, first, f"/invoke/{name}{path}", body)
            due = max(due + self._period, loop.time())

    async def _stopped_within(self, seconds: float) -> bool:
        if seconds <= 0:
            await asyncio.sleep(0)
            return self._stopping.is_set()
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _request(self, tenant: str, first: int, path: str, body: bytes) -> None:
        began = time.perf_counter()
        for attempt in range(len(self._nodes)):
            node = self._nodes[(first + attempt) % len(self._nodes)]
            try:
                answer = await node.post(path, body, self._timeout)
            except CannotConnect as fault:
                if attempt + 1 == len(self._nodes):
                    self._failed("NO_NODE", str(fault))
                else:
                    self.report.retried_connects += 1
                continue
            except ConnectionLost as fault:
                self._failed("CONNECTION_LOST", f"{node.url}: {fault}")
            except TimeoutError:
                self._failed("CLIENT_TIMEOUT", f"{node.url}: no answer within {self._timeout} s")
            else:
                self._answered(tenant, node.url, answer, 1000 * (time.perf_counter() - began))
            return

    def _answered(self, tenant: str, url: str, answer: HttpAnswer, took_ms: float) -> None:
        now, report = time.time(), self.report
        version = answer.headers.get("x-hotswap-version", "")
        code = "" if answer.status == 200 else _code(answer)
        if code and code != "PLUGIN_ERROR":
            self._failed(code, f"{url} {version} {tenant}: {answer.body[:300].decode('utf-8', 'replace')}")
            return
        second = report.second(now)
        second.requests += 1
        report.requests += 1
        report.latencies_ms.append(took_ms)
        if version:
            report.by_version[version] += 1
            second.versions[version] += 1
            report.saw(tenant, version, now)
        if code:
            report.plugin_errors[version] += 1
            second.plugin_errors += 1
            report.first_error.setdefault(version, now)
        else:
            report.ok += 1
            second.ok += 1

    def _failed(self, code: str, text: str) -> None:
        now = time.time()
        second = self.report.second(now)
        second.requests += 1
        second.platform_failures += 1
        self.report.requests += 1
        self.report.platform_failures[code] += 1
        if len(self.report.failure_samples) < MAX_SAMPLES:
            self.report.failure_samples.append(f"{code} at {now:.3f}: {text}")


def _code(answer: HttpAnswer) -> str:
    """The code of the router's error envelope, else the HTTP status."""
    try:
        return str(json.loads(answer.body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP_{answer.status}"


async def _serve(config: dict[str, Any]) -> None:
    """Run until SIGTERM or until stdin ends (our parent is gone or wants the report); a line of JSON a second."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the parent's to handle
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 4096) else ended.set())
    payloads = read_payloads(config.pop("payloads"))
    generator = TrafficGenerator(payloads=payloads, **config)
    await generator.start()
    try:
        while not ended.is_set():
            _tell({"event": "tick", **_tick(generator.report)})
            try:
                async with asyncio.timeout(1.0):
                    await ended.wait()
            except TimeoutError:
                continue
    finally:
        loop.remove_reader(sys.stdin.fileno())
        report = await generator.stop()
    _tell({"event": "report", "report": report.to_json()})


def _tick(report: TrafficReport) -> dict[str, Any]:
    last = report.seconds.get(int(time.time()) - 1)
    return {
        "requests": report.requests,
        "ok": report.ok,
        "broken": report.broken,
        "failed": report.failed,
        "rate": last.requests if last else 0,
        "versions": dict(last.versions) if last else {},
    }


def _tell(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Reads one line of JSON from stdin: the arguments of TrafficGenerator (a token never goes through argv)."""
    with open(
        sys.stdin.fileno(), "rb", buffering=0, closefd=False
    ) as raw:  # unbuffered: what follows is watched for EOF
        config = json.loads(raw.readline())
    asyncio.run(_serve(config))


if __name__ == "__main__":
    main()
