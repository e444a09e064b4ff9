"""Entry of the `hotswap` command: puts the commands together. Each module beside this one adds its own."""

from hotswap import quick_start  # isort: split

import typer

from hotswap import __version__
from hotswap.cli import (
    accounts,
    aftercare,
    approvals,
    audit,
    deployments,
    freezes,
    login,
    notifications,
    operate,
    pipelines,
    platform,
    plugin_health,
    plugin_test,
    plugins,
    sandbox,
    signing,
    versions,
)

quick_start.imports_are_done()

app = typer.Typer(
    name="hotswap",
    help="Durable plugin rollouts: ship a plugin version to thousands of tenants, and take a bad one back by itself.",
    epilog="Start here: [bold]hotswap up[/bold] in one terminal, then [bold]hotswap plugin init[/bold] in another. "
    "Exit codes: 0 ok, 2 usage or validation, 3 api unreachable, 1 other; watched deployments: 10 RolledBack, "
    "11 Aborted, 12 Rejected, 13 Superseded, 14 Failed.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
plugin_app = typer.Typer(
    help="Make, test, pack, sign, push, approve and look up plugins.", no_args_is_help=True, rich_markup_mode="rich"
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hotswap {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Say the version."),
) -> None:
    pass


platform.add_commands(app)
operate.add_commands(app)
login.add_commands(app)
deployments.add_commands(app)
aftercare.add_commands(app)
freezes.add_commands(app)
pipelines.add_commands(app)
sandbox.add_commands(app)
accounts.add_commands(app)
approvals.add_commands(app)
audit.add_commands(app)
notifications.add_commands(app)
plugins.add_commands(plugin_app)
plugin_test.add_commands(plugin_app)
versions.add_commands(plugin_app)
signing.add_commands(plugin_app)
plugin_health.add_commands(plugin_app)
app.add_typer(plugin_app, name="plugin")


def main() -> None:
    """The console script."""
    app(prog_name="hotswap")


if __name__ == "__main__":
    main()
