"""The namespaces of a `strong` host: a process 1 that only waits, and the plugin as process 2, seen by nobody else.

One clone(2) makes user, mount, pid, net, ipc and uts namespaces with the process 1 in them; it forks the plugin, which
moves into its private root (hotswap.runtime.private_root) and then shuts itself in as every tier does
(hotswap.runtime.sandbox). The plugin is not process 1 because that one ignores SIGXCPU and every signal of its own.
Used by hotswap.runtime.spawn in the zygote, which needs no privilege for it: as root each host becomes a user of its own.
"""

import contextlib
import errno
import os
import select
import signal
import socket
from pathlib import Path

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime import privileges
from hotswap.runtime.libc import Libc, errno_name

HOST_NAME = "plugin"
"""What a strong host's node is called, from inside."""

PLUGIN = 2
"""The plugin's pid, from inside: process 1 forks nothing else."""

_CLONE = {"x86_64": 56, "aarch64": 220}
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_SETHOSTNAME = {"x86_64": 170, "aarch64": 161}
_SETDOMAINNAME = {"x86_64": 171, "aarch64": 162}

_NEW_USER = 0x10000000
_OTHERS = {
    "mount": 0x00020000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "IPC": 0x08000000,
    "UTS": 0x04000000,
}
_ALL = _NEW_USER | sum(_OTHERS.values())

_EXACT_COUNT_SINCE = (5, 14)
"""From this Linux on processes are counted for each user namespace by itself, so a shared user can be limited exactly."""


def clone(machine: str, libc: Libc) -> int:
    """Fork into new namespaces of every kind: 0 in their process 1.

    Raises SandboxUnavailable naming the kind that was refused, OSError when the machine is out of processes or memory.
    """
    pid = libc.clone(_CLONE[machine], _ALL | signal.SIGCHLD)
    if pid < 0:
        fault = errno_name()
        if fault in ("EAGAIN", "ENOMEM"):
            raise OSError(getattr(errno, fault), "the zygote cannot fork")
        raise _cannot_clone(machine, libc, fault)
    return pid


def write_maps(pid: int, own_user: bool) -> int:
    """Give the user namespace of `pid` its one user and group. Returns the user it must become, 0 = it already is.

    Called from outside: only there root may map a user other than itself. Raises SandboxUnavailable.
    """
    folder = Path(f"/proc/{pid}")
    root = os.geteuid() == 0
    user, group = os.geteuid(), os.getegid()
    if root:
        user = group = privileges.own_user(pid) if own_user else privileges.NOBODY
    try:
        if not root:  # without privileges a group can be mapped only when groups cannot be given up to gain by it
            (folder / "setgroups").write_text("deny", "ascii")
        (folder / "uid_map").write_text(f"{user} {user} 1", "ascii")
        (folder / "gid_map").write_text(f"{group} {group} 1", "ascii")
    except OSError as fault:
        raise SandboxUnavailable(
            f"the user namespace does not hold: its id map was refused ({fault.strerror}); tier strong needs /proc, and as "
            "root CAP_SETUID and CAP_SETGID (or run the node as an ordinary user)"
        ) from None
    return user if root else 0


def become(user: int) -> None:
    """In process 1: take the user that `write_maps` named. Its capabilities in the namespace stay."""
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def name_host(machine: str, libc: Libc) -> None:
    """Call the node by a name that says nothing. Raises SandboxUnavailable."""
    name = HOST_NAME.encode()
    for number, text in ((_SETHOSTNAME[machine], name), (_SETDOMAINNAME[machine], b"(none)")):
        if libc.syscall(number, text, len(text)) != 0:
            raise SandboxUnavailable(f"the UTS namespace does not hold: sethostname was refused ({errno_name()})")


def counts_processes() -> bool:
    """Whether RLIMIT_NPROC in a user namespace counts that namespace alone."""
    major, minor, *_ = os.uname().release.split(".")
    with contextlib.suppress(ValueError):
        return (int(major), int(minor.partition("-")[0])) >= _EXACT_COUNT_SINCE
    return False


def peer_is_gone(peer: socket.socket) -> bool:
    poller = select.poll()
    poller.register(peer, 0)  # POLLHUP and POLLERR are always told
    return bool(poller.poll(0))


def _cannot_clone(machine: str, libc: Libc, fault: str) -> SandboxUnavailable:
    """Try each kind in a child of its own, so that the answer names a layer and not merely clone."""
    for kind, flag in {"user": 0, **_OTHERS}.items():
        pid = os.fork()
        if pid == 0:
            os._exit(0 if libc.syscall(_UNSHARE[machine], _NEW_USER | flag) == 0 else 1)
        if os.waitpid(pid, 0)[1] != 0:
            return _refused(kind, fault)
    return _refused("user", fault)


def _refused(kind: str, fault: str) -> SandboxUnavailable:
    needs = {
        "user": "user.max_user_namespaces above 0 and a container that allows clone with CLONE_NEWUSER (Docker's and "
        "Kubernetes' default seccomp profile does not)"
    }.get(kind, f"a kernel built with {kind} namespaces")
    return SandboxUnavailable(
        f"the {kind} namespace cannot be made ({fault}); tier strong needs {needs}; HOTSWAP_SANDBOX__TIER=standard does without"
    )
