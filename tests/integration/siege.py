"""A plugin that tries everything, beside a neighbour that must not notice. Used by tests of every tier and kind of user.

Run as a program (`python siege.py TIER`) it prints what it found as JSON, for a user that is not the test's own.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hotswap.runtime.launcher import ZygoteLauncher
from tests.integration.host_lab import ask, spec_of, spec_of_source

_NEIGHBOUR = """
    SECRET = "of another tenant"

    class Plugin:
        def secret(self, parameters, context):
            return SECRET
"""
_REFUSED = (
    "Permission denied",
    "Operation not permitted",
    "not implemented",
    "not allowed",
    "name resolution",
    "or service",
)
_NOT_THERE = ("No such file or directory", "No such process", "Read-only file system")
"""What a refusal may also be where there is nothing to reach: tier strong."""


@dataclass(frozen=True)
class Siege:
    """tried: every attempt. escaped: those that succeeded. glimpsed: facts seen. accidents: refused, but not by a sandbox."""

    tried: list[str]
    escaped: list[str]
    glimpses: list[str]
    glimpsed: list[str]
    accidents: dict[str, str]
    unharmed: bool
    allowed: dict[str, Any]
    host_uid: int


async def besiege(tier: Any, folder: Path) -> Siege:
    launcher = ZygoteLauncher(tier, 2048)
    try:
        neighbour = await launcher.launch(spec_of_source(folder, _NEIGHBOUR))
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        host = await launcher.launch(spec_of("prober"))
        around = {"pid": neighbour.pid, "zygote": launcher.zygote_pid, "bundle": str(folder)}
        tried, glimpses = await ask(host, "attempts"), await ask(host, "glimpses")
        outcomes = {
            attempt: await ask(host, "escape", attempt=attempt, neighbour=around) for attempt in (*tried, *glimpses)
        }
        known = (*_REFUSED, *(_NOT_THERE if tier == "strong" else ()))
        unharmed = (
            host.alive
            and await ask(neighbour, "secret") == "of another tenant"
            and before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        )
        return Siege(
            tried=tried,
            escaped=[attempt for attempt in tried if outcomes[attempt] == ""],
            glimpses=glimpses,
            glimpsed=[attempt for attempt in glimpses if outcomes[attempt] == ""],
            accidents={
                attempt: how for attempt, how in outcomes.items() if how and not any(word in how for word in known)
            },
            unharmed=unharmed,
            allowed=await ask(host, "allowed"),
            host_uid=os.stat(f"/proc/{host.pid}").st_uid,  # noqa: PTH116 - a look at /proc
        )
    finally:
        await launcher.close()


def left_open_by_standard() -> list[str]:
    """What docs/isolation.md says of tier standard: the names of the glimpses it leaves open."""
    text = (Path(__file__).parent.parent.parent / "docs" / "isolation.md").read_text("utf-8")
    chapter = text.partition("## What standard leaves open")[2].partition("\n## ")[0]
    return re.findall(r"^- \*\*(.+?)\*\*", chapter, re.MULTILINE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        print(json.dumps(asdict(asyncio.run(besiege(sys.argv[1], Path(work) / "neighbour")))))
