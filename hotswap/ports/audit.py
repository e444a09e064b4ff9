"""The port of the audit: append, look through, follow its hash chain, truncate behind a signed checkpoint.

One of the stores of hotswap.ports.records.UnitOfWork. Every method raises Unavailable when the server does not answer.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from hotswap.domain.audit import Checkpoint, SealedEntry
from hotswap.domain.base import Instant, Model
from hotswap.domain.registry import AuditEntry, Page


class AuditFilter(Model):
    """`since` is included, `until` is not."""

    entity: str | None = None
    entity_type: str | None = None
    event_type: str | None = None
    user: str | None = None
    since: Instant | None = None
    until: Instant | None = None


class AuditStore(Protocol):
    async def append(self, entry: AuditEntry) -> None:
        """The entry is sealed into the chain by the commit."""
        ...

    async def list(self, entity_id: str | None, user: str | None, page: Page) -> tuple[Sequence[AuditEntry], int]:
        """Newest first, and the total."""
        ...

    async def find(self, where: AuditFilter, page: Page) -> tuple[Sequence[AuditEntry], int]:
        """Newest first, and the total."""
        ...

    async def sealed(
        self, after: int, limit: int, where: AuditFilter | None = None, *, lost: bool = False
    ) -> Sequence[SealedEntry]:
        """Entries behind position `after` in the chain's order. `lost`: also seals whose entry is gone."""
        ...

    async def unsealed(self) -> int:
        """Committed entries without a seal: somebody wrote past the chain. Reads no more than 1,000 of them."""
        ...

    async def checkpoints(self) -> Sequence[Checkpoint]:
        """Oldest first."""
        ...

    async def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Raises Conflict when another follows the same one."""
        ...

    async def last_before(self, instant: datetime, most: int) -> int:
        """The last position of the chain's beginning (at most `most` long) in which all is older than `instant`; 0 = none."""
        ...

    async def truncate(self, position: int) -> int:
        """Take away entries and seals up to `position`; how many. Raises Conflict unless a truncating checkpoint covers it."""
        ...
