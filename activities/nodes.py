"""What a workflow can order one node to do, on that node's own task queue. Absolute, idempotent, fenced by generation.

Neighbours: hotswap.node.agent registers these, hotswap.ports.node_runtime carries them out, the workflows' step runner
orders them. All heartbeat: a hung node is noticed within the heartbeat timeout, a cancel is obeyed in the middle.
"""

from datetime import timedelta

from temporalio import activity

from activities.errors import translated
from activities.heartbeat import heartbeating
from hotswap.domain.base import Model
from hotswap.domain.routes import RouteOrder
from hotswap.ports.node_runtime import NodeReport, NodeRuntime, ProbeReport, SmokeReport


class ProbeInput(Model):
    plugin: str
    version: str


class SmokeInput(Model):
    """`timeout`: for all smoke tests on the node together."""

    plugin: str
    version: str
    timeout: timedelta


class RetireInput(Model):
    """`grace`: how long requests in flight may take before the unloaded versions end anyway."""

    order: RouteOrder
    grace: timedelta


class NodeActivities:
    def __init__(self, runtime: NodeRuntime) -> None:
        self._runtime = runtime

    @activity.defn(name="stage_version")
    @translated
    async def stage_version(self, order: RouteOrder) -> NodeReport:
        """Load all versions of the order and apply it. A failure leaves what was serving untouched."""
        async with heartbeating():
            return await self._runtime.stage(order)

    @activity.defn(name="apply_routes")
    @translated
    async def apply_routes(self, order: RouteOrder) -> NodeReport:
        """Switch. The result is the node's acknowledgement that the generation is in force there."""
        async with heartbeating():
            return await self._runtime.apply(order)

    @activity.defn(name="probe_version")
    @translated
    async def probe_version(self, order: ProbeInput) -> ProbeReport:
        """One readiness probe; an unhealthy version is an answer, not an error."""
        async with heartbeating():
            return await self._runtime.probe(order.plugin, order.version)

    @activity.defn(name="smoke_version")
    @translated
    async def smoke_version(self, order: SmokeInput) -> SmokeReport:
        """The manifest's smoke tests on this node's idle host; a failed one is an answer, not an error."""
        async with heartbeating():
            return await self._runtime.smoke(order.plugin, order.version, order.timeout)

    @activity.defn(name="retire_versions")
    @translated
    async def retire_versions(self, order: RetireInput) -> NodeReport:
        """Apply, then drain and unload what the order does not name."""
        async with heartbeating():
            return await self._runtime.retire(order.order, order.grace)
