"""How a part of the live system is broken and kept broken, until the page has it mended."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.e2e.live import Live

Mend = Callable[[], Awaitable[None]]


@asynccontextmanager
async def down(live: Live, name: str) -> AsyncIterator[Mend]:
    """Killed, and not to be started again before it is mended: its program ends at once."""
    supervised = live.stack._supervised[name]
    whole = supervised.part
    supervised.part = replace(whole, command=("false",))
    killed = live.stack.kill(name)

    async def mend() -> None:
        supervised.part = whole
        async with asyncio.timeout(90):
            await live.stack.restarted(name, killed)

    try:
        yield mend
    finally:
        await mend()


@asynccontextmanager
async def hung(live: Live, name: str) -> AsyncIterator[Mend]:
    """Alive and mute, with all its processes; mended by killing it, since the stack starts it again then."""
    pid = live.stack.pid(name)
    family = _family(pid)
    for one in family:
        os.kill(one, signal.SIGSTOP)

    async def mend() -> None:
        if live.stack.pid(name) == pid:
            for one in reversed(family):
                os.kill(one, signal.SIGKILL)
        async with asyncio.timeout(90):
            await live.stack.restarted(name, pid)

    try:
        yield mend
    finally:
        await mend()


async def restart(live: Live, name: str, **environment: str) -> None:
    """Replace a part, with other settings when some are given."""
    supervised = live.stack._supervised[name]
    supervised.part = replace(supervised.part, environment={**supervised.part.environment, **environment})
    killed = live.stack.kill(name, signal.SIGTERM)
    async with asyncio.timeout(90):
        await live.stack.restarted(name, killed)


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found
