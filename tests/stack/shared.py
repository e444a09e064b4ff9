"""One embedded stack (servers only) for all processes of one pytest run.

Whichever process needs it first starts it, under a file lock; the pytest process that the user started (the controller
under xdist) stops it. The stack watches that process itself (--until-pid), so a crash or kill -9 of pytest leaves nothing.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hotswap.embedded.binaries import POSTGRES, SEAWEEDFS, TEMPORAL, VALKEY, from_wheel

REUSE = "HOTSWAP_TEST_STACK"
"""Data directory of a stack that runs already (`python -m hotswap.embedded --servers-only --data-dir DIR`), for quick loops."""

PREFIX = f"hotswap-tests-{os.getuid()}-"
"""Name of a run's folder, before the process id of its owner."""

START_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0

PROJECT = Path(__file__).resolve().parents[2]


class SharedStack:
    """Where the run's stack is, and how to bring it up. `owner` is the process id whose end is the stack's end."""

    def __init__(self, root: Path, owner: int) -> None:
        self.root = root
        self.owner = owner
        self.reused = False

    @classmethod
    def of_this_run(cls) -> "SharedStack":
        """For the process that the user started; the others are told `root` and `owner`."""
        if os.environ.get(REUSE):
            stack = cls(Path(os.environ[REUSE]), os.getpid())
            stack.reused = True
            return stack
        return cls(_roots() / f"{PREFIX}{os.getpid()}", os.getpid())

    def start(self) -> dict[str, Any]:
        """What stack.json says; starts the stack when nobody has yet. Raises RuntimeError with the end of its log."""
        if os.environ.get(REUSE):
            return _read(Path(os.environ[REUSE]) / "stack.json")
        with self._locked():
            if not self._stack_file.exists():
                self._spawn()
            return _read(self._stack_file)

    def stop(self) -> None:
        """Ask it to stop and await its end. Nothing when it never started, or is not ours."""
        if self.reused or not self.root.exists():
            return
        with self._locked():
            if self._stack_file.exists():
                _end(int(_read(self._stack_file)["supervisorPid"]))
            self._log.unlink(missing_ok=True)
        (self.root / "lock").unlink()
        self.root.rmdir()
        _sweep()

    @property
    def _stack_file(self) -> Path:
        return self.root / "data" / "stack.json"

    @property
    def _log(self) -> Path:
        return self.root / "supervisor.log"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(mode=0o700, exist_ok=True)
        with (self.root / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "hotswap.embedded", "--servers-only", "--ephemeral"]
        command += ["--data-dir", str(self.root / "data"), "--until-pid", str(self.owner)]
        to_log = (os.POSIX_SPAWN_OPEN, 1, str(self._log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        pid = os.posix_spawn(
            sys.executable,
            command,
            stack_environment(),
            file_actions=[to_log, (os.POSIX_SPAWN_DUP2, 1, 2)],
            setsid=True,
        )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._stack_file.exists():
            if os.waitpid(pid, os.WNOHANG) != (0, 0) or time.monotonic() > deadline:
                raise RuntimeError(f"the test stack did not start:\n{self._log.read_text(encoding='utf-8')[-8000:]}")
            time.sleep(0.02)


def _roots() -> Path:
    return Path(tempfile.gettempdir())


def _sweep() -> None:
    """Remove what runs that were killed left in the temporary folder, once their stack has ended too."""
    for root in _roots().glob(f"{PREFIX}*"):
        owner = root.name.removeprefix(PREFIX)
        if owner.isdigit() and not Path("/proc", owner).exists() and not _held(root / "data" / "lock"):
            shutil.rmtree(root, ignore_errors=True)  # another run may sweep it at the same time


def _held(lock: Path) -> bool:
    try:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def stack_environment() -> dict[str, str]:
    """Ours, without the settings of some other stack; where programs are found may be said."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HOTSWAP_") or name.startswith("HOTSWAP_EMBEDDED_")
    }
    for program in (TEMPORAL, POSTGRES, VALKEY, SEAWEEDFS):
        # The pinned ones, so that a test means the same on every machine.
        wheel = from_wheel(program)
        if wheel is not None:
            kept.setdefault(program.setting, str(wheel.path))
    inherited = kept.get("PYTHONPATH")
    kept["PYTHONPATH"] = f"{PROJECT}{os.pathsep}{inherited}" if inherited else str(PROJECT)
    return kept


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def _end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        waiter = select.poll()
        waiter.register(handle, select.POLLIN)
        if not waiter.poll(STOP_TIMEOUT * 1000):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            raise RuntimeError(f"the test stack (process {pid}) did not stop within {STOP_TIMEOUT} s and was killed")
    finally:
        os.close(handle)
