"""Runs one part of the stack (a server, or one of our own processes): start, wait until it serves, watch, restart, stop.

Neighbours: the server modules describe a Part; hotswap.embedded.stack runs them all; launch.py stands between fork and
exec and ties each child to this process. Children are started from the event loop's thread, which has to be the main
thread: the kernel kills them when the thread that started them ends.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO

from hotswap.embedded.data_dir import StackError

log = logging.getLogger(__name__)

LAUNCHER = Path(__file__).with_name("launch.py")

DROP_ROOT = "HOTSWAP_EMBEDDED_DROP_ROOT"
"""How a server that refuses root is started by root: namespace, nobody, or auto (default): see launch.py."""

PROBE_EVERY = 0.02
"""Seconds between two looks at a starting part: a readiness request costs a millisecond, a start 200 to 2,000."""

PROBE_TIMEOUT = 5.0
"""Seconds one readiness request may take before it counts as "not yet"."""

BACKOFF = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before restart attempt 1, 2, ...; the last holds from then on. At once first: most deaths are single."""

MAX_LOG_BYTES = 16 * 1024 * 1024
"""A log beyond this is moved to NAME.log.1 when its part starts."""

TAIL_LINES = 15

REASONS_KEPT = 5
"""Failed attempts to restart a part whose reasons are told."""


class NotReady(Exception):
    """The part does not serve yet; the text says what it answered."""


@dataclass(frozen=True)
class Part:
    """What to run and how to know about it.

    `probe` makes one real request and raises NotReady until it is answered well. `unprivileged` names the folder that
    must belong to a user other than root (see launch.py). `tolerated_exits`: starts that may fail before the first
    success, for servers that refuse while a killed predecessor's children still live.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    probe: Callable[[], Awaitable[None]]
    address: str = ""
    before_start: Callable[[], None] = lambda: None
    after_stop: Callable[[], None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    stop_grace: timedelta = timedelta(seconds=15)
    start_timeout: timedelta = timedelta(seconds=60)
    tolerated_exits: int = 0
    unprivileged: Path | None = None
    ready_file: Path | None = None
    """Where the process writes its id once it serves (hotswap.lifeline.announce_ready), if it does."""


@dataclass(frozen=True)
class Restart:
    """One part died and was brought back. `exit_code` is negative for a signal; `failed`: why the attempts
    before the last did not bring it back.
    """

    part: str
    at: datetime
    exit_code: int
    old_pid: int
    new_pid: int
    down: timedelta
    failed: tuple[str, ...] = ()


@dataclass
class Supervised:
    """A running Part. `on_change` is called after every restart, so that stack.json stays true."""

    part: Part
    on_change: Callable[[Restart], None]
    process: asyncio.subprocess.Process | None = None
    restarts: list[Restart] = field(default_factory=list)
    _watcher: asyncio.Task[None] | None = None
    _stopping: bool = False
    _leaving: dict[asyncio.Task[None], asyncio.subprocess.Process] = field(default_factory=dict)
    """Processes that another has taken the place of, until they have ended."""

    @property
    def pid(self) -> int:
        """The process id now. Raises StackError when the part is not started."""
        if self.process is None:
            raise StackError(f"{self.part.name} is not running")
        return self.process.pid

    async def start(self) -> None:
        """Start, wait until it serves, then watch it. Raises StackError with the end of its log."""
        for attempt in range(self.part.tolerated_exits + 1):
            try:
                await self._bring_up()
                break
            except StackError:
                if attempt == self.part.tolerated_exits:
                    raise
                await asyncio.sleep(_backoff(attempt + 2))
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.part.name}")

    async def stop(self) -> None:
        """Ask it to stop, wait `stop_grace`, then kill. Nothing of it is left afterwards. May be called at any time."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        await asyncio.gather(
            self._end(self.process, self.part.stop_signal),
            *(self._end(process, self.part.stop_signal) for process in self._leaving.values()),
        )
        await asyncio.gather(*self._leaving)
        self.part.after_stop()

    async def replace(self, variables: Mapping[str, str]) -> asyncio.subprocess.Process:
        """Start another process, told by `variables` to take the place of this one; returns the one that is on its way out.

        Raises StackError with the end of the log when it does not: then the one before runs and is watched as before.
        """
        before = self.process
        if before is None or self._watcher is None or self.part.ready_file is None:
            raise StackError(f"{self.part.name} cannot be replaced: it is not running, or is being replaced already")
        watcher, self._watcher = self._watcher, None
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        fresh = await self._spawn(variables)
        try:
            await self._serves(fresh, partial(_announced, self.part.ready_file, fresh.pid))
            self.process = fresh
        except BaseException:
            await self._end(fresh, signal.SIGKILL)
            raise
        finally:
            if not self._stopping:
                self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.part.name}")
        leaving = asyncio.create_task(self._see_off(before), name=f"end of {self.part.name}")
        self._leaving[leaving] = before
        leaving.add_done_callback(self._leaving.pop)
        return before

    async def _see_off(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        _kill_group(process.pid)
        log.info("%s (pid %d), which was replaced, ended with code %d", self.part.name, process.pid, code)

    async def _bring_up(self) -> None:
        """One attempt: spawn and wait until it serves; a failed attempt leaves no process."""
        self.part.before_start()
        self.process = await self._spawn()
        try:
            await self._serves(self.process, self.part.probe)
        except BaseException:
            await self._end(self.process, signal.SIGKILL)
            raise

    async def _spawn(self, more: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
        part = self.part
        environment = {**part.environment, **(more or {})}
        return await _launch(part.command, environment, part.log, part.death_signal, part.unprivileged)

    async def _serves(self, process: asyncio.subprocess.Process, probe: Callable[[], Awaitable[None]]) -> None:
        """Return once the probe is answered. Raises StackError when the process ends first, or never serves."""
        last = "no answer yet"
        ended = asyncio.create_task(process.wait())
        try:
            async with asyncio.timeout(self.part.start_timeout.total_seconds()):
                while not ended.done():
                    try:
                        async with asyncio.timeout(PROBE_TIMEOUT):
                            await probe()
                    except (NotReady, TimeoutError) as reason:
                        last = str(reason) or f"no answer within {PROBE_TIMEOUT} s"
                    else:
                        return
                    await asyncio.wait({ended}, timeout=PROBE_EVERY)
        except TimeoutError:
            waited = self.part.start_timeout.total_seconds()
            raise StackError(
                f"{self.part.name} does not serve after {waited:.0f} s ({last}); {_tail(self.part.log)}"
            ) from None
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
        raise StackError(
            f"{self.part.name} ended with code {process.returncode} while starting; {_tail(self.part.log)}"
        )

    async def _watch(self) -> None:
        """Bring the part back whenever it ends, for ever, with growing pauses while it will not stay."""
        while self.process is not None and not self._stopping:
            exit_code, old_pid = await self.process.wait(), self.process.pid
            died = asyncio.get_running_loop().time()
            _kill_group(old_pid)
            log.warning("%s (pid %d) ended with code %d; restarting it", self.part.name, old_pid, exit_code)
            failed = await self._restart()
            down = timedelta(seconds=asyncio.get_running_loop().time() - died)
            restart = Restart(self.part.name, datetime.now(UTC), exit_code, old_pid, self.pid, down, tuple(failed))
            self.restarts.append(restart)
            self.on_change(restart)

    async def _restart(self) -> list[str]:
        """Why the latest attempts before the last one failed."""
        failed: deque[str] = deque(maxlen=REASONS_KEPT)
        for attempt in itertools.count(1):
            await asyncio.sleep(_backoff(attempt))
            try:
                await self._bring_up()
            except (StackError, OSError) as fault:
                log.warning("%s: attempt %d to restart failed: %s", self.part.name, attempt, fault)
                failed.append(str(fault))
            else:
                break
        return list(failed)

    async def _end(self, process: asyncio.subprocess.Process | None, how: signal.Signals) -> None:
        """Signal the process, kill it when it does not listen, reap it, and kill what is left of its group."""
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(how)
            try:
                async with asyncio.timeout(self.part.stop_grace.total_seconds()):
                    await process.wait()
            except TimeoutError:
                log.warning("%s ignores %s; killing it", self.part.name, how.name)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        _kill_group(process.pid)


async def _announced(ready_file: Path, pid: int) -> None:
    """The probe of a process that others share its ports with: it says itself that it serves."""
    if _said_in(ready_file) != str(pid):
        raise NotReady(f"process {pid} has not written {ready_file.name} yet")


def _said_in(file: Path) -> str:
    return file.read_text(encoding="ascii").strip() if file.exists() else ""


async def run_once(
    name: str, command: tuple[str, ...], environment: Mapping[str, str], log_file: Path, unprivileged: Path | None
) -> None:
    """Run a program to its end, as a part would be run. Raises StackError with the end of its log when it fails."""
    process = await _launch(command, environment, log_file, signal.SIGKILL, unprivileged)
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        _kill_group(process.pid)
        await process.wait()
        raise
    if code != 0:
        raise StackError(f"{name} failed with code {code}; {_tail(log_file)}")


async def _launch(
    command: tuple[str, ...],
    environment: Mapping[str, str],
    log_file: Path,
    death_signal: signal.Signals,
    unprivileged: Path | None,
) -> asyncio.subprocess.Process:
    options = ["--parent", str(os.getpid()), "--death-signal", str(int(death_signal))]
    if unprivileged is not None:
        options += ["--unprivileged", str(unprivileged), "--drop", os.environ.get(DROP_ROOT, "auto")]
    with _open_log(log_file) as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LAUNCHER)),
            *options,
            "--",
            *command,
            env=dict(environment),
            cwd=log_file.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor only, which stops all in order
        )


def _tail(log_file: Path) -> str:
    try:
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    except OSError as fault:
        return f"its log {log_file} cannot be read: {fault.strerror}"
    return "\n".join([f"the end of {log_file}:", *(f"  {line}" for line in lines)])


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _backoff(attempt: int) -> float:
    return BACKOFF[min(attempt, len(BACKOFF)) - 1]


def _kill_group(pid: int) -> None:
    """Kill what a part left in its process group. The group's id cannot be reused while a member lives."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
