"""The node's end of one router process: starting it, telling it, hearing it, its end. Used by hotswap.node.router_pool.

A process that does not answer within its patience is killed: whoever waits for it must learn that it serves no more, which
only a dead one is sure to do. Its clients are cut, others serve, and the pool starts another.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from hotswap.node.control import ControlChannel, Message
from hotswap.node.journal import JournalMemory

log = logging.getLogger(__name__)

END_PATIENCE = 2.0
"""Seconds for a router process to end when it is told to; then it is killed."""

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ", "VIRTUAL_ENV")
"""And PYTHON*. The rest, secrets among them, is not for it: what it needs comes over the control channel."""


class RouterProcess:
    """Belongs to one event loop, in whose thread it must have been made: its life is tied to that thread."""

    def __init__(self, number: int, heard: Callable[["RouterProcess", Message], None]) -> None:
        """`heard(process, message)`: whatever it says of its own, and what it counted, in answers too."""
        self.number = number
        self.live = False
        """It has been told to serve: an order waits for it from now on."""
        self.informed = False
        """It was told the whole state, and is told every change since."""
        self.given: set[int] = set()
        """Hosts, by number, to which it has a line."""
        self.busy: dict[int, int] = {}
        """Its calls under way by host, as of when it told last; `gauges` and `refused` likewise."""
        self.gauges: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.journal = JournalMemory()
        self.notes = 0
        """Of its journal, those that it has told what they say."""
        self.fault = ""
        """Why it cannot serve, in its own words."""
        self.ended = asyncio.Event()
        self._heard_of = heard
        self._asked = 0
        self._answers: dict[int, asyncio.Future[bool]] = {}
        self._releases: dict[int, asyncio.Future[None]] = {}
        self._drained: asyncio.Future[bool] | None = None
        self._loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _spawn(theirs.fileno())
        except OSError:
            ours.close()
            self.journal.close()
            raise
        self._process_fd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._process_fd, self._process_ended)
        self._control = ControlChannel(ours, self._heard, self.kill)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def gone(self) -> bool:
        return self.ended.is_set()

    def tell(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Takes over the descriptors. Nothing when it has gone."""
        self._control.send(message, descriptors)

    async def ask(self, patience: float, *, kill: bool = True) -> bool:
        """Return when it has done all that it was told so far, and told what it counted until then; False when it has gone.

        `kill`: end it when that takes longer than `patience` seconds; otherwise False then.
        """
        if self.gone:
            return False
        self._asked += 1
        seq = self._asked
        answer: asyncio.Future[bool] = self._loop.create_future()
        self._answers[seq] = answer
        self.tell({"kind": "ask", "seq": seq})
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            if not kill:
                return False
        finally:
            self._answers.pop(seq, None)
        log.error("router process %d (pid %d) did not answer within %g s; killing it", self.number, self.pid, patience)
        self.kill()
        await self.ended.wait()
        return False

    async def release(self, host: int) -> None:
        """Have it use a host no more; returns when nothing of it is in flight there, or it has gone."""
        if self.gone or host not in self.given:
            return
        done = self._releases.get(host)
        if done is None:
            done = self._releases[host] = self._loop.create_future()
            self.tell({"kind": "release", "id": host})
        await asyncio.shield(done)

    async def drain(self, grace: timedelta, idle: timedelta) -> bool:
        """As Router.drain; True when it had nothing left, or has gone."""
        if self.gone or not self.live:
            return True
        self._drained = self._loop.create_future()
        self.tell({"kind": "drain", "seconds": grace.total_seconds(), "idle": idle.total_seconds()})
        return await self._drained

    async def close(self) -> None:
        """Have it end, cutting what is left. Repeats are fine."""
        self.tell({"kind": "close"})
        try:
            async with asyncio.timeout(END_PATIENCE):
                await self.ended.wait()
        except TimeoutError:
            self.kill()
            await self.ended.wait()

    def kill(self) -> None:
        if not self.gone:
            self._process.kill()

    def _heard(self, message: Message, descriptors: list[int]) -> None:
        del descriptors  # a router has none to give
        kind = message["kind"]
        if kind == "told":
            self.busy = dict(message["busy"])
            self.gauges, self.refused, self.notes = message["gauges"], message["refused"], message["notes"]
            self._heard_of(self, message)
            _settle(self._answers.get(message["seq"]), True)
        elif kind == "released":
            self.given.discard(message["id"])
            _settle(self._releases.pop(message["id"], None), None)
        elif kind == "drained":
            _settle(self._drained, message["done"])
        elif kind == "failed":
            self.fault = message["why"]
            self.kill()
        else:
            self._heard_of(self, message)

    def _process_ended(self) -> None:
        self._loop.remove_reader(self._process_fd)
        os.close(self._process_fd)
        self._control.read_rest()
        self._control.close()
        self._process.wait()
        self.live = False
        self.busy.clear()
        self.given.clear()
        self.gauges = {}
        self.ended.set()
        for answer in self._answers.values():
            _settle(answer, False)
        for done in self._releases.values():
            _settle(done, None)
        self._releases.clear()
        _settle(self._drained, True)

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.fault:
            return self.fault
        code = self._process.returncode
        return f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"


def _settle(future: "asyncio.Future[Any] | None", value: Any) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    """Exec'ed clean: none of the node's settings and secrets in its environment."""
    environment = {name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name[:6] == "PYTHON"}
    safely = ["-P"] if sys.flags.safe_path else []
    return subprocess.Popen(
        [sys.executable, *safely, "-m", "hotswap.node.router_worker", str(descriptor), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        env=environment,
    )
