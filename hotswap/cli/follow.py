"""Follows one deployment over the api's event stream, across restarts of the api, until its end.

The stream is server-sent events (`timeline`, `status`, `end`); a broken one is taken up again behind the last
timeline event seen (Last-Event-ID), so nothing is told twice and nothing is lost.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from hotswap.cli.client import ApiClient
from hotswap.cli.faults import ApiError, ApiUnreachable
from hotswap.domain.lifecycle import TERMINAL

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds before the first and at most between later tries to reconnect."""


class Kind(StrEnum):
    TIMELINE = "timeline"
    STATUS = "status"
    END = "end"
    LOST = "lost"
    BACK = "back"


@dataclass(frozen=True)
class Happening:
    """One thing seen. LOST says why the stream broke (`data["why"]`), BACK that it runs again."""

    kind: Kind
    data: dict[str, Any] = field(default_factory=dict)


class Restlessly:
    """Pauses that double up to a bound, and start over once something worked."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def reset(self) -> None:
        self._pause = FIRST_PAUSE

    async def wait(self) -> None:
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


async def follow(
    api: ApiClient, deployment_id: str, after: int = 0, give_up_after: float | None = None
) -> AsyncGenerator[Happening, None]:
    """Everything that happens to a deployment, until END. Never gives up while the api is away, unless told when.

    `give_up_after` is seconds without an api. Raises ApiError when the api refuses (unknown id, wrong token),
    ApiUnreachable when it gave up.
    """
    seen = after
    lost_since: float | None = None
    pauses = Restlessly()
    while True:
        why = "the stream ended early"
        try:
            async with (
                api.event_stream(deployment_id, seen) as response,
                aclosing(EventSource(response).aiter_sse()) as events,
            ):
                async for event in events:
                    happening = _read(event)
                    if happening is None:
                        continue
                    if lost_since is not None:
                        lost_since = None
                        pauses.reset()
                        yield Happening(Kind.BACK)
                    if happening.kind is Kind.TIMELINE:
                        sequence = int(happening.data.get("sequence", 0))
                        if sequence <= seen:
                            continue
                        seen = sequence
                    yield happening
                    if happening.kind is Kind.END:
                        return
            deployment = await api.deployment(deployment_id)  # a clean end without `end`: ask whether it is over
            if is_over(deployment):
                yield Happening(Kind.STATUS, deployment)
                yield Happening(Kind.END, {"status": deployment["status"]})
                return
        except ApiUnreachable as fault:
            why = fault.message
        except (httpx.TransportError, SSEError) as fault:
            why = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
        except ApiError as fault:
            if fault.status < 500 and fault.status != 429:
                raise
            why = fault.message
        now = time.monotonic()
        if lost_since is None:
            lost_since = now
            yield Happening(Kind.LOST, {"why": why})
        elif give_up_after is not None and now - lost_since > give_up_after:
            raise ApiUnreachable(api.connection.url, why)
        await pauses.wait()
        await api.refind()


def _read(event: ServerSentEvent) -> Happening | None:
    """One server-sent event as a happening; None for kinds we do not know (a newer api may send more)."""
    if event.event not in (Kind.TIMELINE, Kind.STATUS, Kind.END):
        return None
    try:
        data = json.loads(event.data)
    except ValueError as fault:
        raise SSEError(f"the api sent a broken {event.event} event: {fault}") from None
    if not isinstance(data, dict):
        raise SSEError(f"the api sent a {event.event} event that is no object")
    return Happening(Kind(event.event), data)


def is_over(deployment: dict[str, Any]) -> bool:
    """Whether the deployment's status is a terminal one."""
    return deployment.get("status") in {str(status) for status in TERMINAL}
