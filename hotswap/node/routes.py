"""The hosts table: for each plugin which route is in force and which processes there are. Data and its invariants only.

Neighbours: hotswap.node.supervisor changes it, hotswap.node.router reads `Route`, one immutable object a plugin, so that
a switch is the replacement of one reference.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from hotswap.domain.errors import StaleGeneration
from hotswap.domain.routes import FULL_WEIGHT, ArtifactRef, RouteOrder, RouteState
from hotswap.node.hosts import SupervisedHost
from hotswap.node.serving import ServedVersion
from hotswap.routing.decide import state_on_node


@dataclass(frozen=True, slots=True)
class Route:
    """What the router needs for one plugin. `hosts` has every version that the state or a pin names."""

    plugin: str
    generation: int
    state: RouteState
    pins: Mapping[str, ArtifactRef]
    hosts: Mapping[str, ServedVersion]

    def answering(self) -> set[str]:
        """The versions that a request may be decided for; the others are only kept warm."""
        state = self.state
        versions = {ref.version for ref in self.pins.values()}
        if state.candidate is not None and state.candidate_weight > 0:
            versions.add(state.candidate.version)
        if state.stable is not None and (state.candidate is None or state.candidate_weight < FULL_WEIGHT):
            versions.add(state.stable.version)
        return versions


@dataclass(slots=True)
class Lane:
    """One plugin on this node. Changed only under `lock`, but for `fence`, which rises as soon as an order is heard."""

    plugin: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    fence: int = 0
    """Highest generation heard of. Lower orders are refused, also while the newer one is still loading."""
    generation: int = 0
    """Generation in force; 0 = none."""
    state: RouteState = field(default_factory=RouteState)
    pins: dict[str, ArtifactRef] = field(default_factory=dict)
    hosts: dict[str, SupervisedHost] = field(default_factory=dict)
    """Loaded versions, those included that the route no longer names (until `retire`)."""
    draining: dict[asyncio.Task[None], SupervisedHost] = field(default_factory=dict)
    loading: asyncio.Task[None] | None = None

    def admit(self, order: RouteOrder) -> None:
        """Raise the fence to the order's generation. Raises StaleGeneration when it is already higher."""
        self.check(order)
        if order.generation > self.fence:
            self.fence = order.generation
            if self.loading is not None:
                self.loading.cancel()  # an older order must not delay a newer one: it may be a rollback

    def check(self, order: RouteOrder) -> None:
        """Raises StaleGeneration (never retried) when a newer order was heard, or this one differs from the one applied."""
        if order.generation < self.fence:
            raise StaleGeneration(
                f"generation {order.generation} of {self.plugin} came after generation {self.fence} and is ignored"
            )
        if order.generation == self.generation and order.state != self.state:
            raise StaleGeneration(
                f"generation {order.generation} of {self.plugin} is in force here with another state; "
                "every change of the routes needs a new generation"
            )

    def needed(self) -> tuple[ArtifactRef, ...]:
        """Every version that the state or a pin names, each once."""
        named = [*self.pins.values(), *self.state.versions()]
        return tuple({ref.version: ref for ref in named}.values())

    def route(self, node_id: str) -> Route | None:
        """The route as the router of this node should see it; None when nothing is routed."""
        refs = self.needed()
        if not refs:
            return None
        hosts = {ref.version: self.hosts[ref.version] for ref in refs}  # all loaded: the router relies on it
        return Route(self.plugin, self.generation, state_on_node(self.state, node_id), dict(self.pins), hosts)

    @property
    def idle(self) -> bool:
        """Nothing runs here and nothing is about to."""
        return not (self.hosts or self.draining or self.lock.locked())
