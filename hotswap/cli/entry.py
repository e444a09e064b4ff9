"""The console script: `hotswap.cli.main`, with Ctrl-C quiet from the first moment, also while its imports run."""

import sys

from hotswap.cli.faults import INTERRUPTED


def main() -> None:
    try:
        from hotswap.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
