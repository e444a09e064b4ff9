"""What nodes run, compared with what the routes say: the differences, each with what was expected and what was found. Pure.

Neighbours: hotswap.ports.inventory brings what nodes run, activities.drift compares and keeps, workflows.drift watches.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from hotswap.domain.base import BoundedText, Instant, Model
from hotswap.domain.deployment import Environment
from hotswap.domain.registry import NodeRecord
from hotswap.domain.routes import ArtifactRef, DesiredRoute

STALE_AFTER = timedelta(seconds=15)
"""A node beats every second; one that told nothing for this long is away without having left."""

FORGOTTEN_AFTER = timedelta(hours=24)
"""A node away for longer is no longer counted as one of the environment."""

MAX_ITEMS = 200
"""Differences listed in one report; the rest is counted. A report fits a row and an answer whatever happened."""

GOING = frozenset({"Draining", "Stopped"})


class DriftKind(StrEnum):
    MISSING_HOST = "missing-host"
    EXTRA_HOST = "extra-host"
    WRONG_GENERATION = "wrong-generation"
    WRONG_DIGEST = "wrong-digest"
    STALE_NODE = "stale-node"


class LoadedHost(Model):
    """One host that a node has: a version with the bytes it was loaded from."""

    version: str
    digest: str
    state: str


class PluginInventory(Model):
    plugin: str
    generation: int = Field(description="of the route in force there; 0 = none")
    hosts: tuple[LoadedHost, ...] = ()


class NodeInventory(Model):
    """Everything a node runs, as it says itself."""

    node_id: str
    taken_at: Instant
    plugins: tuple[PluginInventory, ...] = ()


class DriftItem(Model):
    """One difference. `explained_by` names a running deployment that is about to change just this."""

    kind: DriftKind
    node_id: str
    plugin: str = ""
    version: str = ""
    expected: BoundedText
    found: BoundedText
    explained_by: str = ""

    @property
    def key(self) -> str:
        """What makes it the same difference in the next report."""
        return "/".join((self.kind, self.node_id, self.plugin, self.version))

    @property
    def text(self) -> str:
        what = " ".join(part for part in (self.plugin, self.version) if part)
        return (
            f"{self.node_id}: {self.kind}{f' of {what}' if what else ''}: expected {self.expected}, found {self.found}"
        )


class DriftReport(Model):
    """One comparison of a whole environment. `total` counts all differences, `items` lists at most MAX_ITEMS."""

    environment: Environment
    taken_at: Instant
    nodes: int = Field(description="nodes that were asked")
    plugins: int = Field(description="plugins that the routes name")
    total: int = 0
    items: tuple[DriftItem, ...] = ()

    @property
    def unexplained(self) -> tuple[DriftItem, ...]:
        return tuple(item for item in self.items if not item.explained_by)


def differences(
    desired: Sequence[DesiredRoute],
    nodes: Sequence[NodeRecord],
    inventories: Sequence[NodeInventory],
    now: datetime,
) -> list[DriftItem]:
    """Every difference, by node and plugin.

    Nodes away for over FORGOTTEN_AFTER are left out; one that is away for less, or beats and does not answer, is stale
    and not compared further.
    """
    running = {inventory.node_id: inventory for inventory in inventories}
    wanted = {route.order.plugin: route for route in desired}
    items: list[DriftItem] = []
    for node in nodes:
        silence = now - node.last_seen_at
        if silence > FORGOTTEN_AFTER:
            continue
        if silence > STALE_AFTER:
            items.append(_stale(node.node_id, f"nothing since {node.last_seen_at:%Y-%m-%d %H:%M:%S} UTC"))
        elif node.node_id not in running:
            items.append(_stale(node.node_id, "no answer on its admin port"))
        else:
            items += _on_node(node.node_id, wanted, running[node.node_id])
    return items


def _stale(node_id: str, found: str) -> DriftItem:
    return DriftItem(kind=DriftKind.STALE_NODE, node_id=node_id, expected="a node that answers", found=found)


def _on_node(node_id: str, wanted: Mapping[str, DesiredRoute], inventory: NodeInventory) -> list[DriftItem]:
    there = {part.plugin: part for part in inventory.plugins}
    items: list[DriftItem] = []
    for plugin in sorted(wanted.keys() | there.keys()):
        items += _of_plugin(node_id, plugin, wanted.get(plugin), there.get(plugin))
    return items


def _of_plugin(node_id: str, plugin: str, route: DesiredRoute | None, part: PluginInventory | None) -> list[DriftItem]:
    refs: dict[str, ArtifactRef] = {}
    if route is not None:
        refs = {ref.version: ref for ref in (*route.pins.values(), *route.order.state.versions())}
    hosts = [host for host in part.hosts if host.state not in GOING] if part else []
    loaded = {host.version: host for host in hosts}

    def item(kind: DriftKind, version: str, expected: str, found: str) -> DriftItem:
        return DriftItem(kind=kind, node_id=node_id, plugin=plugin, version=version, expected=expected, found=found)

    items: list[DriftItem] = []
    generation = part.generation if part else 0
    if route is not None and generation != route.order.generation:
        expected = f"generation {route.order.generation}"
        items.append(item(DriftKind.WRONG_GENERATION, "", expected, f"generation {generation}"))
    for version, ref in refs.items():
        host = loaded.get(version)
        if host is None:
            items.append(item(DriftKind.MISSING_HOST, version, "a host", "none"))
        elif host.digest != ref.digest:
            found = f"digest {host.digest[:12]}"
            items.append(item(DriftKind.WRONG_DIGEST, version, f"digest {ref.digest[:12]}", found))
    for version in sorted(loaded.keys() - refs.keys()):
        items.append(item(DriftKind.EXTRA_HOST, version, "no host", f"one that is {loaded[version].state}"))
    return items
