"""What a facade decides about the time after a rollout: who may come again, how far back one may go, what drifted.

Neighbours: hotswap.domain.holds has the words, activities.drift compares, api.services.drift_desk asks the drift watch.
"""

from typing import Protocol

from activities.drift import DriftComparison
from api.schemas.aftercare import RepairIn
from api.schemas.deployments import DeploymentIn
from api.services.actor import Actor
from api.services.plugins import entry
from hotswap.domain.base import bounded
from hotswap.domain.deployment import DeploymentProgress, Environment
from hotswap.domain.drift import DriftReport
from hotswap.domain.errors import Unavailable
from hotswap.domain.holds import refusal_of
from hotswap.domain.routes import RouteRecord
from hotswap.ports.inventory import InventorySource
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from workflows.drift import DriftRepaired, RepairCommand


async def refuse_held(uow: UnitOfWork, wanted: DeploymentIn) -> None:
    """Raises Conflict for a version that its monitor took back, unless somebody says why it may come again.

    The hold itself is lifted, and audited, when the deployment is planned (activities.planning).
    """
    held = await uow.held.find(wanted.environment, wanted.plugin_id, wanted.version)
    if held is not None and not wanted.override_hold.strip():
        raise refusal_of(held)


def still_warm(route: RouteRecord | None, undone: DeploymentProgress) -> bool:
    """Inside the rollback window of what serves now: the version before `undone` is loaded on every node."""
    return route is not None and undone.from_version in {ref.version for ref in route.state.warm}


class DriftDesk(Protocol):
    """The drift watch of an environment, wherever it runs."""

    async def repair(self, environment: Environment, command: RepairCommand) -> DriftRepaired:
        """Look, let every node that differs make itself right, look again. Raises Unavailable when nobody answers."""
        ...


class DriftService:
    def __init__(
        self, unit_of_work: UnitOfWorkFactory, inventories: InventorySource | None, desk: DriftDesk | None
    ) -> None:
        """Without `inventories` (no admin token of the nodes) the last report of the watch is all there is."""
        self._unit_of_work = unit_of_work
        self._comparison = DriftComparison(unit_of_work, inventories) if inventories else None
        self._desk = desk

    async def now(self, environment: Environment) -> DriftReport:
        """Ask the nodes and compare. Raises Unavailable without the nodes' admin token and without a report."""
        if self._comparison is not None:
            return await self._comparison.report(environment)
        async with self._unit_of_work() as uow:
            last = await uow.drift.last(environment)
        if last is None:
            raise Unavailable(
                f"{environment} was never compared and this api cannot ask the nodes: set HOTSWAP_NODE__ADMIN_TOKEN, "
                "or wait for the drift watch of the worker"
            )
        return last

    async def repair(self, environment: Environment, body: RepairIn, actor: Actor) -> DriftRepaired:
        """Raises Forbidden, Unavailable."""
        actor.require_deployer(environment)
        if self._desk is None:
            raise Unavailable("this api reaches no drift watch")
        done = await self._desk.repair(environment, RepairCommand(by=actor.user, reason=bounded(body.reason)))
        async with self._unit_of_work() as uow:
            details = {
                "reason": bounded(body.reason),
                "found": done.found,
                "left": done.left,
                "nodes": list(done.nodes),
            }
            await uow.audit.append(entry("drift.repaired", "environment", environment, actor, await uow.now(), details))
            await uow.commit()
        return done
