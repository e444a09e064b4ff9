"""Takes workflows' orders from Temporal, on the node's own queue: from `start` until `stop`, and again if it is started again.

Neighbours: activities.nodes carries an order out, hotswap.node.agent starts and stops this. Serving never waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import Interceptor, Worker

from hotswap.domain.errors import Unavailable
from hotswap.domain.ids import node_queue
from hotswap.node.outage import Outage

log = logging.getLogger(__name__)

FIRST_POLL_WAIT = 2.0
"""Seconds to wait for Temporal before the node is ready without it."""

RETRY_FIRST, RETRY_LAST = 0.1, 2.0
"""Seconds between attempts to reach Temporal."""

ORDERS_GRACE = timedelta(seconds=1)
"""How long orders under way may take once the node stops; then they are cancelled and their workflow orders elsewhere."""

ORDERS_AT_ONCE = 100
"""Activities at once: orders of one plugin queue behind a lock here, so a few slow plugins must not fill all slots."""


class Orders:
    def __init__(
        self,
        node_id: str,
        address: str,
        connect: Callable[[], Awaitable[Client]],
        activities: Sequence[Callable[..., Any]],
        interceptors: Sequence[Interceptor],
        beside: Callable[[Client], Awaitable[None]],
    ) -> None:
        """`connect` gives a Temporal client or raises Unavailable; `address` is for the log.

        `beside` runs with the same client for as long as orders are taken, and is cancelled then.
        """
        self._node_id = node_id
        self._connect = connect
        self._activities = activities
        self._interceptors = interceptors
        self._beside = beside
        self._temporal = Outage(f"Temporal at {address}")
        self._polling = asyncio.Event()
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._poll(self._over), name="orders")

    async def first_poll(self) -> None:
        """Return once orders are taken, or when Temporal is not there in time: then they are taken as soon as it is."""
        try:
            async with asyncio.timeout(FIRST_POLL_WAIT):
                await self._polling.wait()
        except TimeoutError:
            log.warning("serving without Temporal for now", extra={"node": self._node_id})

    async def stop(self) -> None:
        """Take no more; those under way have ORDERS_GRACE. Repeats are fine."""
        self._over.set()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait({task})
            task.result()

    async def _poll(self, over: asyncio.Event) -> None:
        """Take orders until it is over; a Temporal that is away is tried again for ever."""
        delay = RETRY_FIRST
        while not over.is_set():
            try:
                client = await self._connect()
                async with self._worker(client):
                    self._temporal.passed()
                    self._polling.set()
                    delay = RETRY_FIRST
                    await until(over, self._beside(client))
            except Unavailable as fault:
                self._temporal.failed(fault)
            except Exception:
                # The worker gave up (a namespace that is gone, a rejected key). The node serves on.
                log.exception("taking orders failed; trying again", extra={"node": self._node_id})
            await until(over, asyncio.sleep(delay))
            delay = min(delay * 2, RETRY_LAST)

    def _worker(self, client: Client) -> Worker:
        return Worker(
            client,
            task_queue=node_queue(self._node_id),
            activities=self._activities,
            identity=self._node_id,
            interceptors=self._interceptors,
            max_concurrent_activities=ORDERS_AT_ONCE,
            graceful_shutdown_timeout=ORDERS_GRACE,
        )


async def until(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Do the work, but leave it when told to stop. True when it was done; raises what it raised."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        for each in (task, stopping):
            each.cancel()
        await asyncio.wait({task, stopping})
