"""Verifies an export of the audit on its own, without the api: every line's seal, the chain between them, the trailer.

The seal is over `content`; what people read (`entry`) is compared with it. Neighbour: hotswap.domain.audit has the rule.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from hotswap.cli.faults import UsageFault
from hotswap.domain.audit import ChainCheck, Head, Seal, SealedEntry

_LAYOUT_1 = ("eventType", "entityType", "entityId", "user", "details", "traceId", "address")
"""Fields of an entry as layout 1 of the content has them, behind its layout and its row."""


def check_export(path: Path, known: tuple[int, str] | None, filtered: bool) -> dict[str, Any]:
    """A report as the api gives it. Raises UsageFault for a file that is no export, OSError."""
    check: ChainCheck | None = None
    trailer: dict[str, Any] | None = None
    expected = [Head(position=known[0], hash=known[1])] if known else []
    seen = known is None
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            document = _object(line, number)
            if "trailer" in document:
                trailer = document["trailer"]
                break
            one = _sealed(document, number)
            before = Head(position=one.seal.position - 1, hash=one.seal.previous_hash)
            if check is None:
                check = ChainCheck(before)
            elif filtered and one.seal.position > check.head.position + 1:
                check.head = before
            check.follow([one], expected)
            if one.content is not None and (fault := _differs(document["entry"], one.content)):
                check.fault(f"position {one.seal.position}: what is shown is not what was sealed: {fault}")
            seen = seen or (known is not None and one.seal.position == known[0])
    check = check or ChainCheck(Head())
    if trailer is None:
        check.fault("the file is cut off: its last line is missing")
    elif trailer.get("entries") != check.entries:
        check.fault(f"{trailer.get('entries')} entries were exported, {check.entries} are in the file")
    if not seen and known is not None and check.first <= known[0]:
        check.fault(f"position {known[0]} is not in the file")
    return {
        "intact": not check.faults,
        "entries": check.entries,
        "first": check.first,
        "head": check.head.model_dump(mode="json"),
        "complete": trailer is not None,
        "faults": list(check.faults),
    }


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UsageFault(f"line {number} is no JSON object", "give a file that `hotswap audit export` wrote")
    return document


def _sealed(document: dict[str, Any], number: int) -> SealedEntry:
    try:
        seal = Seal(
            position=document["position"],
            audit_id=0,
            previous_hash=document["previousHash"],
            hash=document["hash"],
        )
        return SealedEntry(seal=seal, content=str(document["content"]), entry=None)
    except (KeyError, ValueError):
        raise UsageFault(f"line {number} is no sealed entry", "give a file that `hotswap audit export` wrote") from None


def _differs(entry: Any, content: str) -> str:
    """The first field of the entry that is not as sealed; "" when all are, or when the layout is not known here."""
    try:
        layout, _, *fields, micros = json.loads(content)
    except ValueError:
        return "its content is no JSON"
    if layout != 1 or not isinstance(entry, dict) or len(fields) != len(_LAYOUT_1):
        return ""
    for name, value in zip(_LAYOUT_1, fields, strict=True):
        if entry.get(name) != value:
            return name
    try:
        at = datetime.fromisoformat(str(entry.get("at")).replace("Z", "+00:00"))
    except ValueError:
        return "at"
    return "" if round(at.timestamp() * 1_000_000) == micros else "at"
