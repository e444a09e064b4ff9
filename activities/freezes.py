"""Asks whether a deployment may move forward now. The rules are hotswap.domain.freeze's; workflows.freezes holds by them."""

from temporalio import activity

from activities.errors import translated
from hotswap.domain.base import Instant, Model
from hotswap.domain.freeze import FreezeVerdict, standing
from hotswap.ports.records import UnitOfWorkFactory


class CheckFreeze(Model):
    """`at` is the workflow's clock."""

    environment: str
    plugin: str
    at: Instant


class FreezeActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory) -> None:
        self._unit_of_work = unit_of_work

    @activity.defn
    @translated
    async def check_freeze(self, order: CheckFreeze) -> FreezeVerdict:
        """What stands now. Judged at the later of both clocks: a try that waited for PostgreSQL must not judge the past."""
        async with self._unit_of_work() as uow:
            freezes = await uow.freezes.in_force(order.environment, order.plugin)
            now = await uow.now()
        return standing(freezes, order.environment, order.plugin, max(now, order.at))
