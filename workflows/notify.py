"""Delivers one notification, repeating for a day with growing pauses. Nothing waits for it, no rollout knows of it.

Neighbours: workflows.notify_dispatch starts one for each delivery, activities.notify sends.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.errors import failure_of
    from activities.notify import Delivered, DeliveryOrder, NotifyActivities
    from hotswap.domain.notification_rules import DeliveryStatus
    from workflows import activity_options


@workflow.defn(name="NotificationDelivery")
class NotificationDelivery:
    @workflow.run
    async def run(self, order: DeliveryOrder) -> Delivered:
        try:
            return await workflow.execute_activity_method(
                NotifyActivities.deliver, order, summary="send", **activity_options.DELIVER
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("%s was given up: %s", order.delivery_id, failure_of(error).message)
        await workflow.execute_activity_method(
            NotifyActivities.give_up_delivery, order, summary="give up", **activity_options.DATABASE
        )
        return Delivered(status=DeliveryStatus.FAILED)
