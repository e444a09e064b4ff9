"""docs/reference/cli.md: every command with its arguments, options and examples, from the program itself."""

import re
from collections.abc import Iterator
from typing import Any

import typer.main

from hotswap.cli.main import app
from tests.docs.markdown import MADE, anchor, cell, code, table

INTRODUCTION = """# Command line

Every command with all that it takes. How to say where the api is, what is printed to whom, and how to name a deployment:
[the command line](../cli.md).
"""

SHARED = "Connection and output"
"""The panel of options that every command which asks the api has; told once."""


def page() -> str:
    commands = dict(leaves())
    lines = [MADE, INTRODUCTION]
    lines += table(
        ("command", ""), [(f"[`{name}`](#{anchor(name)})", _first(one.help)) for name, one in commands.items()]
    )
    lines += ["## Connection and output", "", "Every command that asks the api takes these as well.", ""]
    lines += _options([one for one in commands["hotswap status"].params if one.rich_help_panel == SHARED])
    for name, one in commands.items():
        lines += _command(name, one)
    return "\n".join(lines).rstrip() + "\n"


def leaves() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its whole name, in order."""
    yield from sorted(_leaves("hotswap", typer.main.get_command(app)))


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        if not command.hidden:
            yield name, command
        return
    for word, one in inner.items():
        yield from _leaves(f"{name} {word}", one)


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    options = [one for one in command.params if one.opts[0].startswith("-") and one.rich_help_panel != SHARED]
    words = [_argument(one) for one in arguments]
    required = [f"{one.opts[0]} {_value(one)}".strip() for one in options if one.required]
    more = ["[options]"] if len(options) > len(required) else []
    yield f"## {name}"
    yield ""
    yield _plain(command.help or "")
    yield ""
    yield "```"
    yield " ".join([name, *words, *required, *more])
    yield "```"
    yield ""
    yield from table(("argument", ""), [(code(_argument(one)), cell(one.help or "")) for one in arguments])
    yield from _options(options)
    if examples := re.findall(r"^hotswap .*$", _plain(command.epilog or ""), re.MULTILINE):
        yield "Examples:"
        yield ""
        yield "```"
        yield from examples
        yield "```"
        yield ""


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper().strip("{}[]")
    name += "..." if parameter.nargs == -1 else ""
    return name if parameter.required else f"[{name}]"


def _value(option: Any) -> str:
    """What the option is followed by."""
    if option.is_flag or option.count:
        return ""
    return str(option.metavar or option.name.upper())


def _options(options: list[Any]) -> list[str]:
    rows = []
    for one in options:
        if one.hidden:
            continue
        names = ", ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts])
        said = [cell(_plain(one.help or "")).removesuffix(".")]
        shown = one.default not in (None, False, "", (), []) and not callable(one.default) and not one.is_flag
        said += ["required" if one.required else "", f"default {code(str(one.default))}" if shown else ""]
        said += ["may be repeated" if one.multiple else ""]
        rows.append((names, code(_value(one)), "; ".join(part for part in said if part)))
    return table(("option", "", ""), rows)


def _plain(text: str) -> str:
    """Without rich's marks."""
    return re.sub(r"\[/?(?:bold|dim|italic)\]", "", text)


def _first(text: str | None) -> str:
    return cell(_plain(text or "").split("\n\n")[0])
