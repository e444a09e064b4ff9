"""Routes what was announced: opens a delivery for each rule that matches and starts its workflow. Every worker runs one.

Ids derive from the event and the rule, so that two workers, or one that died half-way, make one delivery of it. A notice is
marked as routed last. Neighbours: hotswap.ports.notifications keeps notices, workflows.notify delivers.
"""

import asyncio
import logging
from collections import Counter
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities.notify import DeliveryOrder
from hotswap.domain.errors import Unavailable
from hotswap.domain.notices import Notice
from hotswap.domain.notification_rules import Delivery, DeliveryStatus, NotificationRule, delivery_id
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from workflows.notify import NotificationDelivery

logger = logging.getLogger("hotswap.notifications")

LOOK_EVERY = timedelta(seconds=1)
BATCH = 100
REST_AFTER_FAULT = timedelta(seconds=5)
SWEEP_EVERY = timedelta(minutes=10)
SWEPT_AT_ONCE = 1_000

MOST_WAITING = 10_000
"""Deliveries of one rule that may wait. What comes above is Failed at once: its receiver is down, or asks for too much."""


class NoticeDispatcher:
    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        client: Client,
        task_queue: str,
        per_minute: int,
        kept: timedelta,
        look_every: timedelta = LOOK_EVERY,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._client = client
        self._task_queue = task_queue
        self._per_minute = per_minute
        self._kept = kept
        self._look_every = look_every

    async def run(self) -> None:
        """Until cancelled. PostgreSQL or Temporal away: a notice waits for the next look."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time()
        while True:
            try:
                full = await self.route_once() == BATCH
                if loop.time() >= sweep_at:
                    sweep_at = loop.time() + SWEEP_EVERY.total_seconds()
                    await self._sweep()
                pause = timedelta(0) if full else self._look_every
            except (Unavailable, RPCError) as fault:
                logger.warning("notices wait: %s", fault)
                pause = REST_AFTER_FAULT
            except Exception:  # a notice that breaks us must not end the worker's other notices, nor the worker
                logger.exception("notices could not be routed")
                pause = REST_AFTER_FAULT
            await asyncio.sleep(pause.total_seconds())

    async def route_once(self) -> int:
        """Route the oldest notices; how many. Raises Unavailable, RPCError: then they are routed again."""
        async with self._unit_of_work() as uow:
            notices = await uow.notifications.unrouted(BATCH)
            if not notices:
                return 0
            rules = [stored.rule for stored in await uow.notifications.rules()]
            pairs = [(notice, rule) for notice in notices for rule in rules if rule.matches(notice)]
            started = await self._open(uow, pairs) if pairs else []
            await uow.commit()
        for delivery, delay in started:
            await self._start(delivery, delay)
        async with self._unit_of_work() as uow:
            await uow.notifications.routed([notice.event_id for notice in notices])
            await uow.commit()
        return len(notices)

    async def _open(
        self, uow: UnitOfWork, pairs: list[tuple[Notice, NotificationRule]]
    ) -> list[tuple[Delivery, timedelta]]:
        """The deliveries to start, each with how long it waits for its turn: so many a minute and rule."""
        waiting = Counter(await uow.notifications.waiting())
        started = []
        now = await uow.now()
        for notice, rule in pairs:
            delivery = Delivery(
                delivery_id=delivery_id(notice.event_id, rule.rule_id),
                event_id=notice.event_id,
                rule_id=rule.rule_id,
                kind=notice.kind,
                channel=rule.target.kind,
                target=rule.target.shown(),
                created_at=now,
            )
            before = waiting[rule.rule_id]
            waiting[rule.rule_id] += 1
            if before >= MOST_WAITING:
                why = f"{MOST_WAITING:,} deliveries of this rule wait already"
                changes = {"status": DeliveryStatus.FAILED, "last_error": why, "finished_at": now}
                await uow.notifications.open(delivery.model_copy(update=changes))
                continue
            await uow.notifications.open(delivery)
            started.append((delivery, timedelta(minutes=before // self._per_minute)))
        return started

    async def _start(self, delivery: Delivery, delay: timedelta) -> None:
        try:
            await self._client.start_workflow(
                NotificationDelivery.run,
                DeliveryOrder(delivery_id=delivery.delivery_id),
                id=f"notification/{delivery.delivery_id}",
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                start_delay=delay or None,
                static_summary=f"{delivery.kind} to {delivery.rule_id} by {delivery.channel}",
            )
        except WorkflowAlreadyStartedError:
            return  # by another worker, or before we died the last time

    async def _sweep(self) -> None:
        async with self._unit_of_work() as uow:
            swept = await uow.notifications.sweep(self._kept, SWEPT_AT_ONCE)
            await uow.commit()
        if swept:
            logger.info("forgot %d notices older than %s", swept, self._kept)
