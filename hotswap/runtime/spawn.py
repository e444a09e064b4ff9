"""How a zygote makes host processes, by tier: a plain fork, or a fork into namespaces. Used by hotswap.runtime.zygote.

Both speak in messages for the launcher (`forked`, `failed`, `exited`), so that the zygote need not know which it has. A
pid is always the plugin's as the node sees it. Standard library only, single-threaded, never blocks for long.
"""

import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime import namespaces, private_root
from hotswap.runtime.sandbox import Sandbox

Message = dict[str, Any]
Body = Callable[[int], NoReturn]
"""The plugin's process, told the pid of its parent; never returns."""

_CREDENTIALS = struct.Struct("=iII")
_MAX_REPORT_BYTES = 8192
_MAX_FAULT_CHARS = 1000


class Spawner(Protocol):
    def fileno(self) -> int:
        """A descriptor to wait on for `hear`; -1 = none."""
        ...

    def spawn(self, order: int, readable: Sequence[str], body: Body) -> tuple[int, list[Message]]:
        """Start a process that runs `body` and may later read `readable`. Its pid here (0 when it failed), and what is to say."""
        ...

    def hear(self) -> list[Message]:
        """What processes said since."""
        ...

    def reap(self) -> list[Message]:
        """Collect the dead, after SIGCHLD."""
        ...

    def kill(self, pid: int) -> None:
        """SIGKILL for a host of ours; nothing when it is gone."""
        ...

    def close(self) -> None:
        """Let go of what it holds open; its processes are not its any more."""
        ...


def spawner_for(sandbox: Sandbox) -> Spawner:
    return NamespaceSpawner(sandbox) if sandbox.tier == "strong" else PlainSpawner()


class PlainSpawner:
    """For tiers standard and none."""

    def __init__(self) -> None:
        self._children: set[int] = set()

    def fileno(self) -> int:
        return -1

    def spawn(self, order: int, readable: Sequence[str], body: Body) -> tuple[int, list[Message]]:
        del readable  # all of the file system is there; the sandbox says what of it may be read
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as fault:
            return 0, [_failed(order, f"the zygote cannot fork: {fault.strerror}")]
        if pid == 0:
            try:
                _forget_the_zygote()
                body(zygote)
            finally:
                os._exit(1)
        self._children.add(pid)
        return pid, [{"op": "forked", "id": order, "pid": pid}]

    def hear(self) -> list[Message]:
        return []

    def reap(self) -> list[Message]:
        messages: list[Message] = []
        for pid, status, usage in _dead(self._children):
            self._children.discard(pid)
            messages.append(_exited(pid, (status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)))
        return messages

    def kill(self, pid: int) -> None:
        if pid in self._children:  # not reaped, so the pid is still its own
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class _Life:
    """One host by its process 1. end: status, CPU seconds and peak bytes of the plugin, told by its process 1."""

    order: int
    plugin: int = 0
    end: tuple[int, float, int] | None = None
    fault: str = ""
    limit: str = "LOAD_FAILED"


class NamespaceSpawner:
    """For tier strong. The plugin is a grandchild: its process 1 reaps it and reports its end before it ends itself.

    Reports come over one socket whose every record carries the sender's pid, translated by the kernel to how the zygote
    sees it. A plugin cannot forge one: its end of the socket is closed before its code is imported.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._lives: dict[int, _Life] = {}
        self._unborn: dict[int, int] = {}
        """Order -> pid of its process 1, until the plugin's own process is there."""
        self._first_of: dict[int, int] = {}
        """Plugin pid -> pid of its process 1."""
        self._reports, self._report_to = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reports.setblocking(False)
        self._reports.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def fileno(self) -> int:
        return self._reports.fileno()

    def spawn(self, order: int, readable: Sequence[str], body: Body) -> tuple[int, list[Message]]:
        go_reader, go_writer = os.pipe2(os.O_CLOEXEC)
        trees: dict[str, int] = {}
        life = _Life(order)
        first = 0
        try:
            plan = self._sandbox.plan(readable)
            if self._sandbox.reaches_for_hosts:
                trees = private_root.clone_trees(plan, self._sandbox.libc)
            first = namespaces.clone(self._sandbox.machine, self._sandbox.libc)
            if first == 0:
                try:
                    os.close(go_writer)
                    self._be_first(order, plan, trees, go_reader, body)
                finally:
                    os._exit(1)
            self._lives[first], self._unborn[order] = life, first
            user = namespaces.write_maps(first, self._sandbox.own_user)
            os.write(go_writer, b"%d" % user)
        except (SandboxUnavailable, OSError) as fault:
            _note(life, fault)
            if first:
                os.kill(first, signal.SIGKILL)  # `reap` tells
        finally:
            os.close(go_reader)
            os.close(go_writer)
            private_root.close_trees(trees)
        return first, [] if first else [_failed(order, life.fault, life.limit)]

    def hear(self) -> list[Message]:
        messages: list[Message] = []
        while True:
            try:
                data, ancillary, _, _ = self._reports.recvmsg(_MAX_REPORT_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return messages
            sender = next(_CREDENTIALS.unpack(content)[0] for _, _, content in ancillary)
            report = json.loads(data)
            if report["op"] == "born":
                first = self._unborn.pop(report["id"], 0)
                if first:
                    self._lives[first].plugin = sender
                    self._first_of[sender] = first
                    messages.append({"op": "forked", "id": report["id"], "pid": sender})
            elif sender in self._lives:
                life = self._lives[sender]
                if report["op"] == "end":
                    life.end = tuple(report["end"])
                else:
                    life.fault, life.limit = report["fault"], report["limit"]

    def reap(self) -> list[Message]:
        messages: list[Message] = []
        for first, status, usage in _dead(self._lives):
            messages += self.hear()  # it spoke before it ended
            life = self._lives.pop(first)
            if life.plugin:
                del self._first_of[life.plugin]
                # Killed whole, process 1 cannot report; its own figures then include the plugin's.
                figures = (status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
                messages.append(_exited(life.plugin, life.end or figures) | {"fault": life.fault})
            else:
                self._unborn.pop(life.order, None)
                fault = life.fault or f"its namespaces' process 1 ended (status {status}) before the plugin's began"
                messages.append(_failed(life.order, fault, life.limit))
        return messages

    def kill(self, pid: int) -> None:
        """By way of its process 1, which alone knows whether the plugin has ended already, and of what."""
        if pid in self._first_of:
            os.kill(self._first_of[pid], signal.SIGTERM)

    def close(self) -> None:
        self._reports.close()
        self._report_to.close()

    # In process 1 of the new namespaces

    def _be_first(
        self, order: int, plan: private_root.Plan, trees: dict[str, int], go_reader: int, body: Body
    ) -> NoReturn:
        """Fork the plugin, wait for its end, tell it. Holds nothing of the plugin's while it waits."""
        _forget_the_zygote()
        self._sandbox.name_process("hotswap-init")
        libc = self._sandbox.libc
        try:
            if not self._sandbox.reaches_for_hosts:
                trees = private_root.clone_trees(plan, libc)
            user = os.read(go_reader, 32)
            if not user:
                os._exit(1)  # the zygote is gone, or will say itself what went wrong
            namespaces.become(int(user))
            self._sandbox.die_with_parent()  # after the change of user, which clears it
            if namespaces.peer_is_gone(self._report_to):
                os._exit(1)
            signal.signal(signal.SIGTERM, _kill_the_plugin)
            plugin = os.fork()
        except (SandboxUnavailable, OSError) as fault:
            self._give_up(fault)
        if plugin == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                self._report(op="born", id=order)
                self._sandbox.will_move_into(plan, trees)
                body(1)
            finally:
                os._exit(1)
        try:
            self._sandbox.keep_watch_only({2, self._report_to.fileno()})
        except SandboxUnavailable as fault:
            self._give_up(fault)  # and the plugin with us
        while True:
            pid, status, usage = os.wait4(-1, 0)
            if pid == plugin:
                end = (status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
                self._report(op="end", end=end)
                os._exit(0)

    def _give_up(self, fault: SandboxUnavailable | OSError) -> NoReturn:
        life = _Life(0)
        _note(life, fault)
        self._report(op="fault", fault=life.fault, limit=life.limit)
        os._exit(1)

    def _report(self, **report: object) -> None:
        self._report_to.send(json.dumps(report).encode())


def _dead(known: "set[int] | dict[int, _Life]") -> Iterator[tuple[int, int, Any]]:
    while known:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return
        yield pid, status, usage


def _forget_the_zygote() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _kill_the_plugin(number: int, frame: object) -> None:
    del number, frame
    with contextlib.suppress(ProcessLookupError):  # it has ended: the wait below will tell
        os.kill(namespaces.PLUGIN, signal.SIGKILL)


def _note(life: _Life, fault: SandboxUnavailable | OSError) -> None:
    if isinstance(fault, SandboxUnavailable):
        life.fault, life.limit = fault.message[:_MAX_FAULT_CHARS], "SANDBOX"
    else:
        life.fault = f"the sandbox could not be entered: {fault}"[:_MAX_FAULT_CHARS]


def _failed(order: int, message: str, limit: str = "LOAD_FAILED") -> Message:
    return {"op": "failed", "id": order, "message": message, "limit": limit}


def _exited(pid: int, end: tuple[int, float, int]) -> Message:
    status, cpu_seconds, peak_bytes = end
    return {"op": "exited", "pid": pid, "status": status, "cpu_seconds": cpu_seconds, "peak_bytes": peak_bytes}
