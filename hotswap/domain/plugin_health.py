"""How a version does on a node, as it is recorded and shown. Facts and one judgement; nodes and the api use the same.

Neighbours: hotswap.node.health_log records changes, api.services.health shows the present and the past.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from pydantic import Field

from hotswap.domain.analysis import Health, HostReport
from hotswap.domain.base import BoundedText, Instant, Model, PluginName
from hotswap.domain.deployment import Environment

_SERVES = frozenset({"Ready", "Standby", "Evicted", "Draining"})
_WORSE = (Health.UNHEALTHY, Health.DEGRADED, Health.UNKNOWN, Health.HEALTHY)


class ProbeKind(StrEnum):
    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"
    PERFORMANCE = "Performance"


class HealthCheck(Model):
    """One row of plugin_health_checks: one version on one node at one instant."""

    check_id: str
    plugin: PluginName
    version: str
    environment: Environment
    kind: ProbeKind = ProbeKind.LIVENESS
    status: Health
    checked_at: Instant
    duration_ms: float = Field(default=0.0, ge=0)
    error: BoundedText = ""
    figures: dict[str, Any] = Field(default_factory=dict, description="node, processes, crashes, memoryBytes")

    @property
    def node_id(self) -> str:
        return str(self.figures.get("node", ""))


def health_of(hosts: Sequence[HostReport]) -> Health:
    """Of one version's processes on one node: Unhealthy when none serves, Degraded when some do not or probes fail."""
    if not hosts:
        return Health.UNHEALTHY
    serving = [host for host in hosts if host.state in _SERVES]
    if not serving:
        starting = all(host.state == "Starting" for host in hosts)
        return Health.UNKNOWN if starting else Health.UNHEALTHY
    if len(serving) < len(hosts) or any(host.probe_failures for host in serving):
        return Health.DEGRADED
    return Health.HEALTHY


def worst(healths: Iterable[Health]) -> Health:
    """The one that a person should hear of; Unknown of nothing."""
    found = set(healths)
    return next((health for health in _WORSE if health in found), Health.UNKNOWN)
