"""A deployment's life as server-sent events, out of PostgreSQL's projection; the event bus only says when to look.

Events: `timeline` (id = sequence, data TimelineEvent), `status` (data = the deployment) when its sequence rises, `end`
(data {"status"}) at a terminal status. A bus that is away costs up to a second of delay, a database that is away a
comment in the stream; neither ends it. Neighbours: activities.records writes what is read here.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from time import monotonic

from fastapi.sse import format_sse_event
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.metrics import ApiMetrics
from api.services.deployments import DeploymentService
from hotswap.domain.deployment import TimelineEvent
from hotswap.domain.errors import Unavailable
from hotswap.domain.lifecycle import TERMINAL
from hotswap.ports.events import EventBus
from hotswap.ports.records import DeploymentRow, UnitOfWorkFactory

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
"""Well under the 60 s after which common proxies close a silent connection."""

RESUBSCRIBE_SECONDS = 5.0
RETRY_MILLISECONDS = 1000
RECANCEL_SECONDS = 0.25
PAGE = 500


class EventStreams:
    """Makes one stream for each watcher. `close` ends them all, so that a stopping api does not wait for watchers."""

    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        bus: EventBus,
        deployments: DeploymentService,
        metrics: ApiMetrics,
        poll_seconds: float = POLL_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._bus = bus
        self._deployments = deployments
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._wakes: set[asyncio.Event] = set()
        self._closed = False

    def close(self) -> None:
        """End every stream; watchers come back to another api with their Last-Event-ID. Call it from the event loop."""
        self._closed = True
        for wake in self._wakes:
            wake.set()

    async def watch(self, deployment_id: str, after: int) -> AsyncIterator[bytes]:
        """The stream of an existing deployment, from behind timeline event `after` (0 = from the beginning)."""
        wake = asyncio.Event()
        listener = asyncio.create_task(self._listen(f"deployment:{deployment_id}", wake))
        self._wakes.add(wake)
        try:
            with self._metrics.streams.track_inprogress():
                async for event in self._follow(deployment_id, after, wake):
                    yield event
        finally:
            self._wakes.discard(wake)
            await _ended(listener)

    async def _follow(self, deployment_id: str, after: int, wake: asyncio.Event) -> AsyncIterator[bytes]:
        yield format_sse_event(retry=RETRY_MILLISECONDS)
        told_sequence, spoke = -1, monotonic()
        while not self._closed:
            wake.clear()
            fresh: list[bytes] = []
            try:
                row, events = await self._look(deployment_id, after)
            except Unavailable as fault:
                log.warning("watching %s: %s", deployment_id, fault.message)
                fresh.append(format_sse_event(comment="the record is away; still watching"))
            else:
                for event in events:
                    after = event.sequence
                    fresh.append(_event("timeline", event.model_dump_json(), str(event.sequence)))
                if row.progress.sequence > told_sequence:
                    told_sequence = row.progress.sequence
                    fresh.append(_event("status", self._deployments.view(row).model_dump_json()))
                if row.progress.status in TERMINAL and len(events) < PAGE:
                    yield b"".join([*fresh, _event("end", json.dumps({"status": row.progress.status}))])
                    return
                if len(events) == PAGE:
                    wake.set()
            if not fresh and monotonic() - spoke >= self._heartbeat_seconds:
                fresh.append(format_sse_event(comment="heartbeat"))
            if fresh:
                spoke = monotonic()
                yield b"".join(fresh)
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await wake.wait()
        yield format_sse_event(comment="the api is stopping; come back with Last-Event-ID")

    async def _look(self, deployment_id: str, after: int) -> tuple[DeploymentRow, list[TimelineEvent]]:
        """The row first: events read after a terminal row are all there will ever be."""
        async with self._unit_of_work() as uow:
            row = await uow.deployments.get(deployment_id)
            return row, list(await uow.deployments.events(deployment_id, after, PAGE))

    async def _listen(self, topic: str, wake: asyncio.Event) -> None:
        """Set `wake` for every message. Without a bus the poll alone carries the stream."""
        while True:
            try:
                async with self._bus.subscribe(topic) as messages:
                    wake.set()  # what happened before we listened
                    async for _ in messages:
                        wake.set()
            except Unavailable as fault:
                log.info("no wake-ups on %s: %s", topic, fault.message)
            await asyncio.sleep(RESUBSCRIBE_SECONDS)


def _event(name: str, data: str, event_id: str | None = None) -> bytes:
    return format_sse_event(event=name, data_str=data, id=event_id)


class EventStreamResponse(Response):
    """Sends a stream and ends it in order, its generator closed, when the watcher goes or the stream is over."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pump = asyncio.create_task(self._pump(send))
        gone = asyncio.create_task(_until_disconnected(receive))
        try:
            await asyncio.wait([pump, gone], return_when=asyncio.FIRST_COMPLETED)
            if not pump.done():
                log.debug("a watcher left")
        finally:
            await _ended(pump)
            await _ended(gone)
        if not pump.cancelled():
            pump.result()  # raises what broke the stream
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send) -> None:
        async with contextlib.aclosing(self._events) as events:  # type: ignore[type-var]
            async for chunk in events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel until it is over: redis-py loses a cancellation that comes while it connects (measured: one in ten)."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=RECANCEL_SECONDS)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
