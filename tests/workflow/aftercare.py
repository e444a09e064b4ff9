"""What the World adds for the time after a rollout: monitor and drift activities, and nodes that tell what they run."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from activities.drift import DriftActivities, NodeRepairActivities
from activities.monitor import MonitorActivities
from hotswap.domain.drift import LoadedHost, NodeInventory, PluginInventory
from hotswap.domain.health import FaultSeen
from hotswap.domain.holds import HeldVersion
from hotswap.domain.ids import monitor_workflow_id
from hotswap.domain.registry import NodeRecord
from hotswap.ports.inventory import Inventories
from workflows.monitor import MonitorState

if TYPE_CHECKING:
    from temporalio.client import WorkflowHandle

    from tests.workflow.world import ScriptedNode, World


class ScriptedInventories:
    """What the World's nodes say they run: all their loaded versions, with the registry's digests."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def inventories(self, nodes: Sequence[NodeRecord]) -> Inventories:
        there = {node.node_id: node for node in self._world.nodes}
        told = [await self._inventory(there[node.node_id]) for node in nodes if node.node_id in there]
        silent = tuple(node.node_id for node in nodes if node.node_id not in there)
        return Inventories(inventories=tuple(told), silent=silent)

    async def _inventory(self, node: "ScriptedNode") -> NodeInventory:
        name = self._world.name
        async with self._world.records.unit_of_work() as uow:
            digests = {version: (await uow.versions.get(name, version)).digest for version in sorted(node.loaded)}
        hosts = tuple(LoadedHost(version=version, digest=digest, state="Ready") for version, digest in digests.items())
        generation = node.route.generation if node.route else 0
        plugins = (PluginInventory(plugin=name, generation=generation, hosts=hosts),) if hosts else ()
        return NodeInventory(node_id=node.node_id, taken_at=datetime.now(UTC), plugins=plugins)


def control_activities(world: "World") -> list[Callable[..., Any]]:
    uow = world.records.unit_of_work
    monitor = MonitorActivities(uow, world.figures)
    return [
        monitor.start_monitor,
        monitor.look_at_version,
        monitor.prepare_rollback,
        monitor.record_rollback,
        monitor.close_window,
        DriftActivities(uow, ScriptedInventories(world)).look_for_drift,
    ]


def node_activities(world: "World", node: "ScriptedNode") -> list[Callable[..., Any]]:
    async def repair(plugins: Sequence[str]) -> dict[str, str]:
        async with world.records.unit_of_work() as uow:
            desired = {route.order.plugin: route.order for route in await uow.routes.desired("Development")}
        for plugin in plugins:
            if order := desired.get(plugin):
                node.route, node.loaded = order, {ref.version for ref in order.state.versions()}
        node.repairs += 1
        return dict.fromkeys(plugins, "")

    return [NodeRepairActivities(node.node_id, repair).reconcile_node]


def monitor_of(world: "World", environment: str = "Development") -> "WorkflowHandle[Any, str]":
    return world.client.get_workflow_handle(monitor_workflow_id(environment, world.name), result_type=str)


async def monitor_state(world: "World") -> MonitorState:
    state: MonitorState = await monitor_of(world).query("status", result_type=MonitorState)
    return state


async def tell(world: "World", version: str = "2.0.0") -> None:
    """A node tells the monitor of a fault that lasts."""
    await monitor_of(world).signal("fault", FaultSeen(node_id="node-1", version=version))


async def held(world: "World", version: str = "2.0.0") -> HeldVersion | None:
    async with world.records.unit_of_work() as uow:
        return await uow.held.find("Development", world.name, version)
