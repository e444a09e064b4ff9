"""Beside HotSwap, in the same run: FastAPI in process, and the two usual ways to change its version under traffic.

FastAPI under uvicorn comes with this project. gunicorn (HUP) and nginx (reload, one uvicorn a version) are used when they
are installed, and are no dependency: apt install nginx, pip install gunicorn uvicorn-worker. A figure with n = 0 says
that a tool was not found.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.data_plane import BODY, TOKEN
from benchmarks.figures import figure
from benchmarks.hammer import Group, Samples, hammer, request

ROUNDS = 3
SECONDS = 1.5
CONNECTIONS = 64
CHANGES = 10
CHANGE_RATE = 300.0
"""Requests/s while versions change: a third of what FastAPI serves on a core, so that what fails is the change's doing."""

Rate = Callable[[], Awaitable[float]]


async def measure_rivals(folder: Path, floor: Rate, core: int, other: int) -> None:
    """`floor` gives the floor's requests/s now, so that each round has its own yardstick."""
    async with uvicorn(core) as port:
        await ratio("fastapi", port, floor, other)
    await measure_gunicorn(floor, core, other)
    await measure_nginx(folder, floor, core, other)


async def measure_gunicorn(floor: Rate, core: int, other: int) -> None:
    if importlib.util.find_spec("gunicorn") is None or importlib.util.find_spec("uvicorn_worker") is None:
        missing("gunicorn", "hup")
        return
    port = free_port()
    arguments = ["-w", "1", "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}", "--log-level", "error"]
    async with running(core, sys.executable, "-m", "gunicorn", *arguments, "benchmarks.rival_app:app") as process:
        await answers(port)
        await ratio("gunicorn", port, floor, other)

        async def change() -> None:
            process.send_signal(signal.SIGHUP)

        await changes("gunicorn_hup", port, change, other)


async def measure_nginx(folder: Path, floor: Rate, core: int, other: int) -> None:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        missing("nginx", "reload")
        return
    port = free_port()
    async with uvicorn(core) as old, uvicorn(core) as new:
        settings = folder / "nginx.conf"
        settings.write_text(nginx_settings(folder, port, old))
        async with running(core, program, "-p", str(folder), "-c", str(settings)) as process:
            await answers(port)
            await ratio("nginx", port, floor, other)
            ports = [new, old]

            async def change() -> None:
                settings.write_text(nginx_settings(folder, port, ports[0]))
                ports.reverse()
                process.send_signal(signal.SIGHUP)

            await changes("nginx_reload", port, change, other)


def nginx_settings(folder: Path, port: int, upstream: int) -> str:
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log error;
events {{ worker_connections 1024; }}
http {{
  access_log off; {temporary}
  keepalive_requests 1000000;
  upstream app {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


async def ratio(name: str, port: int, floor: Rate, other: int) -> None:
    await load(port, 0.5, other)
    ratios = [await load(port, SECONDS, other) / await floor() for _ in range(ROUNDS)]
    figure(f"invoke.{name}_ratio_to_floor", statistics.median(ratios), "ratio", ROUNDS, "as invoke.ratio_to_floor")


async def load(port: int, seconds: float, core: int) -> float:
    seen = (await hammer([Group("all", port, ask(), CONNECTIONS)], seconds, core))["all"]
    return len(seen.latencies()) / seconds


async def changes(name: str, port: int, change: Callable[[], Awaitable[None]], other: int) -> None:
    """Failed requests and the worst answer while the version changes CHANGES times."""
    seconds = CHANGES * 1.0 + 1
    running_load = asyncio.create_task(hammer([Group("all", port, ask(), 32, CHANGE_RATE)], seconds, other))
    for _ in range(CHANGES):
        await asyncio.sleep(1.0)
        await change()
    seen: Samples = (await running_load)["all"]
    failed = len(seen.status) - len(seen.latencies())
    against = f"{len(seen.status)} requests, {CHANGES} changes of version at {CHANGE_RATE:.0f} requests/s"
    figure(f"invoke.{name}_failed", failed, "requests", CHANGES, against)
    figure(f"invoke.{name}_worst_ms", max(seen.took, default=0.0) * 1e3, "ms", CHANGES, against)


def missing(name: str, change: str) -> None:
    for what, unit in ((f"{name}_ratio_to_floor", "ratio"), (f"{name}_{change}_failed", "requests")):
        figure(f"invoke.{what}", 0.0, unit, 0, f"{name} is not installed")


def ask() -> bytes:
    return request("/invoke/acme/invoice/echo", TOKEN, BODY)


@asynccontextmanager
async def uvicorn(core: int) -> AsyncIterator[int]:
    port = free_port()
    arguments = ["-m", "uvicorn", "benchmarks.rival_app:app", "--port", str(port), "--log-level", "error"]
    async with running(core, sys.executable, *arguments):
        await answers(port)
        yield port


@asynccontextmanager
async def running(core: int, program: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server pinned to a core (taskset passes it on to its children), ended at the end."""
    taskset = [tool, "-c", str(core)] if (tool := shutil.which("taskset")) else []
    process = await asyncio.create_subprocess_exec(*taskset, program, *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def answers(port: int) -> None:
    """Until somebody accepts. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
