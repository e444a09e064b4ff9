"""Commands for who operates the servers: doctor, backup, restore. Unlike all others they do not ask the api.

They speak to PostgreSQL, the object store, Redis and Temporal by the settings (HOTSWAP_ variables) of the machine they run
on, and do their work in a process of their own, so that this package stays an HTTP client.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    app.command(epilog="[bold]Examples[/bold]\n\nhotswap doctor\n\nhotswap doctor --deep --json\n\n" + _BESIDE)(doctor)
    app.command(epilog="[bold]Examples[/bold]\n\nhotswap backup /backups/monday\n\n" + _SINCE)(backup)
    app.command(epilog="[bold]Examples[/bold]\n\nhotswap restore /backups/monday")(restore)


_BESIDE = "Runs where the settings are, e.g.: kubectl exec deploy/hotswap-api -- hotswap doctor"
_SINCE = "hotswap backup /backups/tuesday --since /backups/monday\n\nhotswap backup /backups/monday --verify"

JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Read every artifact through and compare its SHA-256.")] = False,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", metavar="CHECK", help="Leave a check out; repeatable.", show_default=False),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name the checks that found nothing, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Examine an installation by its settings: what is wrong, why it matters, what mends it. Changes nothing.

    Exit code 0 healthy, 1 findings, 2 usage.
    """
    options = [f"--skip={name}" for name in skip or ()]
    options += ["--deep"] * deep + ["--verbose"] * verbose + ["--json"] * as_json
    raise typer.Exit(_run("hotswap.doctor", options))


def backup(
    directory: DirectoryArgument,
    since: Annotated[
        Path | None,
        typer.Option("--since", metavar="EARLIER", help="Link artifacts that this backup has.", show_default=False),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Make none: read the backup in DIR through. Needs no server.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Back up PostgreSQL and the object store into a new directory, consistent with one another. Changes nothing.

    Keys that seal secrets are not in it. Exit code 0 done, 1 not done or an artifact is damaged, 2 usage.
    """
    if verify and since is not None:
        raise typer.BadParameter("goes with a new backup, not with --verify", param_hint="--since")
    options = ["verify"] if verify else ["create", *([f"--since={since}"] if since is not None else [])]
    raise typer.Exit(_run("hotswap.backup", [*options, *["--json"] * as_json, "--", str(directory)]))


def restore(
    directory: DirectoryArgument,
    force: Annotated[bool, typer.Option("--force", help="DESTROY what the target's database holds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into an installation that stands still, then examine it. Refuses a database that holds something.

    Exit code 0 restored and healthy, 1 not restored or findings, 2 usage.
    """
    options = ["--force"] * force + ["--json"] * as_json
    raise typer.Exit(_run("hotswap.backup", ["restore", *options, "--", str(directory)]))


def _run(module: str, options: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", module, *options], check=False).returncode
