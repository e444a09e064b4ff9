"""`hotswap up`: the embedded stack in the foreground until Ctrl-C, SIGTERM, or the end of the process it belongs to.

Neighbours: hotswap.cli calls run_up; `python -m hotswap.embedded` (the tests, scripts) does the same with plain flags.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from hotswap.config import TelemetrySettings
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import HotSwapError
from hotswap.embedded.data_dir import DataDir
from hotswap.embedded.stack import EmbeddedStack
from hotswap.lifeline import die_with_parent
from hotswap.telemetry import configure_logging

HOME = "HOTSWAP_HOME"


def default_data_dir() -> Path:
    """$HOTSWAP_HOME, or .hotswap in the working directory."""
    return Path(os.environ.get(HOME) or ".hotswap")


def run_up(
    data_dir: Path | None = None,
    nodes: int = 3,
    environment: Environment = Environment.DEVELOPMENT,
    *,
    servers_only: bool = False,
    ephemeral: bool = False,
    until_pid: int | None = None,
    progress: Callable[[str], None] = print,
) -> int:
    """Block until told to stop; the exit code: 0 = stopped as asked, 1 = it could not start (the reason is on stderr).

    SIGUSR1 upgrades the nodes while they serve (EmbeddedStack.replace_nodes). `ephemeral` deletes the data directory at the end; `until_pid` stops it when that process ends. A second Ctrl-C
    kills everything at once.
    """
    die_with_parent()
    data = DataDir(data_dir or default_data_dir())
    try:
        stack = EmbeddedStack(data.root, nodes, environment, servers_only, progress)
        with data.open_log("supervisor") as log:
            configure_logging(TelemetrySettings(), "embedded", log)
            try:
                asyncio.run(_serve(stack, data, progress, until_pid))
            finally:
                if ephemeral:
                    stack.delete_data()  # only if it was ours
    except HotSwapError as fault:
        sys.stderr.write(f"{fault.message}\n")
        return 1
    except OSError as fault:  # a full disk, a file of the data directory that is not what it should be
        sys.stderr.write(f"cannot use {data.root}: {fault}; see that all in it can be written and its disk has room\n")
        return 1
    return 0


async def _serve(stack: EmbeddedStack, data: DataDir, progress: Callable[[str], None], until_pid: int | None) -> None:
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(130)  # the children are tied to this process
        stopping.set()

    loop = asyncio.get_running_loop()
    for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(caught, stop)
    owner = None if until_pid is None else asyncio.create_task(_ended(until_pid))
    if owner is not None:
        owner.add_done_callback(lambda _: stopping.set())
    asked = asyncio.create_task(stopping.wait())
    starting = asyncio.create_task(stack.start())
    try:
        await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        starting.result()
        replacing: set[asyncio.Task[None]] = set()

        def replace() -> None:
            if not replacing:
                task = asyncio.create_task(stack.replace_nodes(), name="replace the nodes")
                replacing.add(task)
                task.add_done_callback(replacing.discard)

        loop.add_signal_handler(signal.SIGUSR1, replace)
        progress(_welcome(stack, data))
        await asked
        for upgrade in replacing:
            upgrade.cancel()
        await asyncio.gather(*replacing, return_exceptions=True)
        await stack.stop()
    finally:
        for task in filter(None, (asked, owner)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _welcome(stack: EmbeddedStack, data: DataDir) -> str:
    info = stack.info
    lines = [
        f"console           {info['consoleUrl']}" if info["consoleUrl"] else "",
        f"API docs          {info['docsUrl']}" if info["docsUrl"] else "",
        f"Temporal Web UI   {info['temporalUiUrl']}" if info["temporalUiUrl"] else "",
        f"tokens, addresses {data.stack_file}",
        f"logs              {data.logs}",
        "up; Ctrl-C stops it",
    ]
    return "\n".join(line for line in lines if line)


async def _ended(pid: int) -> None:
    """Await the end of a process that is not our child. Without pidfd (macOS) looks twice a second."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        while _lives(pid):  # noqa: ASYNC110 - nothing to await, see above
            await asyncio.sleep(0.5)
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m hotswap.embedded", description="The embedded stack, in the foreground.")
    parser.add_argument("--data-dir", type=Path, default=None, help=f"default: ${HOME}, or .hotswap")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--environment", type=Environment, choices=list(Environment), default=Environment.DEVELOPMENT)
    parser.add_argument("--servers-only", action="store_true", help="no api, worker and nodes")
    parser.add_argument("--ephemeral", action="store_true", help="delete the data directory at the end")
    parser.add_argument("--until-pid", type=int, default=None, help="stop when this process ends")
    options = parser.parse_args(arguments)
    return run_up(
        options.data_dir,
        options.nodes,
        options.environment,
        servers_only=options.servers_only,
        ephemeral=options.ephemeral,
        until_pid=options.until_pid,
        progress=lambda line: print(line, flush=True),
    )
