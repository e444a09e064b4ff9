"""A trial loads a version in the sandbox, runs its smoke tests and reports; it leaves nothing behind, however it ends."""

import asyncio
import json
import textwrap
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hotswap.config import SandboxSettings
from hotswap.domain.errors import BundleRejected, ManifestInvalid
from hotswap.runtime.smoke import same_json
from hotswap.runtime.trial import SandboxTrialRunner
from tests.integration.host_lab import children_of, until

PATIENCE = timedelta(seconds=60)


@pytest_asyncio.fixture(loop_scope="session")
async def runner(tmp_path: Path) -> AsyncIterator[SandboxTrialRunner]:
    runner = SandboxTrialRunner(SandboxSettings(), tmp_path / "trials")
    yield runner
    await runner.close()
    assert list((tmp_path / "trials").glob("*")) == []


def archive(folder: Path, source: str, *smoke: dict[str, Any], **manifest: Any) -> Path:
    """A bundle whose class Plugin has the methods that `source` gives it; `methods` defaults to `run`."""
    document = {
        "name": "tried",
        "version": "1.2.3",
        "entryPoint": "tried:Plugin",
        "methods": [{"name": "run"}],
        "smokeTests": list(smoke),
        **manifest,
    }
    path = folder / "bundle.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("plugin.json", json.dumps(document))
        bundle.writestr("tried.py", textwrap.dedent(source))
    return path


ECHO = """
    class Plugin:
        def run(self, parameters, context):
            return parameters
"""


async def test_a_good_version_passes_with_figures(runner: SandboxTrialRunner, tmp_path: Path) -> None:
    smoke: list[dict[str, Any]] = [
        {"method": "run", "parameters": {"a": [1, None]}, "expected": {"a": [1.0, None]}},
        {"method": "run", "parameters": {"b": 2}, "expectedSchema": {"type": "object", "required": ["b"]}},
        {"method": "run"},
    ]
    report = await runner.run_trial(archive(tmp_path, ECHO, *smoke), PATIENCE)
    assert report.passed
    assert report.sandbox_tier == "standard"
    assert (report.limit, report.detail) == ("", "")
    assert [test.passed for test in report.smoke_tests] == [True, True, True]
    assert 0 < report.load_ms < report.duration_ms
    assert report.peak_memory_bytes > 1_000_000


@pytest.mark.parametrize(
    ("smoke", "says"),
    [
        ({"parameters": {"a": 1}, "expected": {"a": 2}}, 'expected {"a": 2} and got {"a": 1}'),
        ({"parameters": {"a": 1}, "expected": {"a": True}}, "expected"),
        ({"parameters": {}, "expected": None}, "expected null and got {}"),
        (
            {"parameters": {"a": 1}, "expectedSchema": {"properties": {"a": {"type": "string"}}}},
            "at a: 1 is not of type",
        ),
        ({"expectedSchema": {"$ref": "http://169.254.169.254/latest"}}, "cannot be applied: "),
    ],
)
async def test_a_wrong_result_fails_and_shows_both(
    runner: SandboxTrialRunner, tmp_path: Path, smoke: dict[str, Any], says: str
) -> None:
    report = await runner.run_trial(archive(tmp_path, ECHO, {"method": "run", **smoke}), PATIENCE)
    assert not report.passed
    assert says in report.smoke_tests[0].detail
    assert says in report.detail
    assert "smoke test of 'run'" in report.detail


async def test_a_pattern_made_to_hang_costs_a_sandbox_and_not_the_worker(
    runner: SandboxTrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotswap.runtime.smoke._CHECK_CPU_SECONDS", 1)
    smoke = {
        "method": "run",
        "parameters": {"a": "a" * 60 + "!"},
        "expectedSchema": {"properties": {"a": {"pattern": "^(a+)+$"}}},
    }
    report = await runner.run_trial(archive(tmp_path, ECHO, smoke), PATIENCE)
    assert not report.passed
    assert "cannot be checked within 1 CPU seconds" in report.detail


@pytest.mark.parametrize(
    ("source", "manifest", "limit", "says"),
    [
        ("class Plugin: pass", {}, "LOAD_FAILED", "no method run"),
        ("class Other: pass", {}, "LOAD_FAILED", "no class 'Plugin'"),
        ("import nowhere", {}, "LOAD_FAILED", "nowhere"),
        (ECHO, {"requires-python": "<3"}, "LOAD_FAILED", "requires-python <3 excludes"),
        ("class Plugin:\n def run(self, p, c): raise KeyError('x')", {}, "", "raised KeyError"),
        ("class Plugin:\n def run(self, p, c): return object()", {}, "BAD_REPLY", "not JSON"),
        ("class Plugin:\n def run(self, p, c):\n  while True: pass", {}, "CPU_LIMIT", "CPU seconds"),
        ("class Plugin:\n def run(self, p, c): return bytearray(2**30)", {}, "MEMORY_LIMIT", "memory"),
        ("class Plugin:\n def run(self, p, c): return 'x' * 2**23", {}, "REPLY_TOO_LARGE", "at most"),
        ("import os\nclass Plugin:\n def run(self, p, c): os._exit(9)", {}, "DIED", "code 9"),
        (
            "class Plugin:\n def run(self, p, c): return 1\n def health(self): return False",
            {},
            "",
            "first probe failed",
        ),
        ("class Plugin:\n def run(self, p, c): open('/etc/passwd')", {}, "", "raised PermissionError"),
    ],
)
async def test_a_bad_version_is_a_report_that_names_the_limit(
    runner: SandboxTrialRunner, tmp_path: Path, source: str, manifest: dict[str, Any], limit: str, says: str
) -> None:
    resources = {"memoryMb": 128, "cpuSeconds": 1}
    path = archive(tmp_path, source, {"method": "run"}, resources=resources, **manifest)
    report = await runner.run_trial(path, PATIENCE)
    assert not report.passed
    assert says in report.detail
    assert report.limit == limit


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"memoryMb": 4096}, "resources.memoryMb asks for 4096; this platform allows 2048"),
        ({"scratchMb": 1}, "scratchMb, which sandbox tier standard cannot bound"),
    ],
)
async def test_what_cannot_be_given_fails_the_trial_before_anything_runs(
    runner: SandboxTrialRunner, tmp_path: Path, resources: dict[str, int], says: str
) -> None:
    report = await runner.run_trial(archive(tmp_path, ECHO, resources=resources), PATIENCE)
    assert (report.passed, report.limit) == (False, "LOAD_FAILED")
    assert says in report.detail


async def test_a_flood_of_output_is_named_and_fails_nobody(runner: SandboxTrialRunner, tmp_path: Path) -> None:
    source = "class Plugin:\n def run(self, p, c):\n  for _ in range(9000): print('x' * 99)"
    report = await runner.run_trial(archive(tmp_path, source, {"method": "run"}), PATIENCE)
    assert report.passed
    assert report.limit == "OUTPUT_LIMIT"


async def test_a_trial_that_takes_too_long_is_cut(runner: SandboxTrialRunner, tmp_path: Path) -> None:
    source = "import time\nclass Plugin:\n def run(self, p, c): time.sleep(60)"
    path = archive(tmp_path, source, {"method": "run"}, {"method": "run"})
    report = await runner.run_trial(path, timedelta(seconds=1.5))
    assert (report.passed, report.limit) == (False, "TIMEOUT")
    assert report.duration_ms < 20_000
    await until(lambda: not children_of(runner._launcher.zygote_pid))


async def test_a_cancelled_trial_leaves_nothing(runner: SandboxTrialRunner, tmp_path: Path) -> None:
    source = "import time\ntime.sleep(60)"
    path = archive(tmp_path, source)
    for wait_for_process in (False, True):
        trial = asyncio.create_task(runner.run_trial(path, PATIENCE))
        if wait_for_process:
            await until(lambda: bool(children_of(runner._launcher.zygote_pid)))
        else:
            await until(lambda: any((tmp_path / "trials").glob("*")))
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert not any((tmp_path / "trials").iterdir())
        await until(lambda: not children_of(runner._launcher.zygote_pid))


async def test_a_bad_archive_is_an_error_and_no_report(runner: SandboxTrialRunner, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(BundleRejected):
        await runner.run_trial(broken, PATIENCE)
    with pytest.raises(ManifestInvalid):
        await runner.run_trial(archive(tmp_path, ECHO, surprise=1), PATIENCE)
    assert not any((tmp_path / "trials").iterdir())


async def test_only_so_many_trials_run_at_once(tmp_path: Path) -> None:
    runner = SandboxTrialRunner(SandboxSettings(max_instances=2), tmp_path / "trials")
    source = "import time\nclass Plugin:\n def run(self, p, c): time.sleep(0.2)"
    path = archive(tmp_path, source, {"method": "run"})
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            trials = tmp_path / "trials"
            most = max(most, len(list(trials.iterdir())) if trials.exists() else 0)
            await asyncio.sleep(0.01)

    watcher = asyncio.create_task(watch())
    try:
        reports = await asyncio.gather(*(runner.run_trial(path, PATIENCE) for _ in range(5)))
    finally:
        watcher.cancel()
        await runner.close()
    assert all(report.passed for report in reports)
    assert 1 <= most <= 2


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (None, False, False),
        ([1, {"a": None}], [1, {"a": None}], True),
        ([1], (1,), True),
        ([1, 2], [1], False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": [True]}, {"a": [1]}, False),
        ("1", 1, False),
    ],
)
def test_json_equality_tells_true_from_one(left: Any, right: Any, same: bool) -> None:
    assert same_json(left, right) is same
