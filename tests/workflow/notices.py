"""A small stand-in for the channels of notifications, and one delivery to carry out."""

from typing import Any

from temporalio.client import WorkflowHandle

from activities.notify import Delivered, DeliveryOrder
from hotswap.domain.errors import NotificationFault
from hotswap.domain.notices import Notice, NoticeKind
from hotswap.domain.notification_rules import (
    Delivery,
    EmailTarget,
    Message,
    NotificationRule,
    StoredRule,
    Target,
    delivery_id,
)
from tests.workflow.world import NOW, World
from workflows.notify import NotificationDelivery


class ScriptedChannels:
    """`fails` times a transient fault, then everything arrives."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.sent: list[Message] = []

    async def send(self, target: Target, message: Message) -> None:
        if self.fails:
            self.fails -= 1
            raise NotificationFault("the receiver answered 503", transient=True)
        self.sent.append(message)

    async def close(self) -> None:
        """Holds nothing."""


async def start_delivery(world: World) -> WorkflowHandle[Any, Delivered]:
    """Of a test notice to a rule of this world's."""
    rule = NotificationRule(rule_id="hook", target=EmailTarget(to=("oncall@example.com",)))
    notice = Notice(event_id=f"ntc-{world.name}", kind=NoticeKind.TEST, happened_at=NOW)
    delivery = Delivery(
        delivery_id=delivery_id(notice.event_id, rule.rule_id),
        event_id=notice.event_id,
        rule_id=rule.rule_id,
        kind=notice.kind,
        channel=rule.target.kind,
        target=rule.target.shown(),
        created_at=NOW,
    )
    async with world.records.unit_of_work() as uow:
        await uow.notifications.set_rule(StoredRule(rule=rule, updated_by="admin", updated_at=NOW))
        await uow.notifications.announce(notice)
        await uow.notifications.open(delivery)
        await uow.commit()
    return await world.client.start_workflow(
        NotificationDelivery.run,
        DeliveryOrder(delivery_id=delivery.delivery_id),
        id=f"notification/{delivery.delivery_id}",
        task_queue=world.queue,
    )
