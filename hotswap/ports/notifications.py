"""The ports of notifications: the store of notices, rules and deliveries, and the channels that send messages.

`announce` belongs into the transaction of what happened: then nothing is told that did not happen, and nothing that happened
is left untold, whoever dies next. workflows.notify_dispatch routes what was announced.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from hotswap.domain.base import Model
from hotswap.domain.notices import Notice, NoticeKind
from hotswap.domain.notification_rules import Delivery, DeliveryStatus, Message, StoredRule, Target
from hotswap.domain.registry import Page


class DeliveryFilter(Model):
    rule_id: str | None = None
    event: NoticeKind | None = None
    status: DeliveryStatus | None = None


class NotificationStore(Protocol):
    async def announce(self, notice: Notice) -> None:
        """Keep it to be routed; the same event twice changes nothing."""
        ...

    async def notice(self, event_id: str) -> Notice:
        """Raises NotFound."""
        ...

    async def unrouted(self, limit: int) -> Sequence[Notice]:
        """Oldest first."""
        ...

    async def open(self, delivery: Delivery) -> None:
        """A repeat changes nothing."""
        ...

    async def routed(self, event_ids: Sequence[str]) -> None:
        """Nothing is left to do for these."""
        ...

    async def waiting(self) -> Mapping[str, int]:
        """Pending deliveries by rule."""
        ...

    async def rules(self) -> Sequence[StoredRule]:
        """By id."""
        ...

    async def rule(self, rule_id: str) -> StoredRule:
        """Raises NotFound."""
        ...

    async def set_rule(self, stored: StoredRule) -> bool:
        """Insert or replace; True when it is new."""
        ...

    async def delete_rule(self, rule_id: str) -> None:
        """Raises NotFound."""
        ...

    async def delivery(self, delivery_id: str) -> Delivery:
        """Raises NotFound."""
        ...

    async def deliveries(self, where: DeliveryFilter, page: Page) -> tuple[Sequence[Delivery], int]:
        """Newest first, and the total."""
        ...

    async def note_attempt(self, delivery_id: str, status: DeliveryStatus, error: str = "") -> None:
        """One more attempt, by the server's clock. What is finished stays as it is. Raises NotFound."""
        ...

    async def give_up(self, delivery_id: str, error: str = "") -> None:
        """Pending becomes Failed; without `error` the last one stays. Raises NotFound."""
        ...

    async def sweep(self, older: timedelta, most: int) -> int:
        """Forget routed notices older than that, with their deliveries; how many."""
        ...


class Channels(Protocol):
    async def send(self, target: Target, message: Message) -> None:
        """Raises NotificationFault, whose text holds no secret."""
        ...

    async def close(self) -> None: ...
