"""`make clean` beside a stack: refused while it runs, not because one was once killed before it could tidy up."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    folder = tmp_path / ".hotswap"
    folder.mkdir()
    return folder


def clean(data: Path, pid: int) -> "subprocess.CompletedProcess[str]":
    (data / "stack.json").write_text(json.dumps({"apiUrl": "http://127.0.0.1:1", "supervisorPid": pid}, indent=2))
    return subprocess.run(["make", "clean"], cwd=data.parent, capture_output=True, text=True, check=False)


def test_the_data_of_a_stack_that_runs_is_kept(data: Path) -> None:
    refused = clean(data, os.getpid())
    assert refused.returncode != 0
    assert f"the stack is running (.hotswap, process {os.getpid()}); stop it first" in refused.stderr
    assert data.exists()


def test_a_stack_that_was_killed_is_in_nobodys_way(data: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert clean(data, ended.pid).returncode == 0
    assert not data.exists()


def test_there_need_not_be_any_data(data: Path) -> None:
    data.rmdir()
    assert subprocess.run(["make", "clean"], cwd=data.parent, check=False).returncode == 0
