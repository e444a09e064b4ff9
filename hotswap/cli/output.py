"""How the command line speaks: tables on a terminal, tab-separated lines when piped, JSON with --json, faults on stderr.

Everything that came from outside is cleaned of control characters, so that no plugin's text can steer a terminal.
"""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hotswap.cli.faults import CliError

STATUS_STYLE = {
    "Pending": "dim",
    "AwaitingApproval": "yellow",
    "InProgress": "cyan",
    "Paused": "yellow",
    "RollingBack": "magenta",
    "Completed": "green",
    "RolledBack": "magenta",
    "Aborted": "magenta",
    "Rejected": "magenta",
    "Superseded": "dim",
    "Failed": "bold red",
    "Ready": "green",
    "Starting": "dim",
    "Standby": "green",
    "Evicted": "dim",
    "Draining": "yellow",
    "Crashed": "red",
    "Stopped": "dim",
    "Lost": "red",
    "Pass": "green",
    "Fail": "bold red",
    "Inconclusive": "yellow",
    "Error": "red",
    "Active": "green",
    "Approved": "green",
    "Deprecated": "yellow",
    "Archived": "dim",
    "Draft": "dim",
    "Succeeded": "green",
    "Cancelled": "magenta",
    "Expired": "dim",
    "Deleted": "dim",
}


def clean(value: Any) -> str:
    """Text without control characters: what came from outside cannot move the cursor or colour the screen."""
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else " " for char in text)


def styled(value: Any) -> Text:
    """A status, state or outcome in its colour."""
    text = clean(value)
    return Text(text, style=STATUS_STYLE.get(text, ""))


def instant(value: Any) -> datetime | None:
    """An ISO 8601 instant of the wire as local time; None when it is not one."""
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).astimezone()
    except ValueError:
        return None


def clock(value: Any) -> str:
    """12:03:44 of an instant of the wire, in local time."""
    at = instant(value)
    return at.strftime("%H:%M:%S") if at else clean(value)


def ago(value: Any) -> str:
    """How long ago an instant of the wire was, in the largest fitting unit."""
    at = instant(value)
    if at is None:
        return clean(value)
    return f"{duration((datetime.now(UTC) - at).total_seconds())} ago"


def duration(seconds: float) -> str:
    """1.2 s, 3 min 4 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def size(count: Any) -> str:
    """Bytes in the largest fitting unit."""
    number = float(count or 0)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


class Output:
    """Where a command's answer goes."""

    def __init__(self, as_json: bool = False, console: Console | None = None, errors: Console | None = None) -> None:
        self.as_json = as_json
        self.console = console or Console(highlight=False)
        self.errors = errors or Console(stderr=True, highlight=False)

    @property
    def live(self) -> bool:
        """Whether a person looks at a terminal."""
        return self.console.is_terminal and not self.as_json

    def line(self, text: str = "") -> None:
        """One plain line, never wrapped."""
        self.console.file.write(text + "\n")
        self.console.file.flush()

    def document(self, document: Any, indent: int | None = 2) -> None:
        """JSON for machines."""
        self.line(json.dumps(document, indent=indent, ensure_ascii=False))

    def say(self, text: str | Text, document: Any = None) -> None:
        """A sentence for people; with --json the document instead."""
        if self.as_json:
            if document is not None:
                self.document(document)
        elif self.live:
            self.console.print(text if isinstance(text, Text) else Text(text), soft_wrap=True)
        else:
            self.line(str(text))

    def note(self, text: str) -> None:
        """A hint beside the answer: on stderr, so that a pipe gets the answer only."""
        self.errors.print(Text(text, style="dim"), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], document: Any, empty: str) -> None:
        """A table on a terminal, tab-separated lines (without a header) otherwise, the document with --json."""
        if self.as_json:
            self.document(document)
        elif not self.live:
            for row in rows:
                self.line("\t".join(clean(cell) for cell in row))
        elif not rows:
            self.console.print(Text(empty, style="dim"))
        else:
            table = Table(box=None, pad_edge=False, header_style="bold")
            for column in columns:
                table.add_column(column)
            for row in rows:
                table.add_row(*(cell if isinstance(cell, Text) else styled(cell) for cell in row))
            self.console.print(table)

    def fault(self, fault: CliError) -> None:
        """What happened, each wrong field, what to do, the trace id: on stderr."""
        if self.as_json:
            self.errors.file.write(json.dumps(fault.as_json(), ensure_ascii=False) + "\n")
            return
        text = Text()
        text.append("error: ", style="bold red")
        text.append(clean(fault.message))
        for field, message in fault.faults:
            if message and message in fault.message:
                continue  # the sentence above says it already
            text.append(f"\n  {clean(field)}: {clean(message)}" if field else f"\n  {clean(message)}")
        if fault.remedy:
            text.append("\n  what to do: ", style="bold")
            text.append(clean(fault.remedy))
        if fault.trace_id:
            text.append(f"\n  trace id: {clean(fault.trace_id)}", style="dim")
        self.errors.print(text, soft_wrap=True)


def stderr_is_terminal() -> bool:
    """Whether progress bars make sense."""
    return sys.stderr.isatty()
