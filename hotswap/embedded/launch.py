"""Becomes another program that dies with the supervisor and never runs as root when it must not.

Run as a script by hotswap.embedded.parts: `python -I -S launch.py --parent PID --death-signal N [--unprivileged DIR] -- PROGRAM ...`.
A script of its own, because the steps below belong between fork and exec, where Python code in a process with threads
may deadlock. Standard library only; nothing of this project is importable here.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CLONE_NEWUSER = 0x10000000
LINUX_CAPABILITY_VERSION_3 = 0x20080522

INNER_ID = 1000
"""What root is called inside the user namespace: anything but 0."""

NOBODY = 65534


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def main(arguments: list[str]) -> None:
    """Drop root when asked to, tie this process to its parent, become the program. Exits 1 or 127 with a reason on stderr."""
    cut = arguments.index("--")
    options = dict(zip(arguments[:cut:2], arguments[1:cut:2], strict=True))
    program = arguments[cut + 1 :]
    parent = int(options["--parent"])
    directory = options.get("--unprivileged")
    if directory is not None and os.geteuid() == 0:
        _drop_root(Path(directory), options.get("--drop", "auto"))
    if sys.platform == "linux":
        # After dropping root: the kernel forgets the tie when a process changes its user.
        _call("prctl", PR_SET_PDEATHSIG, int(options["--death-signal"]), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(f"supervisor {parent} is gone; not starting {program[0]}")
    for caught in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(caught, signal.SIG_DFL)
    try:
        os.execvpe(program[0], program, os.environ)  # noqa: S606 - an argument list of ours, never a shell
    except OSError as fault:
        sys.stderr.write(f"cannot start {program[0]}: {fault.strerror}\n")
        sys.exit(127)


def _drop_root(directory: Path, how: str) -> None:
    """PostgreSQL refuses uid 0. `how`: namespace | nobody | auto (the first that this machine allows).

    namespace: root by another name. Files stay root's, so a checkout under a directory that only root may enter works.
    nobody: where user namespaces are switched off (some containers). `directory` is given to nobody, and the one
    capability that lets it pass through directories of root's is kept.
    """
    if how in {"auto", "namespace"}:
        try:
            _enter_user_namespace(directory)
        except OSError as fault:
            if how == "namespace":
                raise
            sys.stderr.write(f"user namespaces are not allowed here ({fault}); running as nobody instead\n")
        else:
            return
    _become_nobody(directory)


def _enter_user_namespace(directory: Path) -> None:
    _own(directory, os.geteuid(), os.getegid())
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{INNER_ID} {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{INNER_ID} {gid} 1", encoding="ascii")


def _become_nobody(directory: Path) -> None:
    _own(directory, NOBODY, NOBODY)
    _call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    header = _CapHeader(LINUX_CAPABILITY_VERSION_3, 0)
    kept = 1 << CAP_DAC_OVERRIDE
    data = (_CapData * 2)(_CapData(kept, kept, kept), _CapData(0, 0, 0))
    _call("capset", ctypes.byref(header), ctypes.byref(data))
    _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def _own(directory: Path, uid: int, gid: int) -> None:
    """Give the tree to uid, when it is not: an earlier start may have dropped root the other way."""
    if directory.stat().st_uid == uid:
        return
    for folder, _, files in os.walk(directory):
        for name in (folder, *(str(Path(folder) / file) for file in files)):
            os.chown(name, uid, gid, follow_symlinks=False)


def _call(function: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
