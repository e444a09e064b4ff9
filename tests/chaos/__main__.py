"""`python -m tests.chaos [--deployments 200] [--minutes 30] [--seed N]`: the long mode, on a stack of its own.

Repeat a run with the seed it printed: the same deployments in the same order and the same choice of kills (when exactly
each lands depends on the machine). Exit code 1 when anything was wrong. Options are the environment's too: the stack
obeys HOTSWAP_TEMPORAL__BUILD_ID.
"""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from hotswap.domain.deployment import Environment
from hotswap.embedded.stack import EmbeddedStack
from tests.chaos.run import Report, run_chaos
from tests.e2e.live import Live, live_settings


async def _run(options: argparse.Namespace, scratch: Path) -> Report:
    stack = EmbeddedStack(scratch / "stack", nodes=3, environment=Environment.DEVELOPMENT, progress=lambda line: None)
    await stack.start()
    try:
        settings = live_settings(stack, os.environ.__setitem__)
        async with Live(stack, scratch, settings) as live:
            return await run_chaos(
                live,
                options.seed,
                options.deployments,
                options.lanes,
                rate=options.rate,
                deadline=options.minutes * 60,
                say=lambda line: print(line, flush=True),
            )
    finally:
        await stack.stop()


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.chaos", description="Kill parts while deployments run.")
    parser.add_argument("--deployments", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=27.0, help="no new deployment begins after these")
    parser.add_argument("--lanes", type=int, default=6, help="plugins deployed at the same time")
    parser.add_argument("--rate", type=float, default=25.0, help="requests a second for each plugin")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="keep the stack's data and logs")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    scratch = Path(tempfile.mkdtemp(prefix="hotswap-chaos-"))
    began = time.monotonic()
    try:
        report = asyncio.run(_run(options, scratch))
    finally:
        if options.keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    print(f"\n{report.table()}\n\n{'PASSED' if report.passed else 'FAILED'} after {time.monotonic() - began:.0f} s")
    return 0 if report.passed else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a Temporal client was used: an ordinary exit may abort (sdk-python #300)
