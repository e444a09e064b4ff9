"""Commands that start things on this machine, ended by a signal: no process and no temporary folder of theirs is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hotswap.runtime.build import init_plugin
from tests.stack.shared import stack_environment
from tests.stack.supervised import eventually, gone, processes_of


@contextmanager
def started(scratch: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The command, with `scratch` for its temporary folders. Killed in the end if it still runs."""
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "hotswap.cli.main", *arguments],
        env={**stack_environment(), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            gone(scratch)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_plugin_that_is_being_tested_goes_with_its_folder(tmp_path: Path, how: signal.Signals) -> None:
    init_plugin(tmp_path / "endless", "endless")
    with (tmp_path / "endless" / "endless_plugin.py").open("a", encoding="ascii") as code:
        code.write("\nwhile True: pass\n")
    scratch = tmp_path / "scratch"
    with started(scratch, "plugin", "test", str(tmp_path / "endless")) as process:
        eventually(lambda: len(list(scratch.glob("*/bundle/*"))) > 0, "it was not unpacked")
        process.send_signal(how)
        assert process.wait(60) == 128 + how
        assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_while_it_starts_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    scratch = tmp_path / "scratch"
    with started(scratch, "demo", "--no-keep") as process:
        said = read_until(process, "ready in")
        if how is signal.SIGINT:
            ctrl_c(process)
        else:
            process.send_signal(how)  # a supervisor's word reaches the command alone
        said += read_until(process, "is removed")
        assert process.wait(60) == 128 + how
        assert "Traceback" not in said
        assert list(scratch.iterdir()) == []


def test_a_demo_that_cannot_begin_leaves_nothing_and_names_no_folder(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with started(scratch, "demo", "--no-keep", "--examples", str(tmp_path / "nowhere")) as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "name them with --examples" in said
        assert "logs and data" not in said
        assert list(scratch.iterdir()) == []


def test_a_second_ctrl_c_kills_a_demo_that_does_not_stop_and_names_what_stays(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with started(scratch, "demo", "--no-keep") as process:
        read_until(process, "valkey     ready in")
        for pid, command in processes_of(scratch).items():
            if "valkey.conf" in command:
                os.kill(pid, signal.SIGSTOP)  # it will not hear that it shall stop
        ctrl_c(process)
        read_until(process, "stopping ")
        ctrl_c(process)
        (kept,) = scratch.glob("hotswap-demo-*")
        assert read_until(process, "killed; ").rstrip().endswith(f"logs and data stay in {kept}")
        assert process.wait(60) == 130


def ctrl_c(process: "subprocess.Popen[str]") -> None:
    """As a terminal does it: to the whole process group, the pip that builds the examples included."""
    os.killpg(process.pid, signal.SIGINT)


def read_until(process: "subprocess.Popen[str]", wanted: str) -> str:
    """What it says up to the line with `wanted`."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if wanted in line:
            return said
    raise AssertionError(f"{wanted!r} was not said in:\n{said}")
