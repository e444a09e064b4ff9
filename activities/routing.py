"""Writes the versioned route table and says which nodes must follow it. Nodes apply it by activities.nodes."""

from datetime import timedelta

from pydantic import Field
from temporalio import activity

from activities.dependencies import admit, release_of
from activities.errors import translated
from hotswap.domain.base import Model
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import StaleGeneration
from hotswap.domain.registry import NodeRecord
from hotswap.domain.routes import RouteState
from hotswap.ports.records import UnitOfWorkFactory

RESTORE_ATTEMPTS = 5
"""A cancelled write of the same run may still land between our read and our write; each can do so once."""


class WriteRoutes(Model):
    """Fenced by the generation that the run saw last. `name_nodes_seen_within`: also answer who must follow the write."""

    environment: str
    plugin: str
    deployment_id: str
    expected_generation: int
    state: RouteState
    name_nodes_seen_within: timedelta | None = None
    # Left out when it is empty: a worker of the release before reads it.
    admit: str = Field(
        default="",
        exclude_if=lambda version: not version,
        description="a version that gets its first tenant by this write: its dependencies are looked at once more",
    )


class RouteWritten(Model):
    """`nodes`: None unless they were asked for."""

    generation: int
    nodes: tuple[NodeRecord, ...] | None = None


class LiveNodes(Model):
    """Nodes of an environment that told of themselves within `seen_within`."""

    environment: str
    seen_within: timedelta


class NodeList(Model):
    nodes: tuple[NodeRecord, ...]


class RoutingActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory) -> None:
        self._unit_of_work = unit_of_work

    @activity.defn
    @translated
    async def write_routes(self, order: WriteRoutes) -> RouteWritten:
        """Compare and set. A repeat finds its own row; another writer's row raises StaleGeneration (never retried).

        Raises DependencyConflict when what the version needs changed since it was planned: nothing is written then.
        """
        async with self._unit_of_work() as uow:
            if order.admit:
                version = await uow.versions.get(order.plugin, order.admit)
                await admit(uow, release_of(version), Environment(order.environment))
            record = await uow.routes.write(
                order.environment, order.plugin, order.expected_generation, order.state, order.deployment_id
            )
            await uow.commit()
        return await self._written(order, record.generation)

    @activity.defn
    @translated
    async def restore_routes(self, order: WriteRoutes) -> RouteWritten:
        """Put `state` on top of whatever this run wrote, also what a cancelled write of it may have written unseen.

        `expected_generation` is the one before the run or the last it knows. Raises StaleGeneration when another
        deployment has written since: its routes are not ours to undo.
        """
        for _ in range(RESTORE_ATTEMPTS):
            try:
                return await self._restore(order)
            except StaleGeneration as stale:
                last = stale
        raise last

    async def _restore(self, order: WriteRoutes) -> RouteWritten:
        async with self._unit_of_work() as uow:
            current = await uow.routes.current(order.environment, order.plugin)
            generation = current.generation if current else 0
            ours = current is None or current.deployment_id == order.deployment_id
            if current is not None and ours and current.state == order.state:
                return await self._written(order, generation)
            if not ours and generation != order.expected_generation:
                raise StaleGeneration(
                    f"routes of {order.plugin} in {order.environment} are at generation {generation}, "
                    f"written by {current.deployment_id if current else 'nobody'}"
                )
            record = await uow.routes.write(
                order.environment, order.plugin, generation, order.state, order.deployment_id
            )
            await uow.commit()
        return await self._written(order, record.generation)

    async def _written(self, order: WriteRoutes, generation: int) -> RouteWritten:
        """Who must follow is read after the commit: a node that is not seen yet will read these routes when it restores."""
        within = order.name_nodes_seen_within
        nodes = None if within is None else await self._nodes(order.environment, within)
        return RouteWritten(generation=generation, nodes=nodes)

    @activity.defn
    @translated
    async def list_live_nodes(self, order: LiveNodes) -> NodeList:
        return NodeList(nodes=await self._nodes(order.environment, order.seen_within))

    async def _nodes(self, environment: str, seen_within: timedelta) -> tuple[NodeRecord, ...]:
        async with self._unit_of_work() as uow:
            return tuple(await uow.nodes.list(environment, seen_within))
