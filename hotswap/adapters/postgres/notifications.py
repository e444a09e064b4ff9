"""Notices, rules and the log of deliveries on PostgreSQL: hotswap.ports.notifications.NotificationStore."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters import trail_rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import notices, notification_deliveries, notification_rules
from hotswap.domain.notices import Notice
from hotswap.domain.notification_rules import Delivery, DeliveryStatus, NotificationRule, StoredRule
from hotswap.domain.registry import Page
from hotswap.ports.notifications import DeliveryFilter

_deliveries = notification_deliveries


class PostgresNotificationStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def announce(self, notice: Notice) -> None:
        data = rules.storable(notice, trail_rules.NOTICE_LIMITS)
        row = {
            "event_id": notice.event_id,
            "kind": notice.kind,
            "environment": notice.environment,
            "plugin_id": notice.plugin,
            "fields": data["fields"],
            "only_rule": notice.only_rule,
            "happened_at": notice.happened_at,
        }
        await self._session.run(insert(notices).values(row).on_conflict_do_nothing(index_elements=["event_id"]))

    async def notice(self, event_id: str) -> Notice:
        rules.check_storable({"eventId": event_id})
        row = await self._session.first(select(notices).where(notices.c.event_id == event_id))
        if row is None:
            raise trail_rules.notice_missing(event_id)
        return _notice(row)

    async def unrouted(self, limit: int) -> Sequence[Notice]:
        query = select(notices).where(notices.c.routed_at.is_(None)).order_by(notices.c.announced_at).limit(limit)
        return [_notice(row) for row in await self._session.all(query)]

    async def open(self, delivery: Delivery) -> None:
        rules.storable(delivery, trail_rules.DELIVERY_LIMITS)
        await self._session.run_guarded(
            insert(_deliveries).values(**dict(delivery)).on_conflict_do_nothing(index_elements=["delivery_id"]),
            foreign=trail_rules.notice_missing(delivery.event_id),
        )

    async def routed(self, event_ids: Sequence[str]) -> None:
        await self._session.run(
            update(notices).where(notices.c.event_id.in_(event_ids)).values(routed_at=func.clock_timestamp())
        )

    async def waiting(self) -> Mapping[str, int]:
        pending = _deliveries.c.status == DeliveryStatus.PENDING
        query = select(_deliveries.c.rule_id, func.count().label("waiting")).where(pending)
        return {row.rule_id: row.waiting for row in await self._session.all(query.group_by(_deliveries.c.rule_id))}

    async def rules(self) -> Sequence[StoredRule]:
        rows = await self._session.all(select(notification_rules).order_by(notification_rules.c.rule_id))
        return [_rule(row) for row in rows]

    async def rule(self, rule_id: str) -> StoredRule:
        rules.check_storable({"ruleId": rule_id})
        row = await self._session.first(select(notification_rules).where(notification_rules.c.rule_id == rule_id))
        if row is None:
            raise trail_rules.rule_missing(rule_id)
        return _rule(row)

    async def set_rule(self, stored: StoredRule) -> bool:
        data = rules.storable(stored, {"updatedBy": rules.NAME})
        row = insert(notification_rules).values(
            rule_id=stored.rule.rule_id, rule=data["rule"], updated_by=stored.updated_by, updated_at=stored.updated_at
        )
        changed = {name: row.excluded[name] for name in ("rule", "updated_by", "updated_at")}
        done = await self._session.run(
            row.on_conflict_do_update(index_elements=["rule_id"], set_=changed).returning(
                literal_column("(xmax = 0)").label("new")
            )
        )
        return bool(done.scalar_one())

    async def delete_rule(self, rule_id: str) -> None:
        rules.check_storable({"ruleId": rule_id})
        done = await self._session.run(delete(notification_rules).where(notification_rules.c.rule_id == rule_id))
        if not done.rowcount:
            raise trail_rules.rule_missing(rule_id)

    async def delivery(self, delivery_id: str) -> Delivery:
        rules.check_storable({"deliveryId": delivery_id})
        row = await self._session.first(select(_deliveries).where(_deliveries.c.delivery_id == delivery_id))
        if row is None:
            raise trail_rules.delivery_missing(delivery_id)
        return _delivery(row)

    async def deliveries(self, where: DeliveryFilter, page: Page) -> tuple[Sequence[Delivery], int]:
        rules.storable(where)
        query = select(_deliveries).order_by(_deliveries.c.created_at.desc(), _deliveries.c.delivery_id.desc())
        for column, value in (
            (_deliveries.c.rule_id, where.rule_id),
            (_deliveries.c.kind, where.event),
            (_deliveries.c.status, where.status),
        ):
            if value is not None:
                query = query.where(column == value)
        rows, total = await self._session.page(query, page)
        return [_delivery(row) for row in rows], total

    async def note_attempt(self, delivery_id: str, status: DeliveryStatus, error: str = "") -> None:
        rules.check_storable({"deliveryId": delivery_id, "error": error})
        now = func.clock_timestamp()
        changes: dict[str, Any] = {"status": status, "last_error": error, "last_attempt_at": now}
        if status is not DeliveryStatus.PENDING:
            changes["finished_at"] = now
        await self._change(delivery_id, {**changes, "attempts": _deliveries.c.attempts + 1})

    async def give_up(self, delivery_id: str, error: str = "") -> None:
        rules.check_storable({"deliveryId": delivery_id, "error": error})
        said = error or _deliveries.c.last_error
        changes = {"status": DeliveryStatus.FAILED, "last_error": said, "finished_at": func.clock_timestamp()}
        await self._change(delivery_id, changes)

    async def _change(self, delivery_id: str, changes: dict[str, Any]) -> None:
        pending = _deliveries.c.status == DeliveryStatus.PENDING
        statement = update(_deliveries).where(_deliveries.c.delivery_id == delivery_id, pending).values(changes)
        if not (await self._session.run(statement)).rowcount:
            await self.delivery(delivery_id)

    async def sweep(self, older: timedelta, most: int) -> int:
        oldest = func.clock_timestamp() - older
        gone = (
            select(notices.c.event_id)
            .where(notices.c.announced_at < oldest, notices.c.routed_at.is_not(None))
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        return int((await self._session.run(delete(notices).where(notices.c.event_id.in_(gone)))).rowcount)


def _notice(row: Row[Any]) -> Notice:
    return Notice(
        event_id=row.event_id,
        kind=row.kind,
        environment=row.environment,
        plugin=row.plugin_id,
        fields=row.fields,
        only_rule=row.only_rule,
        happened_at=row.happened_at,
    )


def _rule(row: Row[Any]) -> StoredRule:
    rule = NotificationRule.model_validate(row.rule)
    return StoredRule(rule=rule, updated_by=row.updated_by, updated_at=row.updated_at)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery.model_validate(dict(row._mapping))
