"""What is built to be installed elsewhere: wheel and sdist hold everything that runs and nothing else, and the wheel works."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.deploy.files import ROOT

BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]
build_meta.build_wheel(out)
build_meta.build_sdist(out)
"""

ROOMS = ("activities", "api", "hotswap", "hotswap_plugin", "migrations", "workflows")


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    return run("git", "ls-files", cwd=ROOT).splitlines()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tracked: list[str]) -> Path:
    """A folder with both, made from the tracked files alone: what lies about in a checkout must not help."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in tracked:
        if name.startswith(("tests/", "benchmarks/", "docs/", "examples/")):
            continue
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-c", BUILD, str(out), cwd=source)
    return out


def test_the_wheel_holds_every_file_of_every_room_and_nothing_else(built: Path, tracked: list[str]) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {name for name in tracked if name.startswith(tuple(f"{room}/" for room in ROOMS))} | {"worker.py"}


def test_the_sdist_holds_what_the_wheel_is_built_from(built: Path, tracked: list[str]) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    rooms = tuple(f"{room}/" for room in ROOMS)
    wanted = {name for name in tracked if name.startswith(rooms)} | {
        "worker.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }
    assert wanted - held == set()


def test_the_installed_wheel_is_a_working_hotswap(built: Path, tmp_path: Path) -> None:
    """Its dependencies are this environment's: fetching them anew is no test's business."""
    [wheel] = built.glob("*.whl")
    place = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(*pip, "--target", str(place), str(wheel), cwd=tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(place)!r})\n"
        "import hotswap.cli.main as main, api.app, worker, hotswap.node.__main__, migrations.runner\n"
        f"assert all(module.__file__.startswith({str(place)!r}) for module in (main, api.app, worker))\n"
        "sys.argv = ['hotswap', 'plugin', 'init', 'phone']\n"
        "main.main()\n"
    )
    run(sys.executable, "-P", "-c", script, cwd=tmp_path)
    assert list((tmp_path / "phone").glob("plugin.*"))
