"""What a node can be told to do: the port between activities.nodes (Temporal) and hotswap.node.supervisor (processes)."""

from datetime import timedelta
from typing import Protocol

from hotswap.domain.analysis import Health, HostReport
from hotswap.domain.base import BoundedText, Model
from hotswap.domain.routes import RouteOrder
from hotswap.ports.sandbox import SmokeResult


class NodeReport(Model):
    """A node's acknowledgement: generation `generation` of the plugin's route is in force there."""

    node_id: str
    plugin: str
    generation: int
    hosts: tuple[HostReport, ...] = ()


class ProbeReport(Model):
    node_id: str
    plugin: str
    version: str
    health: Health
    latency_ms: float = 0.0
    detail: BoundedText = ""


class SmokeReport(Model):
    """How the manifest's smoke tests went on one node. A failed test is an answer, not an error."""

    node_id: str
    plugin: str
    version: str
    passed: bool
    smoke_tests: tuple[SmokeResult, ...] = ()
    detail: BoundedText = ""


class NodeRuntime(Protocol):
    """All orders are absolute and idempotent, and fenced: an order older than the applied one raises StaleGeneration."""

    async def stage(self, order: RouteOrder) -> NodeReport:
        """Fetch, verify, unpack and load every version the order names, then apply it.

        Raises ArtifactCorrupt, ArtifactMissing, BundleRejected, SandboxUnavailable, HostFailed (with its limit).
        A failed stage leaves what was serving untouched.
        """
        ...

    async def apply(self, order: RouteOrder) -> NodeReport:
        """Swap the route. Versions that are not loaded yet are loaded first. Old versions stay loaded until `retire`."""
        ...

    async def probe(self, plugin: str, version: str) -> ProbeReport:
        """One readiness probe of the version's host here, now."""
        ...

    async def smoke(self, plugin: str, version: str, timeout: timedelta) -> SmokeReport:
        """Run the manifest's smoke tests on the version's host here; `timeout` for all of them. Nothing of it is routed."""
        ...

    async def retire(self, order: RouteOrder, grace: timedelta) -> NodeReport:
        """Apply the order, then drain (at most `grace`) and unload every version of the plugin it does not name."""
        ...
