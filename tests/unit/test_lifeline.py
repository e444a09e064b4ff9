"""A process with a lifeline ends with the process that started it, and says once that it serves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hotswap.lifeline import DIE_WITH_PARENT, PARENT_PID, READY_FILE, announce_ready, die_with_parent

CHILD = "from hotswap.lifeline import die_with_parent; die_with_parent(); print('tied', flush=True); input()"
PARENT = (
    "import os, subprocess, sys\n"
    f"os.environ[{PARENT_PID!r}] = str(os.getpid())\n"
    f"child = subprocess.Popen([sys.executable, '-c', {CHILD!r}], stdin=subprocess.PIPE)\n"
    "print(child.pid, flush=True)\n"
    "child.wait()\n"
)


def _lives(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text(encoding="ascii").split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_dies_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env={**os.environ, DIE_WITH_PARENT: "1"}, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        child = int((said - {"tied"}).pop())
        assert _lives(child)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 5
        while _lives(child):
            assert time.monotonic() < deadline, "the child outlived its parent"
            time.sleep(0.01)


def test_a_process_whose_parent_is_gone_already_does_not_start() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, DIE_WITH_PARENT: "1", PARENT_PID: "1073741823"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 1
    assert "parent process 1073741823 is gone" in ended.stderr
    assert ended.stdout == ""


def test_without_the_variable_nothing_is_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DIE_WITH_PARENT, raising=False)
    monkeypatch.setenv(PARENT_PID, "1073741823")
    die_with_parent(signal.SIGTERM)


def test_ready_is_said_by_a_file_that_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "worker.ready"
    monkeypatch.setenv(READY_FILE, str(marker))
    announce_ready()
    assert marker.read_text(encoding="ascii") == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == [marker]


def test_ready_is_said_to_nobody_when_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(READY_FILE, raising=False)
    monkeypatch.chdir(tmp_path)
    announce_ready()
    assert list(tmp_path.iterdir()) == []
