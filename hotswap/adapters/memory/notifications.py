"""Notices, rules and deliveries in memory: the twin of hotswap.adapters.postgres.notifications."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from hotswap.adapters import record_rules as rules
from hotswap.adapters import trail_rules
from hotswap.adapters.memory.record_state import KeptNotice
from hotswap.adapters.memory.record_stores import _slice, _Store, _stored
from hotswap.domain.notices import Notice
from hotswap.domain.notification_rules import Delivery, DeliveryStatus, StoredRule
from hotswap.domain.registry import Page
from hotswap.ports.notifications import DeliveryFilter


class MemoryNotificationStore(_Store):
    async def announce(self, notice: Notice) -> None:
        rules.storable(notice, trail_rules.NOTICE_LIMITS)
        state = await self._transaction.writing()
        state.notices.setdefault(notice.event_id, KeptNotice(_stored(notice), self._transaction.instant()))

    async def notice(self, event_id: str) -> Notice:
        rules.check_storable({"eventId": event_id})
        found = (await self._transaction.reading()).notices.get(event_id)
        if found is None:
            raise trail_rules.notice_missing(event_id)
        return found.notice

    async def unrouted(self, limit: int) -> Sequence[Notice]:
        kept = (await self._transaction.reading()).notices.values()
        return [one.notice for one in sorted(kept, key=lambda one: one.announced_at) if not one.routed][:limit]

    async def open(self, delivery: Delivery) -> None:
        rules.storable(delivery, trail_rules.DELIVERY_LIMITS)
        state = await self._transaction.writing()
        if delivery.event_id not in state.notices:
            raise trail_rules.notice_missing(delivery.event_id)
        state.deliveries.setdefault(delivery.delivery_id, _stored(delivery))

    async def routed(self, event_ids: Sequence[str]) -> None:
        state = await self._transaction.writing()
        for event_id in event_ids:
            if event_id in state.notices:
                state.notices[event_id] = replace(state.notices[event_id], routed=True)

    async def waiting(self) -> Mapping[str, int]:
        state = await self._transaction.reading()
        return Counter(one.rule_id for one in state.deliveries.values() if one.status is DeliveryStatus.PENDING)

    async def rules(self) -> Sequence[StoredRule]:
        return [stored for _, stored in sorted((await self._transaction.reading()).notification_rules.items())]

    async def rule(self, rule_id: str) -> StoredRule:
        rules.check_storable({"ruleId": rule_id})
        found = (await self._transaction.reading()).notification_rules.get(rule_id)
        if found is None:
            raise trail_rules.rule_missing(rule_id)
        return found

    async def set_rule(self, stored: StoredRule) -> bool:
        rules.storable(stored, {"updatedBy": rules.NAME})
        state = await self._transaction.writing()
        new = stored.rule.rule_id not in state.notification_rules
        state.notification_rules[stored.rule.rule_id] = _stored(stored)
        return new

    async def delete_rule(self, rule_id: str) -> None:
        await self.rule(rule_id)
        del (await self._transaction.writing()).notification_rules[rule_id]

    async def delivery(self, delivery_id: str) -> Delivery:
        rules.check_storable({"deliveryId": delivery_id})
        found = (await self._transaction.reading()).deliveries.get(delivery_id)
        if found is None:
            raise trail_rules.delivery_missing(delivery_id)
        return found

    async def deliveries(self, where: DeliveryFilter, page: Page) -> tuple[Sequence[Delivery], int]:
        rules.storable(where)
        found = [
            one
            for one in (await self._transaction.reading()).deliveries.values()
            if where.rule_id in (None, one.rule_id)
            and where.event in (None, one.kind)
            and where.status in (None, one.status)
        ]
        return _slice(sorted(found, key=lambda one: (one.created_at, one.delivery_id), reverse=True), page)

    async def note_attempt(self, delivery_id: str, status: DeliveryStatus, error: str = "") -> None:
        rules.check_storable({"deliveryId": delivery_id, "error": error})
        found = await self.delivery(delivery_id)
        if found.status is not DeliveryStatus.PENDING:
            return
        now = self._transaction.instant()
        changes = {
            "status": status,
            "attempts": found.attempts + 1,
            "last_error": error,
            "last_attempt_at": now,
            "finished_at": None if status is DeliveryStatus.PENDING else now,
        }
        (await self._transaction.writing()).deliveries[delivery_id] = found.model_copy(update=changes)

    async def give_up(self, delivery_id: str, error: str = "") -> None:
        rules.check_storable({"deliveryId": delivery_id, "error": error})
        found = await self.delivery(delivery_id)
        if found.status is DeliveryStatus.PENDING:
            changes = {
                "status": DeliveryStatus.FAILED,
                "last_error": error or found.last_error,
                "finished_at": self._transaction.instant(),
            }
            (await self._transaction.writing()).deliveries[delivery_id] = found.model_copy(update=changes)

    async def sweep(self, older: timedelta, most: int) -> int:
        state = await self._transaction.writing()
        oldest = self._transaction.instant() - older
        gone = [key for key, one in state.notices.items() if one.routed and one.announced_at < oldest][:most]
        for event_id in gone:
            del state.notices[event_id]
        state.deliveries = {key: one for key, one in state.deliveries.items() if one.event_id in state.notices}
        return len(gone)
