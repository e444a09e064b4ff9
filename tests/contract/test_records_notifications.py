"""One contract for notices, rules and the log of deliveries: PostgreSQL and its in-memory twin."""

from datetime import timedelta
from typing import Any

import pytest

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import InvalidInput, NotFound
from hotswap.domain.notices import Notice, NoticeKind
from hotswap.domain.notification_rules import (
    Delivery,
    DeliveryStatus,
    EmailTarget,
    NotificationRule,
    SlackTarget,
    StoredRule,
)
from hotswap.domain.registry import Page
from hotswap.ports.notifications import DeliveryFilter
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import EPOCH, unique

PENDING, DELIVERED, FAILED = DeliveryStatus.PENDING, DeliveryStatus.DELIVERED, DeliveryStatus.FAILED


def make_notice(**changes: Any) -> Notice:
    given = {
        "event_id": unique("ntc"),
        "kind": NoticeKind.DEPLOYMENT_FAILED,
        "environment": Environment.QA,
        "plugin": "greeter",
        "fields": {"reason": 'it\'s "100%" \\ grün 🚀'},
        "happened_at": EPOCH,
    } | changes
    return Notice(**given)


def make_delivery(event_id: str, **changes: Any) -> Delivery:
    given = {
        "delivery_id": unique("ndl"),
        "rule_id": "oncall",
        "kind": NoticeKind.DEPLOYMENT_FAILED,
        "channel": "email",
        "target": "oncall@example.com",
        "created_at": EPOCH,
    } | changes
    return Delivery(event_id=event_id, **given)


def make_rule(rule_id: str, **changes: Any) -> StoredRule:
    given = {"target": EmailTarget(to=("oncall@example.com",))} | changes
    return StoredRule(rule=NotificationRule(rule_id=rule_id, **given), updated_by="admin", updated_at=EPOCH)


async def test_a_notice_is_kept_once_until_it_is_routed(unit_of_work: UnitOfWorkFactory) -> None:
    first, second = make_notice(), make_notice(environment=None, plugin=None, only_rule="oncall", fields={})
    async with unit_of_work() as uow:
        await uow.notifications.announce(first)
        await uow.notifications.announce(first.model_copy(update={"plugin": "other"}))
        await uow.commit()
    async with unit_of_work() as uow:
        await uow.notifications.announce(second)
        await uow.commit()
    async with unit_of_work() as uow:
        assert list(await uow.notifications.unrouted(10)) == [first, second]
        assert list(await uow.notifications.unrouted(1)) == [first]
        await uow.notifications.routed([first.event_id])
        await uow.commit()
    async with unit_of_work() as uow:
        assert list(await uow.notifications.unrouted(10)) == [second]
        assert await uow.notifications.notice(first.event_id) == first
        with pytest.raises(NotFound):
            await uow.notifications.notice("ntc_ghost")


async def test_a_notice_that_was_not_committed_is_not_told(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.notifications.announce(make_notice())
    async with unit_of_work() as uow:
        assert list(await uow.notifications.unrouted(10)) == []


async def test_rules_are_set_replaced_and_deleted(unit_of_work: UnitOfWorkFactory) -> None:
    rule = make_rule("b", events=(NoticeKind.TEST,), environments=(Environment.QA,), subject="{plugin}", enabled=False)
    async with unit_of_work() as uow:
        assert await uow.notifications.set_rule(make_rule("b"))
        assert await uow.notifications.set_rule(make_rule("a", target=SlackTarget(channel="releases")))
        assert not await uow.notifications.set_rule(rule)
        await uow.commit()
    async with unit_of_work() as uow:
        assert [stored.rule.rule_id for stored in await uow.notifications.rules()] == ["a", "b"]
        assert await uow.notifications.rule("b") == rule
        await uow.notifications.delete_rule("b")
        for gone in (uow.notifications.rule("b"), uow.notifications.delete_rule("b")):
            with pytest.raises(NotFound):
                await gone


async def test_a_delivery_counts_its_attempts_and_ends_once(unit_of_work: UnitOfWorkFactory) -> None:
    notice = make_notice()
    delivery = make_delivery(notice.event_id)
    async with unit_of_work() as uow:
        await uow.notifications.announce(notice)
        await uow.notifications.open(delivery)
        await uow.notifications.open(delivery.model_copy(update={"target": "other"}))
        assert await uow.notifications.delivery(delivery.delivery_id) == delivery
        await uow.notifications.note_attempt(delivery.delivery_id, PENDING, "answered 500")
        tried = await uow.notifications.delivery(delivery.delivery_id)
        assert (tried.status, tried.attempts, tried.last_error) == (PENDING, 1, "answered 500")
        assert (tried.last_attempt_at is not None, tried.finished_at) == (True, None)
        assert await uow.notifications.waiting() == {"oncall": 1}
        await uow.notifications.note_attempt(delivery.delivery_id, DELIVERED)
        done = await uow.notifications.delivery(delivery.delivery_id)
        assert (done.status, done.attempts, done.last_error) == (DELIVERED, 2, "")
        assert done.finished_at is not None
        await uow.notifications.note_attempt(delivery.delivery_id, FAILED, "too late")
        await uow.notifications.give_up(delivery.delivery_id, "too late")
        assert await uow.notifications.delivery(delivery.delivery_id) == done
        assert await uow.notifications.waiting() == {}
        with pytest.raises(NotFound):
            await uow.notifications.open(make_delivery("ntc_ghost"))
        for missing in (
            uow.notifications.note_attempt("ghost", FAILED),
            uow.notifications.give_up("ghost"),
            uow.notifications.delivery("ghost"),
        ):
            with pytest.raises(NotFound):
                await missing


async def test_what_is_given_up_keeps_its_last_error(unit_of_work: UnitOfWorkFactory) -> None:
    notice = make_notice()
    one, other = make_delivery(notice.event_id), make_delivery(notice.event_id)
    async with unit_of_work() as uow:
        await uow.notifications.announce(notice)
        for delivery in (one, other):
            await uow.notifications.open(delivery)
            await uow.notifications.note_attempt(delivery.delivery_id, PENDING, "answered 503")
        await uow.notifications.give_up(one.delivery_id)
        await uow.notifications.give_up(other.delivery_id, "the rule is gone")
        found = [await uow.notifications.delivery(each.delivery_id) for each in (one, other)]
    assert [(each.status, each.attempts, each.last_error) for each in found] == [
        (FAILED, 1, "answered 503"),
        (FAILED, 1, "the rule is gone"),
    ]


async def test_the_log_is_newest_first_and_filtered(unit_of_work: UnitOfWorkFactory) -> None:
    notice = make_notice()
    changes: list[dict[str, Any]] = [
        {},
        {"rule_id": "other"},
        {"kind": NoticeKind.TEST, "status": FAILED, "finished_at": EPOCH},
    ]
    made = [
        make_delivery(notice.event_id, created_at=EPOCH + timedelta(seconds=number), **more)
        for number, more in enumerate(changes)
    ]
    async with unit_of_work() as uow:
        await uow.notifications.announce(notice)
        for delivery in made:
            await uow.notifications.open(delivery)

        async def listed(page: Page | None = None, **where: Any) -> tuple[list[Delivery], int]:
            found, total = await uow.notifications.deliveries(DeliveryFilter(**where), page or Page())
            return list(found), total

        assert await listed() == (made[::-1], 3)
        assert await listed(Page(limit=1, offset=1)) == ([made[1]], 3)
        assert await listed(rule_id="other") == ([made[1]], 1)
        assert await listed(event=NoticeKind.TEST) == await listed(status=FAILED) == ([made[2]], 1)


async def test_old_notices_are_forgotten_with_their_deliveries_but_never_untold(
    unit_of_work: UnitOfWorkFactory,
) -> None:
    told, untold = make_notice(), make_notice()
    delivery = make_delivery(told.event_id)
    async with unit_of_work() as uow:
        await uow.notifications.announce(told)
        await uow.notifications.announce(untold)
        await uow.notifications.open(delivery)
        await uow.notifications.routed([told.event_id])
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.notifications.sweep(timedelta(days=1), 10) == 0
        assert await uow.notifications.sweep(timedelta(0), 10) == 1
        assert list(await uow.notifications.unrouted(10)) == [untold]
        with pytest.raises(NotFound):
            await uow.notifications.delivery(delivery.delivery_id)


async def test_what_cannot_be_stored_is_named(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        for field, attempt in (
            ("fields.reason", uow.notifications.announce(make_notice(fields={"reason": "a\0"}))),
            ("target", uow.notifications.open(make_delivery("x", target="a\0"))),
            ("error", uow.notifications.note_attempt("x", FAILED, "a\0")),
        ):
            with pytest.raises(InvalidInput) as caught:
                await attempt
            assert [fault.field for fault in caught.value.faults] == [field]
