"""`python -m hotswap.backup create|verify|restore DIR` (also `hotswap backup`, `hotswap restore`). Composition root.

Speaks to PostgreSQL and the object store by HOTSWAP_ settings. Exit codes: 0 done, 1 not done, or done with findings, 2 usage.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from hotswap.backup.create import create
from hotswap.backup.restore import restore, verify
from hotswap.config import SettingsInvalid, load_settings
from hotswap.doctor.__main__ import text_of
from hotswap.domain.base import Model
from hotswap.domain.errors import HotSwapError

DONE, FAILED, USAGE = 0, 1, 2


def tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


async def _create(directory: Path, earlier: Path | None, as_json: bool) -> int:
    made = await create(load_settings(), directory, earlier, tell)
    rows = sum(table.rows for table in made.tables)
    text = (
        f"{directory}: schema {made.schema_revision}, {rows} rows, {len(made.objects)} artifacts, as of {made.taken_at}"
    )
    _answer(made, text, as_json)
    if needed := (*made.needed_keys.key_encryption, *made.needed_keys.wrapping):
        tell(f"NOT in it, keep them elsewhere: the keys {', '.join(needed)} (docs/backup.md)")
    if made.damaged:
        tell(f"{len(made.damaged)} artifacts are damaged in the object store and not in it: hotswap doctor --deep")
    return FAILED if made.damaged else DONE


async def _verify(directory: Path, as_json: bool) -> int:
    manifest = await verify(directory)
    text = f"{directory}: whole, {len(manifest.tables)} tables, {len(manifest.objects)} artifacts"
    _answer(manifest, text, as_json)
    return DONE


async def _restore(directory: Path, force: bool, as_json: bool) -> int:
    report = await restore(load_settings(), directory, force=force, tell=tell)
    _answer(report, text_of(report, verbose=False), as_json)
    return DONE if report.healthy else FAILED


def _answer(model: Model, text: str, as_json: bool) -> None:
    print(model.model_dump_json(indent=2, by_alias=True) if as_json else text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "hotswap backup", description="Back up PostgreSQL and the object store, by HOTSWAP_ settings."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("create", help="make a backup in a new directory")
    making.add_argument("--since", type=Path, metavar="EARLIER", help="link artifacts that this backup has already")
    checking = commands.add_parser("verify", help="compare every file with the manifest; needs no server")
    restoring = commands.add_parser("restore", help="restore into an installation that stands still, then examine it")
    restoring.add_argument("--force", action="store_true", help="DESTROY what the target's database holds")
    for command in (making, checking, restoring):
        command.add_argument("directory", type=Path, metavar="DIR")
        command.add_argument(
            "--json", action="store_true", dest="as_json", help="answer in JSON: manifest, or findings"
        )
    try:
        given = parser.parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        match given.command:
            case "create":
                return asyncio.run(_create(given.directory, given.since, given.as_json))
            case "verify":
                return asyncio.run(_verify(given.directory, given.as_json))
            case _:
                return asyncio.run(_restore(given.directory, given.force, given.as_json))
    except SettingsInvalid as fault:
        tell(fault.message)
        return USAGE
    except HotSwapError as fault:
        tell(fault.message)
        return FAILED


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a short process can abort at exit inside the Temporal client (sdk-python #300)
