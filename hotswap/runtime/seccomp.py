"""The system calls a plugin host may make: an allow-list as a BPF program, assembled by hand.

Pure apart from `install`. hotswap.runtime.sandbox installs it last, on a single-threaded process. What is not listed
fails with EPERM, so that a plugin's library sees an ordinary refusal; clone3 and openat2 fail with ENOSYS, so that libc
falls back to what can be judged here (their arguments lie behind pointers). A call in another machine's convention
(i386, x32) kills the process. Numbers: asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64) of Linux 6.
"""

import ctypes
import errno
import struct
from collections.abc import Iterator
from functools import cache

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime.libc import Libc, errno_name

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN = 0x06

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000

_NUMBER_AT = 0
_ARCH_AT = 4
_ARGUMENTS_AT = 16

_X32_BIT = 0x40000000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); None = the machine has no such call. No one of these reaches another process or makes a
# socket; those that open files are bounded by Landlock.
_PLAIN: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "preadv": (295, 69),
    "open": (2, None), "openat": (257, 56), "close": (3, 57), "close_range": (436, 436),
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
    "lseek": (8, 62), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17),
    "chdir": (80, 49), "fchdir": (81, 50), "umask": (95, 166),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441), "eventfd2": (290, 19),
    "timerfd_create": (283, 85), "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87),
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "membarrier": (324, 283),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, None),
    "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102),
    "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293), "set_tid_address": (218, 96),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150),
    "getgroups": (115, 158), "getpgid": (121, 155), "getpgrp": (111, None), "getsid": (124, 156),
    "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278), "getrusage": (98, 165), "getrlimit": (97, 163),
    "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95),
    "recvfrom": (45, 207), "shutdown": (48, 210), "getsockname": (51, 204), "getsockopt": (55, 209),
}  # fmt: skip

# Besides, for a host with a scratch directory: all that changes files within it, as far as Landlock lets a path through.
_SCRATCH: dict[str, tuple[int | None, int | None]] = {
    "pwrite64": (18, 68), "pwritev": (296, 70), "ftruncate": (77, 46), "fsync": (74, 82), "fdatasync": (75, 83),
    "fallocate": (285, 47), "flock": (73, 32), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
}  # fmt: skip

# Calls judged by their arguments; see `_judged`.
_JUDGED: dict[str, tuple[int, int]] = {
    "clone": (56, 220),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "kill": (62, 129),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "sendto": (44, 206),
    "socketpair": (53, 199),
    "tgkill": (234, 131),
}

# Besides, for a host that may have connections made by its node (hotswap.runtime.egress): connected sockets come by
# SCM_RIGHTS over one descriptor, and over no other; ssl asks a socket for its peer.
_RECVMSG = (47, 212)
_GETPEERNAME = (52, 205)

_ABSENT = {"clone3": 435, "openat2": 437}

_CLONE_THREAD = 0x00010000
_CLONE_NEW_NAMESPACE = 0x7E020080
"""Every CLONE_NEW* flag: TIME, NS, CGROUP, UTS, IPC, USER, PID, NET."""
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. F_SETOWN would let SIGIO reach others.
_FCNTL = (0, 1, 2, 3, 4, 1030, 1032)
_FCNTL_LOCKS = (5, 6, 7, 36, 37, 38)  # F_GETLK, F_SETLK, F_SETLKW and their F_OFD_ kin: SQLite locks its file
# TCGETS (isatty), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, TIOCGWINSZ. FIOASYNC and FIOSETOWN would let SIGIO reach others.
_IOCTL = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451, 0x5413)
# PR_SET_NAME, PR_GET_NAME, PR_SET_VMA (glibc names its mappings). Above all not PR_SET_PDEATHSIG.
_PRCTL = (15, 16, 0x53564D41)
_AF_UNIX = 1
_SOCK_STREAM = 1
_SOCK_TYPE_MASK = 0xF

_Instruction = tuple[int, int, int, int]


def machine_name(machine: str) -> str:
    """The name used here for os.uname().machine. Raises SandboxUnavailable naming a machine without a list."""
    name = {"arm64": "aarch64", "amd64": "x86_64"}.get(machine.lower(), machine.lower())
    if name not in _AUDIT_ARCH:
        raise SandboxUnavailable(
            f"seccomp: no system call list for the machine '{machine}' (there are x86_64 and aarch64); "
            "run nodes on one of these, or set HOTSWAP_SANDBOX__TIER=none outside Production"
        )
    return name


@cache
def assemble(machine: str, pid: int, *, scratch: bool = False, receives_on: int | None = None) -> bytes:
    """The BPF program for a process with this pid, which cannot change as it cannot fork. scratch: it has a directory.

    receives_on: the descriptor over which the node passes sockets, if it does.
    """
    name = machine_name(machine)
    column = 0 if name == "x86_64" else 1
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, _AUDIT_ARCH[name]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if name == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    for numbers in (*_PLAIN.values(), *(_SCRATCH.values() if scratch else ())):
        number = numbers[column]
        if number is not None:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number in _ABSENT.values():
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for call, both in _JUDGED.items():
        block = [*_judged(call, pid, scratch), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
        program += [(_EQUAL, 0, len(block), both[column]), *block]
    if receives_on is not None:
        block = [*_one_of(0, (receives_on,)), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
        program += [(_EQUAL, 0, len(block), _RECVMSG[column]), *block]
        program += [(_EQUAL, 0, 1, _GETPEERNAME[column]), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _judged(call: str, pid: int, scratch: bool) -> Iterator[_Instruction]:
    """Instructions that return ALLOW when the arguments are harmless and fall through when not."""
    allow = (_RETURN, 0, 0, _ALLOW)
    match call:
        case "clone":  # threads only, and no new namespace
            yield from (
                _low(0),
                (_ANY_BIT, 2, 0, _CLONE_NEW_NAMESPACE),
                (_ANY_BIT, 0, 1, _CLONE_THREAD),
                allow,
            )
        case "fcntl":
            yield from _one_of(1, (*_FCNTL, *(_FCNTL_LOCKS if scratch else ())))
        case "ioctl":
            yield from _one_of(1, _IOCTL)
        case "prctl":
            yield from _one_of(0, _PRCTL)
        case "kill" | "tgkill":  # only itself
            yield from _one_of(0, (pid,))
        case "prlimit64":  # only reading its own: pid 0, no new limit
            yield from (_low(0), (_EQUAL, 0, 5, 0), *_null(2, 1), allow)
        case "sendto":  # a connected stream only: no address
            yield from (*_null(4, 1), allow)
        case "socketpair":  # asyncio's self-pipe; a datagram pair could send to any path
            yield from (
                _low(0),
                (_EQUAL, 0, 4, _AF_UNIX),
                _low(1),
                (_AND, 0, 0, _SOCK_TYPE_MASK),
                (_EQUAL, 0, 1, _SOCK_STREAM),
                allow,
            )


def _low(argument: int) -> _Instruction:
    """Load the low half of an argument: all that the kernel itself reads of an `int`. Both machines are little-endian."""
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)


def _null(argument: int, past: int) -> tuple[_Instruction, ...]:
    """Go on when both halves of a pointer are 0; otherwise skip the rest and `past` instructions more."""
    return (
        _low(argument),
        (_EQUAL, 0, 2 + past, 0),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument + 4),
        (_EQUAL, 0, past, 0),
    )


def _one_of(argument: int, values: tuple[int, ...]) -> Iterator[_Instruction]:
    yield _low(argument)
    for value in values:
        yield (_EQUAL, 0, 1, value)
        yield (_RETURN, 0, 0, _ALLOW)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(program: bytes, libc: Libc) -> None:
    """Put the calling thread under the program for good. Needs no_new_privs. Raises SandboxUnavailable."""
    code = ctypes.create_string_buffer(program, len(program))
    header = _Program(len(program) // 8, ctypes.cast(code, ctypes.c_void_p))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header)) != 0:
        raise SandboxUnavailable(
            f"seccomp: the kernel refused the filter ({errno_name()}); "
            "it needs CONFIG_SECCOMP_FILTER and a container that allows prctl(PR_SET_SECCOMP)"
        )
