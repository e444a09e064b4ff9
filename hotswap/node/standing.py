"""What stands on this node, told: figures, inventory, reports of hosts. Changes nothing but what a successor inherits.

Neighbours: hotswap.node.supervisor, which is one of these, changes the lanes; the admin port, the evictor, the alarm and
whoever takes over ask.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

from hotswap.domain.analysis import HostReport, NodeFigures, told_in_history
from hotswap.domain.drift import LoadedHost, NodeInventory, PluginInventory
from hotswap.node.figures import FigureBook
from hotswap.node.hosts import SupervisedHost
from hotswap.node.routes import Lane
from hotswap.ports.node_runtime import NodeReport
from hotswap.routing.decide import state_on_node

VERSIONS_A_TURN = 5
"""Whose processes are looked at before the loop goes on: 30 us each, which reads /proc, so 30 ms with 1,000 of them at once."""


class Standing:
    """Every plugin's lane, and the book that its calls are counted in."""

    def __init__(self, node_id: str, book: FigureBook) -> None:
        self.node_id = node_id
        self._book = book
        self._lanes: dict[str, Lane] = {}

    def figures(self, plugin: str, since: datetime) -> NodeFigures:
        """What this node serves for the plugin and what it counted since an instant."""
        lane = self._lanes.get(plugin)
        return NodeFigures(
            node_id=self.node_id,
            plugin=plugin,
            generation=lane.generation if lane else 0,
            candidate_weight=state_on_node(lane.state, self.node_id).candidate_weight if lane else 0,
            since=since,
            taken_at=datetime.now(UTC),
            versions=self._book.window(plugin, since),
            hosts=self._hosts(lane) if lane else (),
        )

    def inventory(self) -> NodeInventory:
        """Everything that runs here, with the bytes it was loaded from."""
        plugins = [
            PluginInventory(
                plugin=lane.plugin,
                generation=lane.generation,
                hosts=tuple(
                    LoadedHost(version=host.ref.version, digest=host.ref.digest, state=host.state)
                    for host in (*lane.hosts.values(), *lane.draining.values())
                ),
            )
            for lane in self._lanes.values()
        ]
        return NodeInventory(node_id=self.node_id, taken_at=datetime.now(UTC), plugins=tuple(plugins))

    def hosts(self, plugin: str | None = None) -> list[HostReport]:
        """Every process, of one plugin or of all: of all only where no router waits for the loop (see `reports`)."""
        lanes = self._lanes.values() if plugin is None else filter(None, [self._lanes.get(plugin)])
        return [report for lane in lanes for report in self._hosts(lane)]

    async def reports(self) -> list[HostReport]:
        """Every process of every plugin, a few in each turn of the loop; one may have ended when its turn comes."""
        hosts = [host for lane in self._lanes.values() for host in (*lane.hosts.values(), *lane.draining.values())]
        found: list[HostReport] = []
        for start in range(0, len(hosts), VERSIONS_A_TURN):
            found += [report for host in hosts[start : start + VERSIONS_A_TURN] for report in host.reports()]
            await asyncio.sleep(0)
        return found

    def crashes(self) -> dict[tuple[str, str], int]:
        """Times that processes of a loaded version died unasked, by (plugin, version)."""
        return {
            (host.ref.plugin, host.ref.version): host.crashes
            for lane in self._lanes.values()
            for host in lane.hosts.values()
        }

    def inherit_crashes(self, plugin: str, version: str, crashes: int) -> None:
        """Count those in the process that this one replaced: a version is no better for a node's upgrade."""
        lane = self._lanes.get(plugin)
        host = lane.hosts.get(version) if lane is not None else None
        if host is not None:
            host.inherit_crashes(crashes)

    def in_rollout(self) -> set[str]:
        """Plugins with a candidate."""
        return {plugin for plugin, lane in self._lanes.items() if lane.state.candidate is not None}

    def loaded(self) -> Iterator[tuple[SupervisedHost, bool]]:
        """Every loaded version, and whether it may be evicted: not while its plugin has a candidate or an order under way."""
        for lane in self._lanes.values():
            at_rest = lane.state.candidate is None and not lane.lock.locked()
            for host in lane.hosts.values():
                yield host, at_rest

    def fences(self) -> dict[str, int]:
        """The highest generation heard of, by plugin."""
        return {plugin: lane.fence for plugin, lane in self._lanes.items()}

    def _hosts(self, lane: Lane) -> tuple[HostReport, ...]:
        hosts = (*lane.hosts.values(), *lane.draining.values())
        return tuple(report for host in hosts for report in host.reports())

    def _report(self, lane: Lane) -> NodeReport:
        hosts = told_in_history(self._hosts(lane))
        return NodeReport(node_id=self.node_id, plugin=lane.plugin, generation=lane.generation, hosts=hosts)
