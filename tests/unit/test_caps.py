"""What a manifest asks for against the platform's caps, and the limit behind a plugin's exception."""

import errno
import sqlite3
from typing import Any

import pytest

from hotswap.config import SandboxSettings
from hotswap.domain.manifest import Resources
from hotswap.runtime.caps import above, capped
from hotswap.runtime.limits import limit_of

CAPS = SandboxSettings(max_memory_mb=256, max_cpu_seconds=10, max_processes=8, max_open_files=32, max_scratch_mb=4)
AT_CAP = Resources(memory_mb=256, cpu_seconds=10, processes=8, open_files=32, scratch_mb=4)


def test_what_is_at_its_cap_is_given() -> None:
    assert above(AT_CAP, CAPS) == []
    assert capped(AT_CAP, CAPS) == AT_CAP


@pytest.mark.parametrize(
    ("name", "field", "setting"),
    [
        ("memory_mb", "memoryMb", "MAX_MEMORY_MB"),
        ("cpu_seconds", "cpuSeconds", "MAX_CPU_SECONDS"),
        ("processes", "processes", "MAX_PROCESSES"),
        ("open_files", "openFiles", "MAX_OPEN_FILES"),
        ("scratch_mb", "scratchMb", "MAX_SCRATCH_MB"),
    ],
)
def test_what_is_over_its_cap_is_named_with_its_setting_and_cut(name: str, field: str, setting: str) -> None:
    greedy = AT_CAP.model_copy(update={name: getattr(AT_CAP, name) + 1})
    (fault,) = above(greedy, CAPS)
    assert fault.field == f"resources.{field}"
    assert f"HOTSWAP_SANDBOX__{setting}" in fault.message
    assert f"asks for {getattr(greedy, name)}" in fault.message
    assert capped(greedy, CAPS) == AT_CAP


def test_every_resource_has_a_cap() -> None:
    most = Resources(memory_mb=8192, cpu_seconds=3600, processes=256, open_files=1024, scratch_mb=4096)
    assert {fault.field.partition(".")[2] for fault in above(most, CAPS)} == {
        field.alias for field in Resources.model_fields.values()
    }


@pytest.mark.parametrize(
    ("fault", "limit"),
    [
        (MemoryError(), "MEMORY_LIMIT"),
        (OSError(errno.ENOMEM, ""), "MEMORY_LIMIT"),
        (OSError(errno.EMFILE, ""), "FILE_LIMIT"),
        (OSError(errno.ENOSPC, ""), "SCRATCH_LIMIT"),
        (OSError(errno.EFBIG, ""), "SCRATCH_LIMIT"),
        (OSError(errno.EACCES, ""), ""),
        (OSError("no number"), ""),
        (OSError([], {}), ""),
        (RuntimeError("can't start new thread"), "PROCESS_LIMIT"),
        (RuntimeError("can't"), ""),
        (sqlite3.OperationalError("no such table"), ""),
        (SystemExit(), ""),
    ],
)
def test_the_limit_behind_an_exception(fault: BaseException, limit: str) -> None:
    assert limit_of(fault) == limit


class HostileKind(type):
    @property
    def __module__(cls) -> Any:  # type: ignore[override]
        raise SystemExit


class HostileError(ValueError):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit


class HostileDeepDown(Exception, metaclass=HostileKind):
    pass


class LiesAboutItsNumber(OSError):
    @property
    def errno(self) -> Any:  # type: ignore[override]
        raise SystemExit


def test_an_exception_that_bites_whoever_looks_at_it_has_no_limit() -> None:
    for fault in (HostileError(), HostileDeepDown(), LiesAboutItsNumber()):
        assert limit_of(fault) == ""
