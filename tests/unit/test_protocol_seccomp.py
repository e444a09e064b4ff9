"""The seccomp program says what its list says, on both machines: run here by a small interpreter of its own."""

import errno
import struct
from collections.abc import Sequence

import pytest

from hotswap.domain.errors import SandboxUnavailable
from hotswap.runtime import seccomp

ALLOW, KILL = "allow", "kill"
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PID = 4242


def judged(machine: str, number: int, arguments: Sequence[int] = (), arch: int | None = None) -> str:
    """What the kernel would do with this call."""
    padded = [*arguments, *[0] * 6][:6]
    data = struct.pack("=IIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *padded)
    program = seccomp.assemble(machine, PID)
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert len(instructions) < 4096  # BPF_MAXINSNS
    at = accumulator = 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x54:
                accumulator &= k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x45:
                at += if_true if accumulator & k else if_false
            case 0x06:
                if k == 0x7FFF0000:
                    return ALLOW
                return KILL if k == 0x80000000 else errno.errorcode[k & 0xFFFF]
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


NUMBERS = {
    "x86_64": {"read": 0, "socket": 41, "fork": 57, "execve": 59, "ptrace": 101, "io_uring_setup": 425, "truncate": 76,
               "clone": 56, "clone3": 435, "openat2": 437, "kill": 62, "tgkill": 234, "prctl": 157, "prlimit64": 302,
               "sendto": 44, "sendmsg": 46, "socketpair": 53, "fcntl": 72, "ioctl": 16, "chmod": 90, "execveat": 322},
    "aarch64": {"read": 63, "socket": 198, "fork": 1079, "execve": 221, "ptrace": 117, "io_uring_setup": 425, "truncate": 45,
                "clone": 220, "clone3": 435, "openat2": 437, "kill": 129, "tgkill": 131, "prctl": 167, "prlimit64": 261,
                "sendto": 206, "sendmsg": 211, "socketpair": 199, "fcntl": 25, "ioctl": 29, "chmod": 52, "execveat": 281},
}  # fmt: skip
HIGH = 1 << 32

TABLE = [
    ("read", (3, 0, 1), ALLOW),
    ("socket", (2, 1, 0), "EPERM"),
    ("fork", (), "EPERM"),
    ("execve", (), "EPERM"),
    ("execveat", (), "EPERM"),
    ("ptrace", (), "EPERM"),
    ("io_uring_setup", (), "EPERM"),
    ("truncate", (), "EPERM"),
    ("chmod", (), "EPERM"),
    ("sendmsg", (), "EPERM"),
    ("clone3", (), "ENOSYS"),
    ("openat2", (), "ENOSYS"),
    ("clone", (0x003D0F00,), ALLOW),  # what pthread_create asks for
    ("clone", (17,), "EPERM"),
    ("clone", (0x00010000 | 0x10000000,), "EPERM"),
    ("clone", (0x00010000 | 0x00020000,), "EPERM"),
    ("kill", (PID, 9), ALLOW),
    ("kill", (PID + 1, 0), "EPERM"),
    ("kill", (0, 9), "EPERM"),
    ("kill", (2**64 - 1, 9), "EPERM"),
    ("tgkill", (PID, 99, 6), ALLOW),
    ("tgkill", (1, 1, 6), "EPERM"),
    ("prctl", (15,), ALLOW),
    ("prctl", (1, 0), "EPERM"),
    ("prctl", (22, 2), "EPERM"),
    ("prlimit64", (0, 7, 0, 99), ALLOW),
    ("prlimit64", (0, 7, 99, 0), "EPERM"),
    ("prlimit64", (0, 7, HIGH, 0), "EPERM"),
    ("prlimit64", (1, 7, 0, 99), "EPERM"),
    ("sendto", (3, 99, 5, 0, 0, 0), ALLOW),
    ("sendto", (3, 99, 5, 0, 99, 16), "EPERM"),
    ("sendto", (3, 99, 5, 0, HIGH, 16), "EPERM"),
    ("socketpair", (1, 1 | 0o2000000, 0), ALLOW),
    ("socketpair", (1, 2, 0), "EPERM"),
    ("socketpair", (1, 5 | 0o2000000, 0), "EPERM"),
    ("socketpair", (2, 1, 0), "EPERM"),
    ("fcntl", (3, 4), ALLOW),
    ("fcntl", (3, 8), "EPERM"),
    ("fcntl", (3, 1033), "EPERM"),
    ("ioctl", (3, 0x5421), ALLOW),
    ("ioctl", (3, 0x5452), "EPERM"),
    ("ioctl", (3, 0x5412), "EPERM"),
]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("call", "arguments", "outcome"), TABLE)
def test_a_call_is_judged_by_the_list(machine: str, call: str, arguments: tuple[int, ...], outcome: str) -> None:
    assert judged(machine, NUMBERS[machine][call], arguments) == outcome


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_most_calls_are_refused_and_unknown_ones_too(machine: str) -> None:
    allowed = [number for number in range(600) if judged(machine, number, (1, 99, 99, 99, 99, 99)) == ALLOW]
    assert len(allowed) < 110
    assert judged(machine, 100_000) == "EPERM"


def test_another_convention_is_killed() -> None:
    assert judged("x86_64", 0, arch=0x40000003) == KILL  # i386
    assert judged("x86_64", 0x40000000) == KILL  # x32
    assert judged("aarch64", 0, arch=0x40000028) == KILL  # 32-bit arm


def test_a_machine_without_a_list_is_refused_by_name() -> None:
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        seccomp.assemble("riscv64", 1)
    assert seccomp.machine_name("arm64") == "aarch64"
