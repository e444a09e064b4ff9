"""Delivers one notification: reads what it says and where it goes now, sends it, and keeps the log of it.

Only a delivery's id is in histories: texts stay in PostgreSQL, secrets in the settings of the worker. Neighbours:
workflows.notify repeats until it is delivered, hotswap.adapters.notification_channels sends.
"""

from temporalio import activity

from activities.errors import translated
from hotswap.domain.base import Model, bounded
from hotswap.domain.errors import NotFound, NotificationFault
from hotswap.domain.notification_rules import DeliveryStatus, message_of
from hotswap.ports.notifications import Channels
from hotswap.ports.records import UnitOfWorkFactory


class DeliveryOrder(Model):
    delivery_id: str


class Delivered(Model):
    """How the delivery stands."""

    status: DeliveryStatus


class NotifyActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory, channels: Channels) -> None:
        self._unit_of_work = unit_of_work
        self._channels = channels

    @activity.defn
    @translated
    async def deliver(self, order: DeliveryOrder) -> Delivered:
        """One attempt. Raises NotificationFault when a repeat may help; what cannot be sent for good is on record as Failed."""
        async with self._unit_of_work() as uow:
            delivery = await uow.notifications.delivery(order.delivery_id)
            if delivery.status is not DeliveryStatus.PENDING:
                return Delivered(status=delivery.status)  # the attempt before did it, and its answer was lost
            try:
                notice = await uow.notifications.notice(delivery.event_id)
                rule = (await uow.notifications.rule(delivery.rule_id)).rule
            except NotFound as gone:
                await uow.notifications.give_up(order.delivery_id, bounded(gone.message))
                await uow.commit()
                return Delivered(status=DeliveryStatus.FAILED)
        try:
            await self._channels.send(rule.target, message_of(notice, rule))
        except NotificationFault as fault:
            status = DeliveryStatus.PENDING if fault.transient else DeliveryStatus.FAILED
            await self._note(order.delivery_id, status, bounded(fault.message))
            if fault.transient:
                # Histories keep no text of receivers: the log of deliveries has it.
                why = f"{order.delivery_id} was not delivered; GET /notifications/deliveries says why"
                raise NotificationFault(why, transient=True, retry_after=fault.retry_after) from None
            return Delivered(status=status)
        await self._note(order.delivery_id, DeliveryStatus.DELIVERED)
        return Delivered(status=DeliveryStatus.DELIVERED)

    @activity.defn
    @translated
    async def give_up_delivery(self, order: DeliveryOrder) -> None:
        """It was tried long enough; the last fault stays on record."""
        async with self._unit_of_work() as uow:
            await uow.notifications.give_up(order.delivery_id)
            await uow.commit()

    async def _note(self, delivery_id: str, status: DeliveryStatus, error: str = "") -> None:
        async with self._unit_of_work() as uow:
            await uow.notifications.note_attempt(delivery_id, status, error.replace("\0", "\ufffd"))
            await uow.commit()
