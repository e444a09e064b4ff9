"""Beside HotSwap, in the same run: FastAPI in process, and the two usual ways to change its version under traffic.

FastAPI under uvicorn comes with this project. gunicorn (HUP) and nginx (reload, one uvicorn a version) are measured when
they are installed, and are no dependency: `make rivals` installs both. Of one that is not there stderr says so, and no
figure is printed.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data_plane import BODY, TOKEN, cpu_seconds
from benchmarks.figures import figure
from benchmarks.hammer import Group, Samples, hammer, request

ROUNDS = 3
SECONDS = 1.5
CONNECTIONS = 64
CHANGES = 8
CHANGE_SECONDS = 12.0
CHANGE_RATE = 300.0
"""Requests/s while versions change: a third of what FastAPI serves on a core, so that what fails is the change's doing."""


@dataclass(frozen=True)
class Yardstick:
    """What a rival is measured by: as the router is (benchmarks.invoke), on the router's core."""

    floor: Callable[[], Awaitable[tuple[float, float]]]
    """The floor's requests/s and CPU seconds a request now, so that each round has its own."""
    by_cpu: bool
    """The ratio is that of CPU time for a request, not of requests/s."""
    core: int
    load_core: int


async def measure_rivals(folder: Path, by: Yardstick) -> None:
    async with uvicorn(by.core) as (process, port):
        await ratio("fastapi", port, [process.pid], by)
    await measure_gunicorn(by)
    await measure_nginx(folder, by)


async def measure_gunicorn(by: Yardstick) -> None:
    if importlib.util.find_spec("gunicorn") is None or importlib.util.find_spec("uvicorn_worker") is None:
        not_measured("gunicorn")
        return
    port = free_port()
    arguments = ["-w", "1", "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}", "--log-level", "error"]
    async with running(by.core, sys.executable, "-m", "gunicorn", *arguments, "benchmarks.rival_app:app") as process:
        await answers(port)
        await ratio("gunicorn", port, [process.pid], by)
        await changes("gunicorn_hup", port, process, lambda: None, by)


async def measure_nginx(folder: Path, by: Yardstick) -> None:
    beside_python = Path(sys.executable).parent
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:{beside_python}")
    if program is None:
        not_measured("nginx")
        return
    port = free_port()
    async with uvicorn(by.core) as (old, old_port), uvicorn(by.core) as (_, new_port):
        settings = folder / "nginx.conf"
        settings.write_text(nginx_settings(folder, port, old_port))
        async with running(by.core, program, "-p", str(folder), "-c", str(settings)) as process:
            await answers(port)
            await ratio("nginx", port, [process.pid, old.pid], by)
            ports = [new_port, old_port]

            def other_version() -> None:
                settings.write_text(nginx_settings(folder, port, ports[0]))
                ports.reverse()

            await changes("nginx_reload", port, process, other_version, by)


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


async def ratio(name: str, port: int, pids: Sequence[int], by: Yardstick) -> None:
    """Against the floor, round by round. `pids`: the processes that serve; those they started count as well."""
    await load(port, 0.5, by)
    ratios = []
    for _ in range(ROUNDS):
        servers = family(pids)
        used = sum(cpu_seconds(pid) for pid in servers)
        rate = await load(port, SECONDS, by)
        used = sum(cpu_seconds(pid) for pid in servers) - used
        floor_rate, floor_cpu = await by.floor()
        ratios.append(floor_cpu / (used / (rate * SECONDS)) if by.by_cpu else rate / floor_rate)
    figure(f"invoke.{name}_ratio_to_floor", statistics.median(ratios), "ratio", ROUNDS, "as invoke.ratio_to_floor")


async def load(port: int, seconds: float, by: Yardstick) -> float:
    seen = (await hammer([Group("all", port, ask(), CONNECTIONS)], seconds, by.load_core))["all"]
    return len(seen.latencies()) / seconds


async def changes(
    name: str, port: int, process: asyncio.subprocess.Process, prepare: Callable[[], None], by: Yardstick
) -> None:
    """Failed requests and the worst answer while SIGHUP changes the version up to CHANGES times, each when the last is done.

    A change is done when the processes that served before it have ended and another one answers.
    """
    load = asyncio.create_task(hammer([Group("all", port, ask(), 32, CHANGE_RATE)], CHANGE_SECONDS, by.load_core))
    done = 0
    while done < CHANGES and not load.done():
        await asyncio.sleep(0.5)
        before = children(process.pid)
        prepare()
        process.send_signal(signal.SIGHUP)
        await replaced(process, before, port)
        done += not load.done()
    seen: Samples = (await load)["all"]
    failed = len(seen.status) - len(seen.latencies())
    faults = ", ".join(f"{count} {fault}" for fault, count in seen.faults.most_common(3)) or "no fault"
    against = f"{len(seen.status)} requests at {CHANGE_RATE:.0f}/s, {done} changes of version: {faults}"
    figure(f"invoke.{name}_failed", failed, "requests", done, against)
    figure(f"invoke.{name}_worst_ms", max(seen.took, default=float("nan")) * 1e3, "ms", done, against)


async def replaced(process: asyncio.subprocess.Process, before: set[int], port: int) -> None:
    """Until none of these children is left and a request is answered. Raises TimeoutError."""
    async with asyncio.timeout(60):
        while True:
            if not before & children(process.pid):
                break
            await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask())
        await reader.readline()
        writer.close()
        await writer.wait_closed()


def family(pids: Iterable[int]) -> list[int]:
    """These processes and all that they started."""
    return [found for pid in pids for found in (pid, *family(children(pid)))]


def children(pid: int) -> set[int]:
    """Empty for a process that is gone."""
    found: set[int] = set()
    for task in Path("/proc", str(pid), "task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(child) for child in task.read_text().split()}
    return found


def not_measured(name: str) -> None:
    print(f"{name} is not installed (make rivals): its figures are left out", file=sys.stderr)


def ask() -> bytes:
    return request("/invoke/acme/invoice/echo", TOKEN, BODY)


@asynccontextmanager
async def uvicorn(core: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    port = free_port()
    arguments = ["-m", "uvicorn", "benchmarks.rival_app:app", "--port", str(port), "--log-level", "error"]
    async with running(core, sys.executable, *arguments) as process:
        await answers(port)
        yield process, port


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
