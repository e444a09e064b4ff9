"""Publishers' keys on record (`UnitOfWork.publisher_keys`), and the guard that decides before bytes are trusted."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from hotswap.domain.deployment import Environment
from hotswap.domain.registry import Page
from hotswap.domain.routes import ArtifactRef
from hotswap.domain.signatures import PublisherKey


class PublisherKeyStore(Protocol):
    async def add(self, key: PublisherKey) -> None:
        """Raises Conflict when the key is registered, revoked ones included: a key that was revoked never comes back."""
        ...

    async def get(self, key_id: str) -> PublisherKey:
        """Raises NotFound."""
        ...

    async def list(self, page: Page) -> tuple[Sequence[PublisherKey], int]:
        """Newest first, and the total."""
        ...

    async def revoke(self, key_id: str, by: str, reason: str, at: datetime) -> PublisherKey:
        """For good; a repeat keeps the first revocation. Raises NotFound."""
        ...


class SignatureGuard(Protocol):
    async def check(self, ref: ArtifactRef, environment: Environment | None) -> None:
        """Whether this artifact may be trusted there; None: no environment is asked, what is signed must be right.

        Raises SignatureRefused (a repeat cannot help), NotFound for a version that is not registered, Unavailable.
        """
        ...
