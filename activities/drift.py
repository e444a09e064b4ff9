"""Compares what nodes run with what the routes say, keeps the report, and lets a node make itself right.

Neighbours: hotswap.domain.drift compares, workflows.drift watches, api.services.drift looks on request, hotswap.node.agent
registers the repair.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from temporalio import activity

from activities.errors import translated
from activities.heartbeat import heartbeating
from hotswap.domain.base import Model
from hotswap.domain.deployment import Environment
from hotswap.domain.drift import FORGOTTEN_AFTER, MAX_ITEMS, DriftItem, DriftKind, DriftReport, differences
from hotswap.domain.registry import AuditEntry
from hotswap.ports.inventory import InventorySource
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory

WATCH = "hotswap-drift"

SETTLES_WITHIN = timedelta(seconds=30)
"""A route this new is still on its way to the nodes (they look every 5 s, follow what two looks saw, and may load)."""

TOLD = 20
"""Differences named in one audit entry."""

REPAIRED_AT_ONCE = 50
"""Nodes of one repair: a larger drift is repaired over several looks."""


class DriftOrder(Model):
    environment: Environment


class RepairTarget(Model):
    """A node, and the plugins there that are not what the routes say."""

    node_id: str
    plugins: tuple[str, ...]


class DriftLook(Model):
    """What a look means to the watch: how much, and where a repair can help. `lasting`: the look before saw it too."""

    total: int
    unexplained: int
    targets: tuple[RepairTarget, ...] = ()
    lasting: tuple[RepairTarget, ...] = ()


class ReconcileOrder(Model):
    plugins: tuple[str, ...]


class Reconciled(Model):
    """What a node did about each plugin: "" when it is as the routes say, else why it could not be."""

    node_id: str
    faults: dict[str, str]


class DriftComparison:
    """One look at an environment. Shared by the watch's activity and the facade, which both ask the nodes themselves."""

    def __init__(self, unit_of_work: UnitOfWorkFactory, inventories: InventorySource) -> None:
        self._unit_of_work = unit_of_work
        self._inventories = inventories

    async def report(self, environment: Environment) -> DriftReport:
        """Raises Unavailable (PostgreSQL). A node that does not answer is a difference, not an error."""
        async with self._unit_of_work() as uow:
            nodes = await uow.nodes.list(environment, FORGOTTEN_AFTER)
        told = await self._inventories.inventories(nodes)
        async with self._unit_of_work() as uow:
            # Routes after nodes: what changed in between shows as a young route, and is left out below.
            desired = await uow.routes.desired(environment)
            now = await uow.now()
            found = differences(desired, nodes, told.inventories, now)
            items = await self._settled(uow, environment, found, now)
        return DriftReport(
            environment=environment,
            taken_at=now,
            nodes=len(nodes),
            plugins=len(desired),
            total=len(items),
            items=tuple(items[:MAX_ITEMS]),
        )

    async def _settled(
        self, uow: UnitOfWork, environment: Environment, found: Sequence[DriftItem], now: datetime
    ) -> list[DriftItem]:
        """Without what is only on its way, and with the name of the deployment that explains a difference."""
        young: set[str] = set()
        running: dict[str, str] = {}
        for plugin in {item.plugin for item in found if item.plugin}:
            route = await uow.routes.current(environment, plugin)
            if route is not None and now - route.written_at < SETTLES_WITHIN:
                young.add(plugin)
            elif unfinished := await uow.deployments.unfinished(environment, plugin):
                running[plugin] = unfinished[0].progress.deployment_id
        return [
            item.model_copy(update={"explained_by": running.get(item.plugin, "")})
            for item in found
            if item.plugin not in young
        ]


class DriftActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory, inventories: InventorySource) -> None:
        self._unit_of_work = unit_of_work
        self._comparison = DriftComparison(unit_of_work, inventories)

    @activity.defn
    @translated
    async def look_for_drift(self, order: DriftOrder) -> DriftLook:
        """Compare, keep the report, audit what appeared and what is gone since the report before."""
        report = await self._comparison.report(order.environment)
        async with self._unit_of_work() as uow:
            before = await uow.drift.last(order.environment)
            known = {item.key: item for item in before.unexplained} if before else {}
            now_there = {item.key: item for item in report.unexplained}
            appeared = [item for key, item in now_there.items() if key not in known]
            gone = [item for key, item in known.items() if key not in now_there]
            for event, items in (("drift.appeared", appeared), ("drift.gone", gone)):
                if items:
                    await uow.audit.append(_entry(event, report, items))
            await uow.drift.save(report)
            await uow.commit()
        lasting = [item for key, item in now_there.items() if key in known]
        return DriftLook(
            total=report.total,
            unexplained=len(report.unexplained),
            targets=_targets(report.unexplained),
            lasting=_targets(lasting),
        )


class NodeRepairActivities:
    """Registered by a node, on its own queue."""

    def __init__(self, node_id: str, repair: Callable[[Sequence[str]], Awaitable[dict[str, str]]]) -> None:
        self._node_id = node_id
        self._repair = repair

    @activity.defn(name="reconcile_node")
    @translated
    async def reconcile_node(self, order: ReconcileOrder) -> Reconciled:
        """Make these plugins here what PostgreSQL says, now: load, switch, drain and unload."""
        async with heartbeating():
            return Reconciled(node_id=self._node_id, faults=await self._repair(order.plugins))


def _targets(items: Sequence[DriftItem]) -> tuple[RepairTarget, ...]:
    plugins: dict[str, set[str]] = {}
    for item in items:
        if item.kind is not DriftKind.STALE_NODE:  # a node that does not answer takes no order either
            plugins.setdefault(item.node_id, set()).add(item.plugin)
    chosen = sorted(plugins)[:REPAIRED_AT_ONCE]
    return tuple(RepairTarget(node_id=node_id, plugins=tuple(sorted(plugins[node_id]))) for node_id in chosen)


def _entry(event: str, report: DriftReport, items: Sequence[DriftItem]) -> AuditEntry:
    return AuditEntry(
        event_type=event,
        entity_type="environment",
        entity_id=report.environment,
        user=WATCH,
        details={"count": len(items), "items": [item.text for item in items[:TOLD]]},
        at=report.taken_at,
    )
