"""Where what nodes run comes from: the nodes themselves (hotswap.adapters.node_figures), compared by activities.drift."""

from collections.abc import Sequence
from typing import Protocol

from hotswap.domain.base import Model
from hotswap.domain.drift import NodeInventory
from hotswap.domain.registry import NodeRecord


class Inventories(Model):
    """What the nodes said, and which did not answer."""

    inventories: tuple[NodeInventory, ...] = ()
    silent: tuple[str, ...] = ()


class InventorySource(Protocol):
    async def inventories(self, nodes: Sequence[NodeRecord]) -> Inventories:
        """Ask every node at once, each within 2 s. A node that fails is named in `silent`, never an error."""
        ...
