"""The node's end of one zygote process: starting it, its control socket, its end. Used by hotswap.runtime.launcher.

Control messages are JSON, one SOCK_SEQPACKET record each; a fork order carries the host's descriptors. Sending never
blocks the loop: what does not fit waits for the socket to become writable.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hotswap
from hotswap.domain.errors import HostFailed, SandboxUnavailable
from hotswap.runtime.exits import Exit
from hotswap.runtime.handle import ZygoteHost
from hotswap.runtime.host import Assignment
from hotswap.runtime.preload import package_folders
from hotswap.runtime.sandbox import Tier
from hotswap.runtime.zygote import MAX_MESSAGE_BYTES

_START = "import sys; sys.path.append(sys.argv[1]); from hotswap.runtime.zygote import start; start()"
START_PATIENCE = 30.0
"""Seconds. A zygote is ready in about 0.2 s; this is for a machine in deep trouble."""
_END_PATIENCE = 5.0


class ZygoteLink:
    """One zygote. Belongs to one event loop, in whose thread it must have been made: its life is tied to that thread."""

    def __init__(self, tier: Tier, on_end: Callable[["ZygoteLink"], None], modules: Sequence[str] = ()) -> None:
        """Start the process; `wait_ready` tells when it can fork. `on_end` is called once, when it is gone.

        `modules`: to preload besides what it always does.
        """
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._next_order = 0
        self._orders: dict[int, tuple[ZygoteHost, asyncio.Future[None]]] = {}
        self._hosts: dict[int, ZygoteHost] = {}
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control.setblocking(False)
            self._process = _spawn(tier, theirs.fileno(), modules)
        self._process_fd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._control, self._readable)
        self._loop.add_reader(self._process_fd, self._process_ended)

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def hosts(self) -> list[ZygoteHost]:
        return list(self._hosts.values())

    async def wait_ready(self) -> None:
        """Raises SandboxUnavailable: the self-test failed, or the zygote could not start at all."""
        try:
            async with asyncio.timeout(START_PATIENCE):
                await self._ready
        except TimeoutError:
            raise SandboxUnavailable(f"the zygote did not start within {START_PATIENCE:g} s") from None

    async def fork(self, assignment: Assignment, fds: Sequence[int], host: ZygoteHost) -> None:
        """Have the zygote fork `host`, whose pid is then set. `fds` are copied: the caller closes its own.

        Raises HostFailed when it cannot, SandboxUnavailable when its namespaces cannot be made.
        """
        self._next_order += 1
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(lambda future: future.exception())  # its caller may have been cancelled
        if not self.alive:
            host.never_ran("the zygote has ended")
            raise HostFailed("the zygote has ended", "DIED")
        order = {"op": "fork", "id": self._next_order, "assignment": asdict(assignment)}
        data = json.dumps(order).encode()
        if len(data) > MAX_MESSAGE_BYTES:
            host.never_ran("its assignment is too large")
            raise HostFailed(f"the host's assignment has {len(data)} bytes; the manifest names too much", "LOAD_FAILED")
        self._orders[self._next_order] = (host, done)
        self._send(data, [os.dup(fd) for fd in fds])
        await asyncio.shield(done)  # once ordered it will happen; host.forked ends a host nobody waits for

    def kill_host(self, pid: int) -> None:
        """SIGKILL, by the one process that knows whether the pid is still the host's."""
        if self.alive and pid in self._hosts:
            self._send(json.dumps({"op": "kill", "pid": pid}).encode(), [])

    def kill(self) -> None:
        """End the zygote, and by it every host."""
        if self.alive:
            self._process.kill()

    async def close(self) -> None:
        """Close the channel, upon which the zygote exits; kill it when it does not. Returns when it is reaped."""
        if self.alive:
            self._loop.remove_reader(self._control)
            self._loop.remove_writer(self._control)
            self._control.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_PATIENCE):
                    await self._ended.wait()
            self.kill()
            await self._ended.wait()

    def _send(self, data: bytes, fds: list[int]) -> None:
        """Takes over `fds`."""
        self._unsent.append((data, fds))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                if fds:
                    socket.send_fds(self._control, [data], fds)
                else:
                    self._control.send(data)
            except BlockingIOError:
                self._loop.add_writer(self._control, self._flush)
                return
            except OSError:
                break  # the zygote is gone; _process_ended tells everyone
            self._unsent.popleft()
            _close_all(fds)
        if self._control.fileno() >= 0:
            self._loop.remove_writer(self._control)

    def _readable(self) -> None:
        while True:
            try:
                data = self._control.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._control)
                self._process.kill()  # it hung up: it has ended or is no use
                return
            self._hear(json.loads(data))

    def _hear(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "ready":
                if not self._ready.done():
                    self._ready.set_result(None)
            case "unavailable":
                if not self._ready.done():
                    self._ready.set_exception(SandboxUnavailable(message["message"]))
            case "forked":
                host, done = self._orders.pop(message["id"])
                self._hosts[message["pid"]] = host
                host.forked(message["pid"])
                done.set_result(None)
            case "failed":
                host, done = self._orders.pop(message["id"])
                host.never_ran(message["message"])
                if message["limit"] == "SANDBOX":
                    done.set_exception(SandboxUnavailable(message["message"]))
                else:
                    done.set_exception(HostFailed(message["message"], message["limit"]))
            case "exited":
                end = Exit(message["status"], message["cpu_seconds"], message["peak_bytes"])
                self._hosts.pop(message["pid"]).exited(end)

    def _process_ended(self) -> None:
        self._loop.remove_reader(self._process_fd)
        os.close(self._process_fd)
        if self._control.fileno() >= 0:
            self._readable()  # its last reports
            self._loop.remove_reader(self._control)
            self._loop.remove_writer(self._control)
            self._control.close()
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        reason = f"the zygote {how}, and its hosts with it; the next launch starts another"
        self._ended.set()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        if not self._ready.done():
            self._ready.set_exception(SandboxUnavailable(f"the zygote {how} before it was ready; its stderr says why"))
        if not self._ready.cancelled():
            self._ready.exception()  # nobody need be waiting for it any more
        orders, self._orders = self._orders, {}
        for host, done in orders.values():
            host.never_ran(reason)
            done.set_exception(HostFailed(reason, "DIED"))
        hosts, self._hosts = self._hosts, {}
        for host in hosts.values():
            host.never_ran(reason)
        self._on_end(self)


def _spawn(tier: Tier, control_fd: int, modules: Sequence[str]) -> subprocess.Popen[bytes]:
    """Exec'ed clean: isolated mode, no site-packages, no secrets in the environment, no terminal."""
    code_path = str(Path(hotswap.__file__).parent.parent)
    # One malloc arena: each thread's own would reserve 64 MiB of a host's address space.
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
    if libraries := os.environ.get("LD_LIBRARY_PATH"):  # an interpreter may not start without it
        environment["LD_LIBRARY_PATH"] = libraries
    if modules:  # native libraries then start no threads, which a fork would not take along
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-B",
            "-X",
            "utf8",
            "-c",
            _START,
            code_path,
            str(control_fd),
            tier,
            str(os.getpid()),
            json.dumps({"modules": list(modules), "folders": package_folders() if modules else []}),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(control_fd,),
        env=environment,
        cwd="/",
        start_new_session=True,
    )


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
