"""Routes of notifications: who hears of what, and what was delivered. /api/v1/notifications, Admins only."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from api.dependencies import ContainerDep
from api.errors import DOCUMENTED
from api.schemas.common import ListOf
from api.schemas.notifications import DeliveryQuery, RuleIn, TestOut
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from hotswap.domain.notification_rules import SLUG, Delivery, StoredRule
from hotswap.domain.registry import Page

router = APIRouter(
    prefix="/api/v1/notifications",
    tags=["notifications"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
RuleId = Annotated[str, Path(alias="ruleId", pattern=SLUG)]


@router.get("/rules")
async def list_rules(query: Annotated[Page, Query()], actor: Admin, services: ContainerDep) -> ListOf[StoredRule]:
    """Rules by id. They hold names of secrets, never secrets."""
    items, total = await services.notifications.rules(query)
    return ListOf[StoredRule].of(items, total, query)


@router.get("/rules/{ruleId}")
async def get_rule(rule_id: RuleId, actor: Admin, services: ContainerDep) -> StoredRule:
    return await services.notifications.rule(rule_id)


@router.put("/rules/{ruleId}", responses={201: {"model": StoredRule}})
async def set_rule(
    rule_id: RuleId, body: RuleIn, actor: Admin, services: ContainerDep, response: Response
) -> StoredRule:
    """Make the rule, or replace it as a whole. 201 when it is new."""
    stored, new = await services.notifications.set_rule(rule_id, body, actor)
    response.status_code = 201 if new else 200
    return stored


@router.delete("/rules/{ruleId}", status_code=204)
async def delete_rule(rule_id: RuleId, actor: Admin, services: ContainerDep) -> None:
    """What it has not delivered yet is not delivered any more. A repeat changes nothing."""
    await services.notifications.delete_rule(rule_id, actor)


@router.post("/rules/{ruleId}/test", status_code=202)
async def test_rule(rule_id: RuleId, actor: Admin, services: ContainerDep) -> TestOut:
    """Send a test by this rule alone; GET /notifications/deliveries shows how it went."""
    return await services.notifications.test(rule_id, actor)


@router.get("/deliveries")
async def list_deliveries(
    query: Annotated[DeliveryQuery, Query()], actor: Admin, services: ContainerDep
) -> ListOf[Delivery]:
    """The log: status, attempts, the last error; newest first, forgotten after a month."""
    items, total = await services.notifications.deliveries(query)
    return ListOf[Delivery].of(items, total, query)
