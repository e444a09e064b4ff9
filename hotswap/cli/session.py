"""What every command shares: the options --url, --token, --as and --json, the client they give, faults as exit codes.

`@command(app)` adds the options to an async function whose first parameter is a Session; the function returns an exit
code, or None for 0.
"""

import asyncio
import inspect
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from hotswap.cli.client import ApiClient
from hotswap.cli.connection import Connection, find_connection
from hotswap.cli.faults import INTERRUPTED, CliError
from hotswap.cli.output import Output

_PANEL = "Connection and output"

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the api (default: HOTSWAP_URL, else stack.json).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Bearer token (default: HOTSWAP_TOKEN, else stack.json).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
UserOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="USER",
        help="Speak as this user of the local stack (default: admin).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="A login of `hotswap login` (default: HOTSWAP_PROFILE).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.", rich_help_panel=_PANEL)]

_SHARED = (
    ("api_url", UrlOption, None),
    ("api_token", TokenOption, None),
    ("as_user", UserOption, None),
    ("api_profile", ProfileOption, None),
    ("as_json", JsonOption, False),
)

Body = Callable[..., Awaitable[int | None]]


@dataclass
class Session:
    """One command's run."""

    output: Output
    url: str | None = None
    token: str | None = None
    user: str | None = None
    profile: str | None = None

    def connection(self) -> Connection:
        """Raises UsageFault saying how to start or name an api."""
        return find_connection(self.url, self.token, self.user, profile=self.profile)

    def api(self) -> ApiClient:
        """A client; use it as an async context manager."""
        return ApiClient(self.connection())


def command(app: typer.Typer, name: str | None = None, examples: str = "") -> Callable[[Body], Body]:
    """Register `async def body(session, ...)` as a command with the shared options. `examples`: lines for --help."""

    def register(body: Body) -> Body:
        signature = inspect.signature(body)
        own = list(signature.parameters.values())[1:]
        shared = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for option, annotation, default in _SHARED
        ]

        def entry(**values: Any) -> None:
            output = Output(as_json=values.pop("as_json"))
            shared = (values.pop(option) for option in ("api_url", "api_token", "as_user", "api_profile"))
            session = Session(output, *shared)
            raise typer.Exit(run(session, lambda: body(session, **values)))

        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        entry.__name__, entry.__doc__ = body.__name__, body.__doc__
        entry.__annotations__ = {parameter.name: parameter.annotation for parameter in (*keyword, *shared)}
        entry.__signature__ = inspect.Signature([*keyword, *shared])  # type: ignore[attr-defined]
        epilog = "\n\n".join(["[bold]Examples[/bold]", *examples.strip().splitlines()]) if examples else None
        app.command(name or body.__name__, epilog=epilog, no_args_is_help=False)(entry)
        return body

    return register


def run(session: Session, start: Callable[[], Awaitable[int | None]]) -> int:
    """Run one command's coroutine; a CliError is printed and becomes its exit code, Ctrl-C becomes 130.

    SIGTERM and SIGHUP end it as Ctrl-C does (143, 129): temporary folders and processes of its own go first. A file or a
    disk that refuses is a fault like any other: said in one line, with what to do.
    """
    ended_by: list[signal.Signals] = []

    async def whole() -> int:
        main = asyncio.current_task()
        assert main is not None

        def stop(caught: signal.Signals) -> None:
            ended_by.append(caught)
            main.cancel()

        for caught in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(caught) == signal.SIG_DFL:  # under nohup SIGHUP stays ignored
                asyncio.get_running_loop().add_signal_handler(caught, stop, caught)
        return await start() or 0

    try:
        return asyncio.run(whole())
    except CliError as fault:
        session.output.fault(fault)
        return fault.exit_code
    except BrokenPipeError:
        raise  # whoever read our output has seen enough; typer ends quietly
    except OSError as fault:  # a file that cannot be written, a full disk behind stdout
        told = CliError(str(fault), "see that the file can be written and that there is room on its disk, then repeat")
        session.output.fault(told)
        return told.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        if not ended_by:
            raise
        return 128 + ended_by[0]
