"""A stack of a test's own, run as a separate process (`python -m hotswap.embedded`), so that it can be killed.

`with OwnStack(tmp_path / "data") as stack:` waits until it is up; leaving the block kills what still runs.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hotswap.lifeline import DIE_WITH_PARENT, PARENT_PID
from tests.stack.shared import stack_environment

PATIENCE = 60.0


class OwnStack:
    """`prefix` is put before the command (to become another user), `more` are further arguments."""

    def __init__(
        self,
        data_dir: Path,
        *more: str,
        prefix: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
        user: int | None = None,
        servers_only: bool = True,
    ) -> None:
        self.data_dir = data_dir
        self._command = [*prefix, sys.executable, "-m", "hotswap.embedded", "--data-dir", str(data_dir), *more]
        self._command += ["--servers-only"] if servers_only else []
        tied = {DIE_WITH_PARENT: "1", PARENT_PID: str(os.getpid())}
        self._environment = {**stack_environment(), **tied, **(variables or {})}
        self._user = user
        self.process: subprocess.Popen[bytes] | None = None
        self.output = ""

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_up()
        except BaseException:
            self.end(signal.SIGKILL)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(signal.SIGKILL)
        gone(self.data_dir)

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            user=self._user,
            group=self._user,
        )

    def wait_up(self) -> None:
        self.wait_said("up; Ctrl-C stops it")

    def wait_said(self, wanted: str) -> None:
        """Read its output until it says `wanted`; fails when it ends first, or after a minute."""
        assert self.process is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.output:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            said = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert said, f"{wanted!r} was not said in:\n{self.output}"
            self.output += said.decode("utf-8", "replace")

    def info(self) -> dict[str, Any]:
        content = json.loads((self.data_dir / "stack.json").read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content

    def pid(self, name: str) -> int:
        return int(next(part["pid"] for part in self.info()["parts"] if part["name"] == name))

    def kill(self, name: str) -> None:
        """kill -9 a part and wait until the stack says that it serves again."""
        before = self.pid(name)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.pid(name) != before, f"{name} was not restarted")

    def end(self, how: signal.Signals) -> int:
        """Signal the supervisor and return its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        code = self.process.wait(timeout=PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


def processes_of(data_dir: Path) -> dict[int, str]:
    """Every process that works in the data directory or names it among its arguments."""
    mark = str(data_dir)
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            folder = str((entry / "cwd").readlink())
        except OSError:
            continue  # it ended while we looked, or is a zombie
        if mark in command or folder.startswith(mark):
            found[int(entry.name)] = command
    return found


def gone(data_dir: Path, within: float = 10.0) -> None:
    """Await that no process of the stack is left."""
    eventually(lambda: not processes_of(data_dir), lambda: f"still running: {processes_of(data_dir)}", within)


def eventually(holds: Callable[..., bool], failure: str | Callable[[], str], within: float = PATIENCE) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, failure if isinstance(failure, str) else failure()
        time.sleep(0.02)
