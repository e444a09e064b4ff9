"""Fixtures of the command line's tests: a small api, and a way to type commands against it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotswap.cli.main import app
from tests.unit.cli_fake_api import FakeApi, Run, fake_api


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as one:
        yield one


@pytest.fixture
def run(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line against the fake api's stack.json; the exit code."""
    (tmp_path / "stack.json").write_text(json.dumps(api.stack()))
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path))
    monkeypatch.delenv("HOTSWAP_URL", raising=False)
    monkeypatch.delenv("HOTSWAP_TOKEN", raising=False)

    def typed(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            app(args=list(arguments), prog_name="hotswap")
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return typed
