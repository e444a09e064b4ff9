"""Why a host process ended, in words and as a limit's name. Pure; used by hotswap.runtime.handle."""

import os
import signal
from dataclasses import dataclass

from hotswap.runtime import protocol


@dataclass(frozen=True, slots=True)
class Exit:
    """What the zygote saw when it reaped a host. status: as os.wait4 gives it. peak_bytes: largest resident set."""

    status: int
    cpu_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    limit: str
    reason: str


def judge(end: Exit, cpu_limit: int | None) -> Verdict:
    """Name the limit behind an exit nobody asked for; `cpu_limit` in seconds, None when there was none."""
    if os.WIFEXITED(end.status):
        code = os.WEXITSTATUS(end.status)
        if code == protocol.EXIT_MEMORY:
            return Verdict("MEMORY_LIMIT", "the host ran out of the memory its manifest allows and ended")
        return Verdict("DIED", f"the host exited with code {code}")
    number = os.WTERMSIG(end.status)
    if number == signal.SIGXCPU or (
        number == signal.SIGKILL and cpu_limit is not None and end.cpu_seconds >= cpu_limit
    ):
        return Verdict("CPU_LIMIT", f"the host burnt its {cpu_limit} CPU seconds and was killed")
    if number == signal.SIGXFSZ:
        return Verdict("SCRATCH_LIMIT", "the host wrote a file larger than its scratch directory and was killed")
    if number == signal.SIGSYS:
        return Verdict("DIED", "the host was killed by SIGSYS: a system call in a convention the sandbox forbids")
    name = _signal_name(number)
    if number == signal.SIGKILL:
        return Verdict("DIED", f"the host was killed by {name}: by a person, or by the kernel for lack of memory")
    return Verdict("DIED", f"the host was killed by {name}: it crashed in native code; its log holds the stack")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
