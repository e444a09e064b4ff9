"""An exit is named for its limit."""

import signal

import pytest

from hotswap.runtime.exits import Exit, judge
from hotswap.runtime.protocol import EXIT_MEMORY


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("end", "cpu_limit", "limit", "says"),
    [
        (Exit(exited(3)), None, "DIED", "code 3"),
        (Exit(exited(0)), None, "DIED", "code 0"),
        (Exit(exited(EXIT_MEMORY)), None, "MEMORY_LIMIT", "memory"),
        (Exit(signal.SIGXCPU, 2.0), 2, "CPU_LIMIT", "2 CPU seconds"),
        (Exit(signal.SIGKILL, 3.01), 2, "CPU_LIMIT", "2 CPU seconds"),
        (Exit(signal.SIGKILL, 0.5), 2, "DIED", "SIGKILL"),
        (Exit(signal.SIGKILL, 100.0), None, "DIED", "SIGKILL"),
        (Exit(signal.SIGXFSZ), None, "SCRATCH_LIMIT", "scratch"),
        (Exit(signal.SIGSYS), None, "DIED", "SIGSYS"),
        (Exit(signal.SIGSEGV | 0x80), None, "DIED", "SIGSEGV"),
        (Exit(50), None, "DIED", "50"),
    ],
)
def test_an_exit_is_named_for_its_limit(end: Exit, cpu_limit: int | None, limit: str, says: str) -> None:
    verdict = judge(end, cpu_limit)
    assert verdict.limit == limit
    assert says in verdict.reason
