"""What `make bench NAME=invoke` says of rivals that are not installed."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rivals


async def test_a_rival_that_is_not_installed_gives_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    async def floor() -> tuple[float, float]:
        raise AssertionError("nothing is measured")

    by = rivals.Yardstick(floor, by_cpu=True, core=0, load_core=0)
    with monkeypatch.context() as here:
        here.setattr(importlib.util, "find_spec", nothing)
        here.setattr(shutil, "which", nothing)
        await rivals.measure_gunicorn(by)
        await rivals.measure_nginx(tmp_path, by)
    figures, told = capsys.readouterr()
    assert figures == ""
    assert "gunicorn is not installed (make rivals)" in told
    assert "nginx is not installed (make rivals)" in told
