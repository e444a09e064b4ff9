"""Heartbeats for activities that wait on others: Temporal learns of a dead process in seconds, the activity of a cancel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from temporalio import activity


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat at a third of the activity's heartbeat timeout while inside; nothing when none is set."""
    limit = activity.info().heartbeat_timeout
    if limit is None:
        yield
        return
    beat = asyncio.create_task(_beat(limit.total_seconds() / 3))
    try:
        yield
    finally:
        beat.cancel()
        with suppress(asyncio.CancelledError):
            await beat


async def _beat(every: float) -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(every)
