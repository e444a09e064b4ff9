"""Landlock: the files a plugin host can reach, and nothing beyond. Pure ctypes over system calls 444 to 446.

Used by hotswap.runtime.sandbox in the forked child. Handles every access right the running kernel knows, so what is not
granted is denied: all writing, all TCP, abstract unix sockets, signals to the outside (as far as its ABI goes; what an
older ABI leaves open hotswap.runtime.seccomp denies too).
"""

import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime.libc import Libc, errno_name

_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_IN_SCRATCH = (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 13) | (1 << 14)
"""Remove and make directories and plain files, rename among them, truncate: all but links, sockets, pipes and devices."""

_FILE_RIGHTS_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_RIGHTS = 0b11  # bind and connect TCP, ABI 4
_SCOPES = 0b11  # abstract unix sockets and signals, ABI 6


@dataclass(frozen=True, slots=True)
class OpenPath:
    """A file or directory held open by O_PATH, to be granted to a host."""

    fd: int
    is_dir: bool
    writable: bool = False
    scratch: bool = False
    """A directory in which files and directories may also be made and removed."""


def open_path(path: str, *, writable: bool = False, scratch: bool = False) -> OpenPath:
    """Raises OSError when there is no such path."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return OpenPath(fd, stat.S_ISDIR(os.fstat(fd).st_mode), writable, scratch)
    except BaseException:
        os.close(fd)
        raise


def abi(libc: Libc) -> int:
    """The kernel's Landlock version, 1 or more. Raises SandboxUnavailable."""
    version = libc.syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    if version < 1:
        raise _refused(
            "is not there", "Linux 5.13 or newer with 'landlock' in the lsm= list, and a container that allows it"
        )
    return version


def restrict(paths: Sequence[OpenPath], libc: Libc) -> None:
    """Leave the calling process nothing but reading beneath `paths` (and writing the writable ones), for good.

    Needs no_new_privs. Raises SandboxUnavailable naming the step that failed.
    """
    version = abi(libc)
    rights = _FILE_RIGHTS_OF_ABI[min(version, 5)]
    attributes = struct.pack("=QQQ", rights, _NET_RIGHTS, _SCOPES)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        raise _refused("refused the rule set", "a container that allows landlock_create_ruleset")
    try:
        for path in paths:
            granted = _READ_FILE | (_READ_DIR if path.is_dir else 0) | (_WRITE_FILE if path.writable else 0)
            if path.scratch:
                granted |= _IN_SCRATCH & rights
            rule = struct.pack("=Qi", granted, path.fd)
            if libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
                raise _refused("refused a rule", "a container that allows landlock_add_rule")
        if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            raise _refused("could not be entered", "no_new_privs and a container that allows landlock_restrict_self")
    finally:
        os.close(ruleset)


def _refused(what: str, needs: str) -> SandboxUnavailable:
    return SandboxUnavailable(f"Landlock {what} ({errno_name()}); it needs {needs}")
