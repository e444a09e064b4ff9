"""Commands for who operates the servers: doctor. Unlike all others they do not ask the api.

They speak to PostgreSQL, the object store, Redis and Temporal by the settings (HOTSWAP_ variables) of the machine they run
on, and do their work in a process of their own, so that this package stays an HTTP client.
"""

import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated

import typer


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    app.command(epilog="[bold]Examples[/bold]\n\nhotswap doctor\n\nhotswap doctor --deep --json\n\n" + _BESIDE)(doctor)


_BESIDE = "Runs where the settings are, e.g.: kubectl exec deploy/hotswap-api -- hotswap doctor"


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Read every artifact through and compare its SHA-256.")] = False,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", metavar="CHECK", help="Leave a check out; repeatable.", show_default=False),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name the checks that found nothing, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Examine an installation by its settings: what is wrong, why it matters, what mends it. Changes nothing.

    Exit code 0 healthy, 1 findings, 2 usage.
    """
    options = [f"--skip={name}" for name in skip or ()]
    options += ["--deep"] * deep + ["--verbose"] * verbose + ["--json"] * as_json
    raise typer.Exit(_run("hotswap.doctor", options))


def _run(module: str, options: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", module, *options], check=False).returncode
