"""Freezes on record: the store behind `UnitOfWork.freezes`. What they mean is hotswap.domain.freeze's to say."""

from collections.abc import Sequence
from typing import Protocol

from hotswap.domain.base import Model
from hotswap.domain.deployment import Environment
from hotswap.domain.freeze import Freeze
from hotswap.domain.registry import Page


class FreezeFilter(Model):
    """`environment` and `plugin` select the freezes that concern them, those for all included."""

    environment: Environment | None = None
    plugin: str | None = None
    lifted: bool | None = None


class FreezeStore(Protocol):
    async def add(self, freeze: Freeze) -> None:
        """Raises Conflict when the id is there or a stop stands already, NotFound for an unknown environment or plugin."""
        ...

    async def get(self, freeze_id: str) -> Freeze:
        """Raises NotFound."""
        ...

    async def list(self, where: FreezeFilter, page: Page) -> tuple[Sequence[Freeze], int]:
        """Newest first, and the total."""
        ...

    async def in_force(self, environment: str | None, plugin: str | None) -> Sequence[Freeze]:
        """Not lifted and not over for good, concerning both (None: whatever), oldest first: the input of `standing`."""
        ...

    async def lift(self, freeze_id: str, by: str, reason: str) -> Freeze:
        """Lift by the server's clock; a repeat changes nothing and returns it as it was lifted first. Raises NotFound."""
        ...
