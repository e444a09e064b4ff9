"""The entries import without garbage collection, and collect garbage from then on."""

import subprocess
import sys

import pytest

LOOK = """
import gc, importlib
passes = []
gc.callbacks.append(lambda phase, info: passes.append(info["generation"]))
importlib.import_module("{entry}")
assert gc.isenabled(), "nobody collects garbage any more"
assert gc.get_freeze_count() > 50_000, "what was imported is looked through again and again"
assert passes.count(2) == 0, f"everything was looked through {{passes.count(2)}} times"
"""


@pytest.mark.parametrize("entry", ["api.__main__", "worker", "hotswap.node.__main__", "hotswap.cli.main"])
def test_what_starts_imports_without_collecting_garbage(entry: str) -> None:
    told = subprocess.run([sys.executable, "-c", LOOK.format(entry=entry)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_where_nobody_collects_garbage_it_stays_so() -> None:
    look = "import gc; gc.disable(); from hotswap import quick_start; quick_start.imports_are_done(); assert not gc.isenabled()"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_no_command_waits_for_the_domain_model_that_it_does_not_need() -> None:
    look = "import sys, hotswap.cli.main; assert 'hotswap.domain.deployment' not in sys.modules"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
