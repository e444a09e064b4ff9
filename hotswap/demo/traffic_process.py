"""Traffic in a process of its own, so that it disturbs nobody's event loop and nobody disturbs its clock.

The child (`python -m hotswap.demo.traffic`) ends by itself when this process dies: its stdin ends then.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Self

from hotswap.demo.report import TrafficReport
from hotswap.demo.traffic import Payload

MAX_LINE = 256 * 1024 * 1024
"""A report of 10,000 tenants and an hour of latencies is about 50 MB of JSON."""


class TrafficStopped(Exception):
    """The traffic's process ended before it was told to; the text is what it wrote to stderr."""


class TrafficProcess:
    """`async with TrafficProcess(...) as traffic: ...; report = await traffic.stop()`."""

    def __init__(
        self,
        node_urls: Sequence[str],
        token: str,
        plugin: str,
        payloads: Sequence[Payload],
        tenants: int = 200,
        rate: float = 300.0,
        affinity: bool = True,
    ) -> None:
        self._config: dict[str, Any] = {
            "node_urls": list(node_urls),
            "token": token,
            "plugin": plugin,
            "payloads": [{"method": payload.method, "parameters": payload.parameters} for payload in payloads],
            "tenants": tenants,
            "rate": rate,
            "affinity": affinity,
        }
        self.latest: dict[str, Any] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[TrafficReport | None] | None = None
        self._ended = False
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._end()

    async def start(self) -> None:
        """Start, and wait for the first sign of life. Raises TrafficStopped when it does not come up."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hotswap.demo.traffic",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
            start_new_session=True,  # Ctrl-C in the terminal is for the story, which stops us in order
        )
        assert self._process.stdin is not None  # asked for above
        self._process.stdin.write(json.dumps(self._config).encode() + b"\n")
        await self._process.stdin.drain()
        self._reader = asyncio.create_task(self._read(self._process))
        await self.seen(lambda tick: True)

    async def seen(self, condition: Callable[[dict[str, Any]], bool], timeout: float = 30.0) -> dict[str, Any]:
        """The first tick (one a second) for which `condition(tick)` holds. Raises TimeoutError, TrafficStopped."""
        assert self._reader is not None, "start() comes first"
        async with asyncio.timeout(timeout), self._news:
            while not (self.latest and condition(self.latest)):
                if self._ended:
                    await self._raise_stopped()
                await self._news.wait()
            return self.latest

    async def stop(self) -> TrafficReport:
        """Let requests under way end and hand over the report. Raises TrafficStopped when it had died before."""
        assert self._process is not None, "start() comes first"
        assert self._reader is not None
        if self._process.stdin is not None:
            self._process.stdin.close()
        report = await self._reader
        if report is None:
            await self._raise_stopped()
            raise AssertionError("unreachable")
        await self._process.wait()
        return report

    async def _read(self, process: asyncio.subprocess.Process) -> TrafficReport | None:
        assert process.stdout is not None  # asked for in start
        try:
            while line := await process.stdout.readline():
                told = json.loads(line)
                if told["event"] == "report":
                    return TrafficReport.from_json(told["report"])
                async with self._news:
                    self.latest = told
                    self._news.notify_all()
            return None
        finally:
            self._ended = True
            async with self._news:
                self._news.notify_all()

    async def _raise_stopped(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        said = (await self._process.stderr.read()).decode("utf-8", "replace")[-2000:]
        raise TrafficStopped(f"the traffic's process ended with code {await self._process.wait()}: {said}")

    async def _end(self) -> None:
        """Nothing of it is left afterwards, however we got here."""
        process, reader = self._process, self._reader
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        if reader is not None:
            await asyncio.gather(reader, return_exceptions=True)
        if process is not None and process.stdin is not None:
            process.stdin.close()
