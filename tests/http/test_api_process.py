"""`python -m api` as a process: starts without its servers, takes any free port, ends event streams when told to stop."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.http.bundles import bundle
from tests.http.site import API

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Served:
    process: asyncio.subprocess.Process
    url: str
    log: list[str]


@asynccontextmanager
async def api(variables: dict[str, str], ready_file: Path) -> AsyncIterator[Served]:
    """The process, once it has said that it serves. Killed at the end if it still runs."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")},
        **variables,
        "HOTSWAP_API__PORT": "0",
        "HOTSWAP_READY_FILE": str(ready_file),
        "HOTSWAP_DIE_WITH_PARENT": "1",
        "PYTHONPATH": str(ROOT),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
    )
    log: list[str] = []
    try:
        async with asyncio.timeout(60):
            while not log or "the api serves http://" not in log[-1]:
                line = await process.stderr.readline()  # type: ignore[union-attr]
                assert line, "".join(log)
                log.append(line.decode())
        url = log[-1].split("serves ")[1].split(",")[0]
        reading = asyncio.create_task(_drain(process, log))
        yield Served(process, url, log)
        await reading if process.returncode is not None else reading.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _drain(process: asyncio.subprocess.Process, log: list[str]) -> None:
    while line := await process.stderr.readline():  # type: ignore[union-attr]
        log.append(line.decode())


def nowhere() -> dict[str, str]:
    return {
        "HOTSWAP_POSTGRES__URL": "postgresql://nobody:nothing@127.0.0.1:1/none",
        "HOTSWAP_REDIS__URL": "redis://127.0.0.1:1/0",
        "HOTSWAP_MINIO__ENDPOINT": "127.0.0.1:1",
        "HOTSWAP_MINIO__ACCESS_KEY": "a",
        "HOTSWAP_MINIO__SECRET_KEY": "b",
        "HOTSWAP_TEMPORAL__ADDRESS": "127.0.0.1:1",
    }


async def test_it_starts_without_any_of_its_servers_and_says_which_are_away(tmp_path: Path) -> None:
    async with (
        api(nowhere(), tmp_path / "ready") as served,
        httpx.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        assert (tmp_path / "ready").read_text() == f"{served.process.pid}\n"
        assert (await client.get("/health")).status_code == 200
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "away")
        assert {told["state"] for told in answer.json()["dependencies"].values()} == {"away"}
        assert "server" not in answer.headers
        served.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(served.process.wait(), 10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_ends_event_streams_and_exits_in_order(
    environment: dict[str, str], unique: Callable[[str], str], tmp_path: Path, number: signal.Signals
) -> None:
    users = json.loads(environment["HOTSWAP_API__DEVELOPMENT_USERS"])
    token = next(user["token"] for user in users if user["user"] == "admin")
    plugin = unique("greeter")
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        api(environment, tmp_path / "ready") as served,
        httpx.AsyncClient(base_url=served.url, headers=headers, timeout=30) as client,
    ):
        await client.post(f"{API}/plugins", json={"name": plugin})
        files = {"binary": ("plugin.zip", bundle(plugin), "application/zip")}
        stored = await client.post(f"{API}/plugins/{plugin}/versions", data={"version": "1.0.0"}, files=files)
        assert stored.status_code == 201, stored.text
        body = {"pluginId": plugin, "version": "1.0.0", "environment": "Development"}
        made = (await client.post(f"{API}/deployments", json=body)).json()
        async with client.stream("GET", made["links"]["events"]) as stream:
            chunks = stream.aiter_text()
            text = ""
            while "event: status" not in text:
                text += await asyncio.wait_for(anext(chunks), 10)
            served.process.send_signal(number)
            text += "".join([chunk async for chunk in chunks])
            assert "the api is stopping" in text
        assert await asyncio.wait_for(served.process.wait(), 5) == 0
    assert not [line for line in served.log if '"level": "ERROR"' in line]


async def run_to_end(variables: dict[str, str]) -> tuple[int, str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")},
        **variables,
        "PYTHONPATH": str(ROOT),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_a_port_in_use_is_told_and_ends_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, told = await run_to_end({**nowhere(), "HOTSWAP_API__PORT": str(taken.getsockname()[1])})
    assert code == 1
    assert "HOTSWAP_API__PORT" in told


async def test_wrong_settings_are_told_all_at_once_and_end_with_2() -> None:
    code, told = await run_to_end({"HOTSWAP_API__PORT": "many"})
    assert code == 2
    for name in ("HOTSWAP_POSTGRES", "HOTSWAP_REDIS", "HOTSWAP_MINIO", "HOTSWAP_API__PORT"):
        assert name in told
