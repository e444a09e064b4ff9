"""The program that judges rules and metrics pages: of the system, or what `make promtool` put into .venv."""

import shutil
import sys
from pathlib import Path

import pytest


def find_promtool() -> str:
    """Skips the test that asks where there is none."""
    program = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("no promtool here (make promtool)")
    return program
