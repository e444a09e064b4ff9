"""Rules of notifications for Admins: set, delete, test; and the log of deliveries. Each change is audited.

Nothing is sent from here: a test is announced like everything else, and a worker delivers it (workflows.notify_dispatch).
"""

from collections.abc import Sequence

from pydantic import ValidationError

from api.schemas.notifications import DeliveryQuery, RuleIn, TestOut
from api.services.actor import Actor
from api.services.plugins import entry
from hotswap.config_trail import NotificationSettings
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput, NotFound
from hotswap.domain.ids import new_id
from hotswap.domain.notices import NoticeKind, notice
from hotswap.domain.notification_rules import Delivery, NotificationRule, StoredRule, delivery_id
from hotswap.domain.registry import Page
from hotswap.ports.notifications import DeliveryFilter
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory

MOST_RULES = 200
"""Each notice is held against all of them."""


class NotificationService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, settings: NotificationSettings) -> None:
        self._unit_of_work = unit_of_work
        self._settings = settings

    async def rules(self, page: Page) -> tuple[Sequence[StoredRule], int]:
        """By id."""
        async with self._unit_of_work() as uow:
            found = await uow.notifications.rules()
        return found[page.offset : page.offset + page.limit], len(found)

    async def rule(self, rule_id: str) -> StoredRule:
        """Raises NotFound."""
        async with self._unit_of_work() as uow:
            return await uow.notifications.rule(rule_id)

    async def set_rule(self, rule_id: str, wanted: RuleIn, actor: Actor) -> tuple[StoredRule, bool]:
        """The rule as it is now, and whether it is new. Raises InvalidInput: a target that the settings do not allow."""
        rule = _rule(rule_id, wanted)
        if fault := self._settings.fault_of(rule.target):
            raise InvalidInput(f"{fault.field} {fault.message}", [fault])
        async with self._unit_of_work() as uow:
            known = {stored.rule.rule_id: stored.rule for stored in await uow.notifications.rules()}
            if rule_id not in known and len(known) >= MOST_RULES:
                raise Conflict(f"there are {MOST_RULES} rules already; delete one, or widen one")
            stored = StoredRule(rule=rule, updated_by=actor.user, updated_at=await uow.now())
            new = await uow.notifications.set_rule(stored)
            await self._audit(uow, "notification-rule.set", rule_id, actor, known.get(rule_id), rule)
            await uow.commit()
        return stored, new

    async def delete_rule(self, rule_id: str, actor: Actor) -> None:
        """A repeat changes nothing."""
        async with self._unit_of_work() as uow:
            try:
                before = (await uow.notifications.rule(rule_id)).rule
            except NotFound:
                return
            await uow.notifications.delete_rule(rule_id)
            await self._audit(uow, "notification-rule.deleted", rule_id, actor, before, None)
            await uow.commit()

    async def test(self, rule_id: str, actor: Actor) -> TestOut:
        """Announce a test to this rule alone, also when it is disabled. Raises NotFound."""
        async with self._unit_of_work() as uow:
            await uow.notifications.rule(rule_id)
            now = await uow.now()
            announced = notice(NoticeKind.TEST, new_id("try"), now, {"by": actor.user}, only_rule=rule_id)
            await uow.notifications.announce(announced)
            await uow.audit.append(entry("notification-rule.tested", "notification-rule", rule_id, actor, now))
            await uow.commit()
        return TestOut(delivery_id=delivery_id(announced.event_id, rule_id), event_id=announced.event_id)

    async def deliveries(self, query: DeliveryQuery) -> tuple[Sequence[Delivery], int]:
        """Newest first."""
        where = DeliveryFilter(rule_id=query.rule_id, event=query.event, status=query.status)
        async with self._unit_of_work() as uow:
            return await uow.notifications.deliveries(where, query)

    async def _audit(
        self,
        uow: UnitOfWork,
        event: str,
        rule_id: str,
        actor: Actor,
        before: NotificationRule | None,
        after: NotificationRule | None,
    ) -> None:
        details = {
            "before": before.model_dump(mode="json") if before else None,
            "after": after.model_dump(mode="json") if after else None,
        }
        await uow.audit.append(entry(event, "notification-rule", rule_id, actor, await uow.now(), details))


def _rule(rule_id: str, wanted: RuleIn) -> NotificationRule:
    """Raises InvalidInput naming each field that the rule refuses (templates)."""
    try:
        return wanted.rule(rule_id)
    except ValidationError as fault:
        faults = [
            FieldFault(".".join(str(part) for part in one["loc"]), one["msg"].removeprefix("Value error, "))
            for one in fault.errors(include_url=False, include_input=False)
        ]
        raise InvalidInput(f"{faults[0].field}: {faults[0].message}", faults) from None
