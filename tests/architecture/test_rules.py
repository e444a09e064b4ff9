"""Rules of the house that a linter does not know. import-linter (`make imports`) checks who may import whom."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

LONGEST = 420  # "about 400": not worth a split for its last test
LONGER_FILES: dict[str, str] = {
    # path: why it is one thing and stays one file
    "tests/integration/test_node_process.py": "one process seen from outside: half of it starts that process and asks it",
}

NOT_OURS = {".git", ".venv", ".hotswap", "build", "dist", "vendor", "__pycache__"}

ROOMS = ("activities", "api", "hotswap", "hotswap_plugin", "migrations", "workflows")

KEPT_OUT_OF_WORKFLOWS = [
    "alembic",
    "fastapi",
    "httpx",
    "hotswap.adapters",
    "hotswap.cli",
    "hotswap.embedded",
    "hotswap.node",
    "hotswap.runtime",
    "minio",
    "opentelemetry.exporter",
    "opentelemetry.sdk",
    "psycopg",
    "redis",
    "requests",
    "rich",
    "sqlalchemy",
    "starlette",
    "temporalio.contrib.opentelemetry",
    "typer",
    "urllib3",
    "uvicorn",
    "uvloop",
]


def _files() -> Iterator[Path]:
    for folder, names, files in os.walk(PROJECT):
        names[:] = [name for name in names if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info"))]
        yield from (Path(folder) / file for file in files)


def _relative(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def test_no_python_file_is_longer_than_a_person_reads_at_once() -> None:
    long = {
        _relative(path): lines
        for path in _files()
        if path.suffix == ".py" and (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert {path: lines for path, lines in long.items() if path not in LONGER_FILES} == {}, "split it, or say why not"
    assert set(LONGER_FILES) <= set(long), "the allow list names a file that is short enough now"


def test_every_package_is_shipped() -> None:
    """An explicit list forgets new folders: then it works from the checkout and fails when installed."""
    found = {
        _relative(path.parent).replace("/", ".")
        for room in ROOMS
        for path in (PROJECT / room).rglob("__init__.py")
        if not NOT_OURS & set(path.parts)
    }
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_every_room_explains_itself() -> None:
    silent = [
        _relative(path)
        for path in _files()
        if path.suffix == ".py"
        and _relative(path).split("/")[0] in {*ROOMS, "worker.py", "benchmarks"}
        and path.name != "__init__.py"
        and not path.read_text(encoding="utf-8").lstrip().startswith(('"""', 'r"""', "#!"))
    ]
    assert silent == [], "a module opens with its job and its neighbours"


def test_no_file_names_a_package_index() -> None:
    """Where packages come from is the machine's business: a committed index breaks mirrors and invites confusion attacks."""
    host = r"(pypi\.org|python" + r"hosted\.org)"
    # What would be read by pip, uv or setuptools: an option or variable with a value, or the host itself.
    pattern = re.compile(
        rf"(?i){host}|(?<!no-emit-)\b(extra[-_])?index[-_]url\s*[= ]\s*['\"]?\w+://(?![^/\s]*\bexample\b)|find[-_]links\s*[= ]\s*\S*/"
    )
    offenders = []
    for path in _files():
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        offenders += [f"{_relative(path)}: {match.group(0)}" for match in pattern.finditer(text)]
    assert offenders == []


def _pins(lock: Path) -> list[str]:
    entries = re.split(r"\n(?=[a-z0-9])", lock.read_text(encoding="utf-8"))
    return [entry for entry in entries if "==" in entry.splitlines()[0]]


@pytest.mark.parametrize("name", ["dev", "production", "build", "rivals"])
def test_every_pinned_package_has_hashes(name: str) -> None:
    pins = _pins(PROJECT / "requirements" / f"{name}.lock")
    assert pins
    assert [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin] == []


def test_rivals_change_no_package_that_is_installed_already() -> None:
    """`make rivals` installs into the same .venv: what it shares with make install is of the same version."""
    dev, rivals = (
        {pin.split()[0].partition("==")[0]: pin.split()[0] for pin in _pins(PROJECT / "requirements" / f"{name}.lock")}
        for name in ("dev", "rivals")
    )
    assert "gunicorn" in rivals.keys() - dev.keys()
    assert {name: pin for name, pin in rivals.items() if dev.get(name, pin) != pin} == {}


def test_workflows_import_nothing_that_does_io() -> None:
    """Temporal's sandbox refuses such modules when a worker starts; here the culprit is named at once."""
    modules = [f"workflows.{path.stem}" for path in (PROJECT / "workflows").glob("*.py") if path.stem != "__init__"]
    assert "workflows.deployment" in modules
    program = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint('\\n'.join(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    found = [name for name in loaded if any(name == bad or name.startswith(f"{bad}.") for bad in KEPT_OUT_OF_WORKFLOWS)]
    assert found == []


def test_the_example_settings_are_right_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import BaseModel

    from hotswap.config import Settings, load_settings

    text = (PROJECT / ".env.example").read_text(encoding="utf-8")
    for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    for name, value in re.findall(r"^(HOTSWAP_\w+)=(.*)$", text, re.MULTILINE):
        monkeypatch.setenv(name, value)
    load_settings()

    def names(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for key, field in model.model_fields.items():
            name = f"{prefix}{key}".upper()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from names(field.annotation, f"{name}__")
            else:
                yield name

    wanted = set(names(Settings, "HOTSWAP_"))
    documented = set(re.findall(r"^(?:# )?(HOTSWAP_\w+)=", text, re.MULTILINE))
    assert wanted - documented == set(), "add it to .env.example, with a word on what it does"


def test_make_explains_every_target() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z0-9-]+):.*## \S", makefile, re.MULTILINE))
    assert phony == explained
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)
