"""Proof at start that the sandbox holds: a canary child shuts itself in and tries to get out. Called by the zygote.

Every attempt must fail, or no plugin is ever started here. hotswap.runtime.sandbox is what is on trial, and
hotswap.runtime.spawn makes the canary as it makes every host. In tier strong the canary first tries what its namespaces
alone must stop, before Landlock and seccomp could hide that they do not.
"""

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime.namespaces import HOST_NAME
from hotswap.runtime.sandbox import Limits, Sandbox
from hotswap.runtime.spawn import spawner_for

_PATIENCE_MS = 10_000
"""A canary takes 5 ms; 10 s is a machine in deep trouble."""

_LAYER = {
    "read a file outside": "Landlock",
    "write a file outside": "Landlock",
    "open a socket": "seccomp",
    "fork": "seccomp",
    "signal its parent": "seccomp",
    "execute a program": "seccomp",
}
_NAMESPACE = {
    "see a file outside": "the mount namespace",
    "write into its root": "the mount namespace",
    "see another process": "the pid namespace",
    "find a network that is up": "the network namespace",
    "read the node's name": "the UTS namespace",
    "share the node's IPC objects": "the IPC namespace",
    "be a user of the node's": "the user namespace",
}
_OUTSIDE = ("/etc/passwd", "/proc/version", "/proc/self/stat", "/bin/sh", "/usr/bin/env", "/dev/zero", "/sys/kernel")
"""Of these every Linux has some, and no host is shown any."""
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 1
_DONE = "done"


def prove(sandbox: Sandbox) -> None:
    """Raises SandboxUnavailable naming the layer that let the canary out, or that could not be set up."""
    if sandbox.tier == "none":
        return
    reader, writer = os.pipe2(os.O_CLOEXEC)
    spawner = spawner_for(sandbox)
    outside = _Outside(os.getpid(), _namespace_id("ipc"), _namespace_id("user"))
    pid, messages = spawner.spawn(0, [], lambda parent: _canary(sandbox, writer, parent, outside))
    os.close(writer)
    try:
        heard = _listen(reader)
    finally:
        os.close(reader)
        if pid:
            os.kill(pid, signal.SIGKILL)  # it is ours and not yet reaped, so the pid is still its own
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            messages += spawner.reap()
        spawner.close()
    for message in messages:
        if why := message.get("fault") or message.get("message"):
            raise SandboxUnavailable(why)
    judge(heard, strong=sandbox.tier == "strong")


def judge(heard: list[str], *, strong: bool = False) -> None:
    """`heard` is what the canary said, a line an attempt. Silence about an attempt counts against the layer."""
    for line in heard:
        if line.startswith("refused: "):
            raise SandboxUnavailable(line.removeprefix("refused: "))
    attempts = {**(_NAMESPACE if strong else {}), **_LAYER}
    escaped = [attempt for attempt in attempts if f"failed: {attempt}" not in heard]
    if escaped or _DONE not in heard:
        layers = sorted({attempts[attempt] for attempt in escaped}) or ["the sandbox"]
        raise SandboxUnavailable(
            f"{' and '.join(layers)} does not hold here: the self-test's canary could {', '.join(escaped) or 'not finish'}; "
            "check the kernel and the container's security settings"
        )


@dataclass(frozen=True, slots=True)
class _Outside:
    """What the canary must not find again."""

    zygote: int
    ipc: int
    user: int


def _canary(sandbox: Sandbox, writer: int, parent: int, outside: _Outside) -> NoReturn:
    def say(line: str) -> None:
        os.write(writer, f"{line}\n".encode())

    try:
        if sandbox.tier == "strong":
            shared = {"ipc": _namespace_id("ipc") == outside.ipc, "user": _namespace_id("user") == outside.user}
            sandbox.move_in(0)
            for attempt in _held_by_namespaces(outside, shared):
                say(f"failed: {attempt}")
        sandbox.enter([], Limits(64 * 1024 * 1024, 1, 1, 64), [writer], parent)
    except SandboxUnavailable as fault:
        say(f"refused: {fault.message}")
        os._exit(1)
    except OSError as fault:
        say(f"refused: the sandbox could not be entered: {fault}")
        os._exit(1)
    attempts: dict[str, Callable[[], None]] = {
        "read a file outside": _read_outside,
        "write a file outside": _write_outside,
        "open a socket": _open_socket,
        "fork": _fork,
        "signal its parent": lambda: os.kill(parent, 0),
        "execute a program": _execute,  # last: if it succeeds, the canary is no more
    }
    for attempt, escape in attempts.items():
        try:
            escape()
        except OSError:
            say(f"failed: {attempt}")
    say(_DONE)
    os._exit(0)


def _held_by_namespaces(outside: _Outside, shared: dict[str, bool]) -> Iterator[str]:
    """The attempts of `_NAMESPACE` that fail, as they must, with nothing but the namespaces in the way."""
    if not any(os.path.lexists(path) for path in _OUTSIDE):
        yield "see a file outside"
    try:
        os.close(os.open("/hotswap-canary", os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        yield "write into its root"
    if (os.getpid(), os.getppid()) == (2, 1) and (outside.zygote <= 2 or not _visible(outside.zygote)):
        yield "see another process"
    if not any(_is_up(name) for _, name in socket.if_nameindex()):
        yield "find a network that is up"
    if os.uname().nodename == HOST_NAME:
        yield "read the node's name"
    if not shared["ipc"]:
        yield "share the node's IPC objects"
    if not shared["user"]:
        yield "be a user of the node's"


def _visible(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as fault:
        return fault.errno != errno.ESRCH
    return True


def _is_up(interface: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH14x", interface.encode(), 0))
    return bool(struct.unpack("16xH14x", answer)[0] & _IFF_UP)


def _namespace_id(kind: str) -> int:
    return Path(f"/proc/self/ns/{kind}").stat().st_ino


def _read_outside() -> None:
    """Succeeds when any of these can be read; all may be read by anyone on an ordinary system.

    A strong host has none of the files, but a root directory, which Landlock alone keeps it from listing.
    """
    faults = []
    for path in ("/", "/etc/passwd", "/proc/version", "/proc/self/stat"):
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError as fault:
            faults.append(fault)
        else:
            return
    raise faults[0]


def _write_outside() -> None:
    faults = []
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - world-writable on purpose: only the sandbox can refuse
        path = f"{folder}/.hotswap-canary-{os.getpid()}"
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as fault:
            faults.append(fault)
        else:
            Path(path).unlink()
            return
    raise faults[0]


def _open_socket() -> None:
    faults = []
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                socket.socket(family, kind).close()
            except OSError as fault:
                faults.append(fault)
            else:
                return
    raise faults[0]


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _execute() -> None:
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", ""])  # noqa: S606 - the point is to try


def _listen(reader: int) -> list[str]:
    heard = b""
    poller = select.poll()
    poller.register(reader, select.POLLIN | select.POLLHUP)
    while poller.poll(_PATIENCE_MS):
        chunk = os.read(reader, 4096)
        if not chunk:
            break
        heard += chunk
    return heard.decode("utf-8", "replace").splitlines()
