"""Commands on the audit: look through it, export it, prove that nobody changed it, sign a checkpoint."""

import json
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli.client import API
from hotswap.cli.deployments import NeededReason
from hotswap.cli.faults import CliError, UsageFault
from hotswap.cli.output import clean
from hotswap.cli.session import Session, command

LOGS = f"{API}/audit-logs"

EntityOption = Annotated[str | None, typer.Option("--entity", help="Id of what was changed.", show_default=False)]
UserOption = Annotated[str | None, typer.Option("--user", "-u", help="Who changed it.", show_default=False)]
EventOption = Annotated[str | None, typer.Option("--event", help="deployment.requested, ...", show_default=False)]
SinceOption = Annotated[str | None, typer.Option("--from", help="Instant, included.", show_default=False)]
UntilOption = Annotated[str | None, typer.Option("--to", help="Instant, not included.", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Register every command of this module."""
    group = typer.Typer(
        help="Who did what, and the proof that nobody changed the record.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    command(
        group, name="list", examples="hotswap audit list --user dana\nhotswap audit list --entity dep_3f2a... -n 50"
    )(list_entries)
    command(
        group, examples="hotswap audit export -o audit.ndjson\nhotswap audit export --from 2026-01-01T00:00Z > y.ndjson"
    )(export)
    command(
        group,
        examples="hotswap audit verify\nhotswap audit verify --expect 1207:9f2c...\nhotswap audit verify --file audit.ndjson",
    )(verify)
    command(
        group,
        examples='hotswap audit checkpoint -m weekly\nhotswap audit checkpoint --truncate-before 2025-01-01T00:00Z -m "kept 1 y"',
    )(checkpoint)
    app.add_typer(group, name="audit")


async def list_entries(
    session: Session,
    entity: EntityOption = None,
    user: UserOption = None,
    event: EventOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many rows.")] = 20,
) -> None:
    """Entries, newest first."""
    query = _filters(entity, user, event, since, until)
    async with session.api() as api:
        page = await api.call("GET", LOGS, limit=limit, **query)
    rows = [
        (item["at"], item["user"], item["eventType"], item["entityId"], _why(item["details"]), item["address"])
        for item in page["items"]
    ]
    session.output.table(("at", "who", "what", "of", "why", "from"), rows, page, "no entries")


async def export(
    session: Session,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: stdout.", show_default=False)
    ] = None,
    entity: EntityOption = None,
    user: UserOption = None,
    event: EventOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> None:
    """Every entry with its seal as one JSON object a line, oldest first. An export that was cut off is an error."""
    query = _filters(entity, user, event, since, until)
    async with session.api() as api, api.lines(f"{LOGS}/export", **query) as lines:
        if output is None:
            trailer = await _copy(lines, sys.stdout)
        else:
            trailer = await _copy_into(output, lines)
    if not trailer:
        raise CliError("the export was cut off: its last line is missing", "repeat it")
    head = trailer["head"]
    session.output.note(f"{trailer['entries']} entries; the chain stood at {head['position']}:{head['hash']}")


async def verify(
    session: Session,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="POSITION:HASH", help="A head that was told before.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Verify an export instead, without the api.", show_default=False)
    ] = None,
    filtered: Annotated[bool, typer.Option("--filtered", help="The export was filtered: gaps are fine.")] = False,
) -> int:
    """Follow the hash chain to its end: exit code 1 when an entry was changed, deleted, inserted or cut off.

    Keep the head that it prints somewhere else, and give it to the next verification with --expect.
    """
    known = _head(expect) if expect else None
    if file:
        # Here, since it needs the domain model: half of what every command would import.
        from hotswap.cli.export_check import check_export

        report = check_export(file, known, filtered)
    else:
        report = await _verify(session, known)
    head = report["head"]
    text = f"intact: {report['entries']} entries, head {head['position']}:{head['hash']}"
    if not report["intact"]:
        text = f"BROKEN after {report['entries']} entries\n" + "\n".join(f"  {clean(one)}" for one in report["faults"])
    session.output.say(text, report)
    return 0 if report["intact"] else 1


async def checkpoint(
    session: Session,
    reason: NeededReason = "",
    truncate_before: Annotated[
        str | None,
        typer.Option("--truncate-before", help="Take away entries older than this instant.", show_default=False),
    ] = None,
) -> None:
    """Sign where the chain stands. With --truncate-before: sign its old part and take that away (export it first)."""
    if not reason.strip():
        raise UsageFault("a checkpoint needs a reason", 'hotswap audit checkpoint --reason "why"')
    body = {"reason": reason} | ({"truncateBefore": truncate_before} if truncate_before else {})
    removed = 0
    async with session.api() as api:
        while True:
            done = await api.call("POST", f"{LOGS}/checkpoints", body=body)
            removed += done["removed"]
            if not done["more"]:
                break
    made = done["checkpoint"]
    taken = f", {removed} entries taken away" if truncate_before else ""
    session.output.say(f"signed {made['position']}:{made['hash']} with key {made['keyId']}{taken}", done)


async def _verify(session: Session, known: tuple[int, str] | None) -> dict[str, Any]:
    """Part by part, as the api gives it."""
    query: dict[str, Any] = {}
    if known:
        query = {"expectPosition": known[0], "expectHash": known[1]}
    entries, first = 0, 0
    faults: list[str] = []
    async with session.api() as api:
        while True:
            part = await api.call("GET", f"{LOGS}/verify", **query)
            entries, faults, first = entries + part["entries"], faults + part["faults"], first or part["first"]
            if part["complete"] or not part["entries"]:
                return {**part, "entries": entries, "first": first, "faults": faults, "intact": not faults}
            query |= {"after": part["head"]["position"], "hash": part["head"]["hash"]}


async def _copy_into(output: Path, lines: AsyncIterator[str]) -> dict[str, Any] | None:
    """The file is there whole or not at all."""
    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with partial.open("x", encoding="utf-8") as file:
            trailer = await _copy(lines, file)
        if trailer:
            partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return trailer


async def _copy(lines: AsyncIterator[str], file: Any) -> dict[str, Any] | None:
    """Copy them; the trailer, or None when there is none."""
    last = ""
    async for line in lines:
        if line:
            last = line
            file.write(line + "\n")
    try:
        trailer = json.loads(last).get("trailer")
    except (ValueError, AttributeError):
        return None
    return trailer if isinstance(trailer, dict) else None


def _filters(
    entity: str | None, user: str | None, event: str | None, since: str | None, until: str | None
) -> dict[str, Any]:
    return {"entity": entity, "user": user, "eventType": event, "from": since, "to": until}


def _head(text: str) -> tuple[int, str]:
    position, colon, hash_ = text.partition(":")
    if not colon or not position.isdigit() or len(hash_) != 64:
        raise UsageFault(f"'{text[:80]}' is no head", "write it as it was printed: POSITION:HASH")
    return int(position), hash_


def _why(details: Any) -> str:
    if not isinstance(details, dict):
        return ""
    return str(details.get("reason") or details.get("message") or "")
