"""Taking a host's privileges away: every capability, and a root node's user id. Called by hotswap.runtime.sandbox.

A host forked by root becomes a user that nobody else is, so that file permissions, signals and the limit on threads do
not rest on Landlock and seccomp alone. If that user could not read its own bundle or the interpreter (a mode 0700
directory above them), the host keeps CAP_DAC_READ_SEARCH and nothing else: what it can read is then Landlock's word.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime.libc import Libc, errno_name

_PR_SET_KEEPCAPS = 8
_CAPGET = {"x86_64": 125, "aarch64": 90}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 1 << 2

_OWN_USER_BASE = 0x70000000
"""Above every range that login, systemd (61184-65519) or containers (from 524288) hand out; the pid is added."""
NOBODY = 65534


def own_user(pid: int) -> int:
    """The user and group id that the host with this pid, and nobody else, becomes."""
    return _OWN_USER_BASE + pid


def own_user_ids() -> bool:
    """Whether this process may become any user id, so that each host can have one of its own."""
    if os.geteuid() != 0:
        return False
    try:
        with Path("/proc/self/uid_map").open(encoding="ascii") as lines:
            ranges = [[int(field) for field in line.split()] for line in lines]
    except OSError:
        return False  # without /proc we cannot know; hosts then share one unprivileged user
    top = _OWN_USER_BASE + 2**22  # the largest pid_max
    return any(first <= _OWN_USER_BASE and top < first + length for first, _, length in ranges)


def drop(readable: Sequence[str], alone: bool, machine: str, libc: Libc) -> bool:
    """Give up root and every capability in this process. True when it now has a user id of its own (asked for by `alone`).

    Raises SandboxUnavailable when the kernel refuses to take the capabilities.
    """
    became = False
    if os.geteuid() == 0:
        libc.prctl(_PR_SET_KEEPCAPS, 1)
        became = _become(own_user(os.getpid()) if alone else NOBODY)
        libc.prctl(_PR_SET_KEEPCAPS, 0)
    # After leaving uid 0 the effective set is empty: access is judged as for anyone, and the permitted set can restore.
    kept = 0
    if became and not all(os.access(path, os.R_OK | os.X_OK, effective_ids=True) for path in readable):
        kept = _CAP_DAC_READ_SEARCH
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    if libc.syscall(_CAPSET[machine], header, sets) != 0:
        raise SandboxUnavailable(f"capabilities could not be dropped ({errno_name()}); the container must allow capset")
    return became and alone


def _become(user: int) -> bool:
    """False when a container withheld CAP_SETUID: the process then stays uid 0, without any capability."""
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except PermissionError:
        return False
    return True
