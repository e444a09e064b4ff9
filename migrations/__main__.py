"""`python -m migrations [upgrade|downgrade|current] [revision]` for the database of HOTSWAP_POSTGRES__URL (or ..._FILE)."""

import argparse
import os
import sys
from pathlib import Path

from hotswap.domain.errors import HotSwapError, InvalidInput
from migrations import runner


def main(arguments: list[str] | None = None) -> int:
    """0 when it is done, 1 with the fault on stderr when it is not."""
    parser = argparse.ArgumentParser(
        prog="python -m migrations", description="Move the schema of HOTSWAP_POSTGRES__URL."
    )
    commands = parser.add_subparsers(dest="command", required=False)
    up = commands.add_parser("upgrade", help="bring the schema up (the default)")
    up.add_argument("revision", nargs="?", default="head")
    down = commands.add_parser("downgrade", help="take the schema back; destroys data the older schema cannot hold")
    down.add_argument("revision", help="a revision, -1 for one back, or base for an empty database")
    commands.add_parser("current", help="print the revision the schema is at")
    given = parser.parse_args(arguments)
    try:
        url = _url()
        if given.command == "downgrade":
            runner.downgrade(url, given.revision)
        elif given.command != "current":
            runner.upgrade(url, getattr(given, "revision", "head"))
        print(runner.current(url) or "base")
    except HotSwapError as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


def _url() -> str:
    """Only this one setting: a migration job needs no Redis, no object store and none of their secrets."""
    path = os.environ.get("HOTSWAP_POSTGRES__URL_FILE")
    if path:
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as fault:
            raise InvalidInput(f"HOTSWAP_POSTGRES__URL_FILE: cannot read {path} ({fault.strerror})") from fault
    url = os.environ.get("HOTSWAP_POSTGRES__URL")
    if not url:
        raise InvalidInput("HOTSWAP_POSTGRES__URL is not set; write postgresql://user:password@host:port/database")
    return url


if __name__ == "__main__":
    sys.exit(main())
