"""The example plugins, built as a user builds them and run as a host runs them (without the sandbox, tested elsewhere).

Building needs the package index that pip is configured with.
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hotswap.domain.manifest import Manifest
from hotswap.runtime.build import BuildResult, build_plugin
from hotswap.runtime.bundle import unpack

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "examples" / "plugins"
VERSIONS = sorted(path.parent.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*/*/plugin.toml"))
BAD = "phone-format/2.1.0"
GOOD = [version for version in VERSIONS if version != BAD]

# What a host does, in short: root and vendor/ on the path, Class(), one call a line in, one result a line out.
RUNNER = """
import asyncio, importlib, inspect, json, sys, time
root, entry_point, sdk, defaults = sys.argv[1:]
sys.path[:0] = [root, root + "/vendor"]
sys.path.append(sdk)
from hotswap_plugin.context import Context
from hotswap_plugin.settings import TenantView
view = TenantView(0, json.loads(defaults), None)
module, _, name = entry_point.partition(":")
plugin = getattr(importlib.import_module(module), name)()
assert plugin.health() in (None, True)
for line in sys.stdin:
    call = json.loads(line)
    started = time.perf_counter()
    try:
        result = getattr(plugin, call["method"])(call["parameters"], Context("acme", "p", "1.0.0", started + 60, view=view))
        answer = {"result": asyncio.run(result) if inspect.isawaitable(result) else result}
    except Exception as fault:
        answer = {"error": type(fault).__name__}
    print(json.dumps({**answer, "ms": (time.perf_counter() - started) * 1000}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Builds each version once for this process."""
    place = tmp_path_factory.mktemp("examples")

    @cache
    def build(version: str) -> tuple[BuildResult, Path]:
        result = build_plugin(EXAMPLES / version, place / f"{version.replace('/', '-')}.zip")
        unpack(result.path, place / result.digest)
        return result, place / result.digest

    return build


def run(root: Path, manifest: Manifest, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    defaults = json.dumps(manifest.config_defaults())
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-W",
            "error",
            "-c",
            RUNNER,
            str(root),
            manifest.entry_point,
            str(PROJECT),
            defaults,
        ],
        input="".join(f"{json.dumps(call)}\n" for call in calls),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def traffic(version: str) -> list[dict[str, Any]]:
    calls = json.loads((EXAMPLES / version).parent.joinpath("traffic.json").read_text(encoding="utf-8"))
    assert isinstance(calls, list)
    return calls


def test_there_are_three_plugins_with_two_good_versions_each() -> None:
    plugins = {version.partition("/")[0] for version in VERSIONS}
    assert len(plugins) >= 2
    for plugin in plugins:
        assert sum(version.startswith(f"{plugin}/") for version in GOOD) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_an_example_builds_under_its_own_name_and_passes_its_smoke_tests(version: str, built: Any) -> None:
    result, root = built(version)
    assert f"{result.manifest.name}/{result.manifest.version}" == version
    assert result.manifest.smoke_tests
    calls = [{"method": test.method, "parameters": test.parameters} for test in result.manifest.smoke_tests]
    for test, answer in zip(result.manifest.smoke_tests, run(root, result.manifest, calls), strict=True):
        assert "error" not in answer, (test, answer)
        if test.expected is not None:
            assert answer["result"] == test.expected
        if test.expected_schema is not None:
            Draft202012Validator(test.expected_schema).validate(answer["result"])


@pytest.mark.parametrize("version", GOOD)
def test_every_call_of_the_traffic_succeeds_on_a_good_version_and_fits_its_schemas(version: str, built: Any) -> None:
    result, root = built(version)
    methods = {method.name: method for method in result.manifest.methods}
    calls = traffic(version)
    for call, answer in zip(calls, run(root, result.manifest, calls), strict=True):
        assert "error" not in answer, (call, answer)
        Draft202012Validator(methods[call["method"]].parameters).validate(call["parameters"])
        Draft202012Validator(methods[call["method"]].result).validate(answer["result"])


def test_the_two_versions_of_a_plugin_hold_different_releases_of_the_library(built: Any) -> None:
    for plugin in {version.partition("/")[0] for version in GOOD}:
        held = [
            {path.name for path in built(version)[1].glob("vendor/*.dist-info")}
            for version in GOOD
            if version.startswith(f"{plugin}/")
        ]
        assert held[0] != held[1]


def test_the_bad_version_fails_about_three_in_ten_of_the_traffic_and_is_slow_for_some(built: Any) -> None:
    result, root = built(BAD)
    _, good_root = built("phone-format/2.0.0")
    calls = traffic(BAD)
    answers = run(root, result.manifest, calls)
    baseline = sorted(answer["ms"] for answer in run(good_root, result.manifest, calls))

    failed = [answer for answer in answers if "error" in answer]
    assert 0.25 <= len(failed) / len(calls) <= 0.35
    assert {answer["error"] for answer in failed} == {"TypeError"}
    slow = [answer for answer in answers if answer["ms"] > 25 * max(baseline[len(baseline) // 2], 1)]
    assert 0.02 <= len(slow) / len(calls) <= 0.10


def test_the_bad_version_fails_by_input_so_that_any_tenth_of_the_traffic_shows_it(built: Any) -> None:
    result, root = built(BAD)
    calls = traffic(BAD)
    answers = run(root, result.manifest, calls * 2)
    first, second = answers[: len(calls)], answers[len(calls) :]
    assert ["error" in answer for answer in first] == ["error" in answer for answer in second]
    for start in range(0, len(calls), 10):
        assert any("error" in answer for answer in first[start : start + 10])


def test_no_library_is_kept_in_the_repository() -> None:
    assert not list(EXAMPLES.glob("*/*/vendor"))
    for requirements in EXAMPLES.glob("*/*/requirements.txt"):
        assert "--hash=sha256:" in requirements.read_text(encoding="utf-8")
