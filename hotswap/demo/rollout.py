"""One deployment under observation: start it through the api, watch all that happens, wait for what should happen.

Shared by the story and the end-to-end tests. Neighbours: hotswap.cli.client speaks, hotswap.cli.follow watches.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self

from hotswap.cli.client import ApiClient
from hotswap.cli.connection import Connection
from hotswap.cli.faults import CliError
from hotswap.cli.follow import Happening, Kind, follow, is_over
from hotswap.cli.output import instant
from hotswap.cli.render import status_line

Listener = Callable[["Rollout", Happening], None]


class NotSo(Exception):
    """What should have happened did not; the text says what was waited for and how things stand."""


@dataclass(frozen=True)
class SeenEvent:
    """A timeline event and the Unix time at which it reached us."""

    sequence: int
    kind: str
    message: str
    at: float
    seen_at: float
    data: dict[str, Any]


def connection_of(info: dict[str, Any], user: str) -> Connection:
    """How one of the stack's users reaches its api; `info` is what stack.json says."""
    return Connection(str(info["apiUrl"]), None, "", None, info).as_user(user)


class Rollout:
    """`async with await Rollout.start(api, body) as rollout: await rollout.until_status(...)`."""

    def __init__(self, api: ApiClient, deployment: dict[str, Any], listener: Listener | None = None) -> None:
        self.api = api
        self.deployment = deployment
        self.events: list[SeenEvent] = []
        self.reconnects = 0
        self.progressed_at: list[float] = []
        self._listener = listener
        self._news = asyncio.Condition()
        self._follower: asyncio.Task[None] | None = None
        self._told_all = False
        self._fault: CliError | None = None

    @classmethod
    async def start(cls, api: ApiClient, body: dict[str, Any], listener: Listener | None = None) -> Self:
        """POST /deployments. Raises ApiError when the api refuses."""
        return cls(api, await api.deploy(body), listener)

    async def __aenter__(self) -> Self:
        self._follower = asyncio.create_task(self._follow(), name=f"follow {self.id}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._follower is not None
        self._follower.cancel()
        await asyncio.gather(self._follower, return_exceptions=True)

    @property
    def id(self) -> str:
        return str(self.deployment["deploymentId"])

    @property
    def status(self) -> str:
        return str(self.deployment["status"])

    @property
    def over(self) -> bool:
        return is_over(self.deployment)

    def weight(self) -> int:
        """Percent of tenants ordered."""
        return int(self.deployment.get("setWeightPercent") or 0)

    def at(self, field: str) -> float | None:
        """A time of the deployment's JSON (`rolledBackAt`, ...) as Unix time."""
        moment = instant(self.deployment.get(field))
        return moment.timestamp() if moment else None

    def verdict_at(self, outcome: str) -> float | None:
        """When the present verdict was taken, if it has this outcome."""
        verdict = self.deployment.get("verdict") or {}
        moment = instant(verdict.get("takenAt")) if verdict.get("outcome") == outcome else None
        return moment.timestamp() if moment else None

    async def until(self, condition: Callable[["Rollout"], bool], what: str, timeout: float) -> Self:
        """Wait until `condition` holds. Raises NotSo when it ends otherwise, or after `timeout` seconds."""
        assert self._follower is not None, "use it as an async context manager"
        try:
            async with asyncio.timeout(timeout), self._news:
                while not condition(self):
                    if self._told_all:
                        because = f" ({self._fault.message})" if self._fault else ""
                        raise NotSo(f"waited for {what}, but it ended: {self.describe()}{because}")
                    await self._news.wait()
        except TimeoutError:
            raise NotSo(f"waited {timeout:.0f} s for {what}; now: {self.describe()}") from None
        return self

    async def until_status(self, *statuses: str, timeout: float = 60.0) -> Self:
        """Wait until it is in one of these statuses."""
        return await self.until(lambda one: one.status in statuses, f"status {' or '.join(statuses)}", timeout)

    async def until_over(self, timeout: float = 120.0) -> Self:
        """Wait until the whole story of the deployment was told."""
        assert self._follower is not None, "use it as an async context manager"
        await self.until(lambda one: one.over, "the end", timeout)
        await asyncio.wait({self._follower}, timeout=10)  # the last events follow the last status
        return self

    async def until_progress_after(self, moment: float, timeout: float = 60.0) -> float:
        """The Unix time at which we first saw something that the workflow did after `moment`."""
        await self.until(
            lambda one: any(at > moment for at in one.progressed_at), "progress after the interruption", timeout
        )
        return time.time()

    async def approve(self, approver: ApiClient, comment: str = "", timeout: float = 60.0) -> Self:
        """Wait until approval is asked for, then approve what is planned."""
        await self.until_status("AwaitingApproval", timeout=timeout)
        await approver.command(self.id, "approve", comment, str(self.deployment.get("planHash") or ""))
        return self

    def describe(self) -> str:
        """How it stands, in one line, and the last thing that happened."""
        last = f"; last: {self.events[-1].message}" if self.events else ""
        return f"{self.id}: {status_line(self.deployment)}{last}"

    async def _follow(self) -> None:
        try:
            async with aclosing(follow(self.api, self.id, give_up_after=60.0)) as happenings:
                async for happening in happenings:
                    self._take(happening)
                    if self._listener is not None:
                        self._listener(self, happening)
                    async with self._news:
                        self._news.notify_all()
        except CliError as fault:
            self._fault = fault
        finally:
            self._told_all = True
            async with self._news:
                self._news.notify_all()

    def _take(self, happening: Happening) -> None:
        now, data = time.time(), happening.data
        match happening.kind:
            case Kind.TIMELINE:
                moment = instant(data["at"])
                at = moment.timestamp() if moment else 0.0
                self.events.append(
                    SeenEvent(data["sequence"], data["kind"], data["message"], at, now, data.get("data", {}))
                )
                self.progressed_at.append(at)
            case Kind.STATUS:
                self.deployment = data
                judged = instant((data.get("verdict") or {}).get("takenAt"))
                if judged:
                    self.progressed_at.append(judged.timestamp())
            case Kind.LOST:
                self.reconnects += 1
            case Kind.BACK | Kind.END:
                pass
