"""Sandbox sessions and their executions on record: the store behind `UnitOfWork.sandboxes`."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from hotswap.domain.base import Model
from hotswap.domain.deployment import Environment
from hotswap.domain.registry import Page
from hotswap.domain.sandbox import SandboxExecution, SandboxSession, SessionStatus

LATE = timedelta(minutes=1)
"""How long after its expiry a session may still be open on record; later its workflow is gone, and its place is free."""

KEPT = timedelta(days=7)
"""How long an ended session's results stay."""


class SandboxFilter(Model):
    plugin: str | None = None
    environment: Environment | None = None
    status: SessionStatus | None = None


class SandboxStore(Protocol):
    async def open(self, session: SandboxSession, most: int) -> bool:
        """Insert once, if fewer than `most` are live in its environment, counted exactly however many ask at once.

        A repeat changes nothing: False. Ends what is LATE by the server's clock, and forgets what ended longer than KEPT ago.
        Raises Conflict naming the oldest when all places are taken, NotFound for an unknown version or environment.
        """
        ...

    async def started(self, sandbox_id: str, run_id: str) -> None:
        """Its workflow runs. Raises NotFound."""
        ...

    async def discard(self, sandbox_id: str) -> None:
        """Forget a session that could not be started. Unknown ids are fine."""
        ...

    async def get(self, sandbox_id: str) -> SandboxSession:
        """Raises NotFound."""
        ...

    async def list(self, where: SandboxFilter, page: Page) -> tuple[Sequence[SandboxSession], int]:
        """Newest first, and the total."""
        ...

    async def live(self) -> Mapping[str, int]:
        """How many have not ended, by environment; environments without any are left out."""
        ...

    async def close(self, sandbox_id: str, status: SessionStatus, reason: str) -> bool:
        """End it, and cancel what has not finished. The first ending holds: False when there was one. Raises NotFound."""
        ...

    async def queue(self, execution: SandboxExecution, request: str, most: int) -> None:
        """Insert once, while the session is Active and has fewer than `most`. `request` is a JSON object.

        A repeat changes nothing. Raises NotFound without the session, Conflict when it is over or full.
        """
        ...

    async def withdraw(self, execution_id: str) -> None:
        """Forget an execution that is still Queued: its session refused it. Anything else stays."""
        ...

    async def claim(self, execution_id: str) -> tuple[SandboxExecution, str]:
        """The execution and its request ("" once it has finished), locked until the unit of work ends. Raises NotFound."""
        ...

    async def save(self, execution: SandboxExecution) -> None:
        """Replace the row; a finished one loses its request. Raises NotFound."""
        ...

    async def execution(self, sandbox_id: str, execution_id: str) -> SandboxExecution:
        """Whole. Raises NotFound, also when it is another session's."""
        ...

    async def executions(self, sandbox_id: str, page: Page) -> tuple[Sequence[SandboxExecution], int]:
        """Newest first, and the total; output and logs over LISTED_BYTES are left out and marked so."""
        ...

    async def counts(self, sandbox_id: str) -> dict[str, int]:
        """How many executions are in which status."""
        ...
