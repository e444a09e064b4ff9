"""Watching: the live tree on a terminal, Ctrl-C, and the observer that the demo and the end-to-end tests use."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from rich.console import Console

from hotswap.cli.client import ApiClient
from hotswap.cli.connection import Connection
from hotswap.cli.faults import ApiUnreachable
from hotswap.cli.follow import Kind, follow
from hotswap.cli.output import Output
from hotswap.cli.watch import watch
from hotswap.demo.rollout import NotSo, Rollout, connection_of
from tests.unit.cli_fake_api import DEPLOYMENT_ID, FakeApi, deployment, fake_api, line, sse

DEPLOYMENT = f"/api/v1/deployments/{DEPLOYMENT_ID}"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as one:
        yield one


def client(api: FakeApi) -> ApiClient:
    return ApiClient(Connection(api.url, "token"))


async def test_on_a_terminal_the_tree_ends_as_the_deployment_ended(api: FakeApi) -> None:
    api.on(f"GET {DEPLOYMENT}", (200, deployment("Pending")))
    events = [line(1, "begun"), sse("status", deployment("RolledBack", outcomeReason="the verdict failed"))]
    api.on(f"GET {DEPLOYMENT}/events", [*events, sse("end", {"status": "RolledBack"})])
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, legacy_windows=False)
    async with client(api) as one:
        code = await watch(one, DEPLOYMENT_ID, Output(console=console))
    assert code == 10
    last = screen.getvalue().rsplit("\x1b[2K", 1)[-1]  # the live tree is wiped, then the whole of it is printed
    for expected in ("RolledBack", "because", "the verdict failed", "begun", "pid 4711"):
        assert expected in last


def test_ctrl_c_leaves_the_rollout_running_and_says_how_to_come_back(api: FakeApi, tmp_path: Path) -> None:
    watching = threading.Event()
    leave = threading.Event()

    def hang(asked: object) -> list[str]:
        watching.set()
        leave.wait(20)
        return []

    api.routes[f"GET {DEPLOYMENT}/events"] = hang
    (tmp_path / "stack.json").write_text(json.dumps(api.stack()))
    command = [sys.executable, "-m", "hotswap.cli.main", "status", DEPLOYMENT_ID, "--watch"]
    environment = {**os.environ, "HOTSWAP_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert watching.wait(20)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        leave.set()
    assert process.returncode == 130
    assert "the rollout goes on without you" in told
    assert "hotswap status dep_01234567 --watch" in told
    assert "Traceback" not in told
    assert not [asked for asked in api.asked if asked.method == "POST"]


async def test_following_gives_up_only_when_told_to(api: FakeApi) -> None:
    api.on(f"GET {DEPLOYMENT}/events", None)
    seen = []
    async with client(api) as one, aclosing(follow(one, DEPLOYMENT_ID, give_up_after=0.5)) as happenings:
        seen.append((await anext(happenings)).kind)
        with pytest.raises(ApiUnreachable):
            await anext(happenings)
    assert seen == [Kind.LOST]
    assert api.count(f"GET {DEPLOYMENT}/events") > 1


async def test_following_finds_an_api_that_moved_to_another_port(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    path.write_text(json.dumps({**api.stack(), "apiUrl": "http://127.0.0.1:1"}))
    connection = Connection("http://127.0.0.1:1", "token", stack_file=path)
    api.on(f"GET {DEPLOYMENT}/events", [sse("end", {"status": "Completed"})])
    kinds = []
    async with ApiClient(connection) as one:
        async for happening in follow(one, DEPLOYMENT_ID):
            kinds.append(happening.kind)
            path.write_text(json.dumps(api.stack()))
    assert kinds == [Kind.LOST, Kind.BACK, Kind.END]


async def test_a_rollout_is_waited_for_and_approved_by_its_plan(api: FakeApi) -> None:
    waiting = deployment("AwaitingApproval", waitingFor="1 approval")
    api.on("POST /api/v1/deployments", (202, deployment("Pending")))
    approved = threading.Event()

    def events(asked: object) -> list[str]:
        if not approved.is_set():
            return [line(1, "begun"), sse("status", waiting)]
        return [line(2, "done"), sse("status", deployment("Completed")), sse("end", {"status": "Completed"})]

    def approve(asked: object) -> tuple[int, object]:
        approved.set()
        return 200, {"deploymentId": DEPLOYMENT_ID, "status": "InProgress", "message": ""}

    api.routes[f"GET {DEPLOYMENT}/events"] = events
    api.routes[f"POST {DEPLOYMENT}/approve"] = approve
    api.on(f"GET {DEPLOYMENT}", (200, waiting))
    heard = []
    async with client(api) as one:
        rollout = await Rollout.start(one, {}, lambda _, happening: heard.append(happening.kind))
        async with rollout:
            await rollout.approve(one, "fine")
            await rollout.until_over()
    assert rollout.status == "Completed"
    assert [event.message for event in rollout.events] == ["begun", "done"]
    assert api.last(f"POST {DEPLOYMENT}/approve").json() == {"reason": "fine", "planHash": "a" * 64}
    assert Kind.END in heard


async def test_waiting_for_what_never_comes_says_how_things_stand(api: FakeApi) -> None:
    end = sse("end", {"status": "RolledBack"})
    api.on(f"GET {DEPLOYMENT}/events", [line(1, "undone"), sse("status", deployment("RolledBack")), end])
    async with client(api) as one, Rollout(one, deployment()) as rollout:
        with pytest.raises(NotSo, match=r"AwaitingApproval, but it ended: .*RolledBack.*undone"):
            await rollout.until_status("AwaitingApproval")
        with pytest.raises(NotSo, match="it ended"):
            await rollout.until_progress_after(4e9)


async def test_a_rollout_that_stands_still_is_told_after_the_timeout(api: FakeApi) -> None:
    release = threading.Event()

    def silent(asked: object) -> list[str]:
        release.wait(20)
        return []

    api.routes[f"GET {DEPLOYMENT}/events"] = silent
    try:
        async with client(api) as one, Rollout(one, deployment()) as rollout:
            with pytest.raises(NotSo, match="waited 0 s for status Completed; now: dep_"):
                await rollout.until_status("Completed", timeout=0.05)
    finally:
        release.set()
    await asyncio.sleep(0)


def test_the_stacks_users_are_reached_by_name(api: FakeApi) -> None:
    connection = connection_of(api.stack(), "approver")
    assert (connection.url, connection.token) == (api.url, "token-of-approver")
