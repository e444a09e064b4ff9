"""The build id of a worker: changes exactly with what a replay can see."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hotswap import __version__, builds
from hotswap.config_temporal import TemporalSettings

PROJECT = Path(builds.__file__).resolve().parents[1]
DIGEST = "from hotswap import builds; print(builds.source_digest())"


def test_unversioned_is_the_default() -> None:
    assert builds.deployment_options(TemporalSettings()) is None


def test_a_named_build_is_taken_as_it_is() -> None:
    options = builds.deployment_options(TemporalSettings(build_id="2026-11-23.1", deployment_name="eu"))
    assert options is not None
    assert (options.version.deployment_name, options.version.build_id) == ("eu", "2026-11-23.1")
    assert options.use_worker_versioning


def test_auto_names_version_and_sources() -> None:
    assert builds.build_id(TemporalSettings(build_id="auto")) == f"{__version__}-{builds.source_digest()[:12]}"


@pytest.mark.parametrize("wrong", ["a b", "-x", "x" * 129])
def test_a_build_id_that_the_server_would_refuse_is_refused_here(wrong: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        TemporalSettings(build_id=wrong)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("copied"))


def copy_sources(into: Path) -> Path:
    for package in ("workflows", "activities", "hotswap"):
        shutil.copytree(PROJECT / package, into / package, ignore=shutil.ignore_patterns("__pycache__"))
    return into


def digest_of(root: Path) -> str:
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {DIGEST}"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("changed", "another_build"),
    [
        ("workflows/gates.py", True),
        ("activities/errors.py", True),
        ("hotswap/domain/plan.py", True),
        ("hotswap/strategies/canary.py", False),
        ("hotswap/node/router.py", False),
    ],
)
def test_only_what_a_replay_sees_makes_another_build(copied: Path, changed: str, another_build: bool) -> None:
    before = digest_of(copied)
    file = copied / changed
    source = file.read_text()
    file.write_text(source + "\n# changed\n")
    try:
        assert (digest_of(copied) != before) is another_build
    finally:
        file.write_text(source)


def test_where_the_sources_lie_does_not_matter(copied: Path, tmp_path: Path) -> None:
    shutil.copytree(copied, tmp_path / "elsewhere")
    assert digest_of(tmp_path / "elsewhere") == digest_of(copied)
