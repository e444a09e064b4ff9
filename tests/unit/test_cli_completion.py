"""Shell completion of `hotswap`: the scripts that shells load, and what they are answered. No api is asked."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hotswap.cli.main import app

SHELLS = ("bash", "zsh", "fish")


def completed(shell: str, *words: str) -> list[str]:
    """What the shell is told of the last word."""
    line = " ".join(("hotswap", *words))
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words))},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    told = CliRunner().invoke(app, env={"_HOTSWAP_COMPLETE": f"complete_{shell}", **asked}, prog_name="hotswap")
    assert told.exit_code == 0, told.output
    return told.output.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("pl",), "plugin"),
        (("plugin", "dep"), "deprecate"),
        (("tenant", "con"), "config"),
        (("deploy", "--str"), "--strategy"),
        (("audit", "ver"), "verify"),
    ],
)
def test_commands_and_options_are_completed(shell: str, words: tuple[str, ...], expected: str) -> None:
    assert any(expected in line for line in completed(shell, *words))


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_is_told(shell: str) -> None:
    told = CliRunner().invoke(app, env={"_HOTSWAP_COMPLETE": f"source_{shell}"}, prog_name="hotswap")
    assert told.exit_code == 0
    assert f"_HOTSWAP_COMPLETE=complete_{shell}" in told.output


def test_the_command_line_loads_no_server_of_ours_and_nothing_of_the_embedded_extra() -> None:
    heavy = ("temporalio", "sqlalchemy", "fastapi", "psycopg", "minio", "hotswap.embedded", "hotswap.adapters")
    code = f"import sys, hotswap.cli.main; print([one for one in {heavy} if one in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"


def test_ctrl_c_while_the_command_line_is_still_being_imported_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt", encoding="ascii")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from hotswap.cli.entry import main; main()"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, told.stdout, told.stderr) == (130, "", "")
    (script,) = entry_points(group="console_scripts", name="hotswap")
    assert script.value == "hotswap.cli.entry:main"
