"""What is kept of the time after a rollout: held versions and the last drift reports, behind `UnitOfWork.held` and `.drift`."""

from collections.abc import Sequence
from typing import Protocol

from hotswap.domain.drift import DriftReport
from hotswap.domain.holds import HeldVersion
from hotswap.domain.registry import Page


class HeldVersionStore(Protocol):
    async def hold(self, held: HeldVersion) -> None:
        """Insert, or replace the hold of the same version. Raises NotFound for an unknown environment or version."""
        ...

    async def find(self, environment: str, plugin: str, version: str) -> HeldVersion | None: ...

    async def lift(self, environment: str, plugin: str, version: str) -> bool:
        """Let the version come again. False when it was not held."""
        ...

    async def list(self, environment: str | None, page: Page) -> tuple[Sequence[HeldVersion], int]:
        """Newest first, and the total."""
        ...


class DriftStore(Protocol):
    async def save(self, report: DriftReport) -> None:
        """Keep the newest report of its environment; an older one is ignored. Raises NotFound (environment)."""
        ...

    async def last(self, environment: str) -> DriftReport | None: ...
