"""Is the version that serves still well? One look at what the nodes' own probes and crash counts say. Pure.

Neighbours: nodes probe and restart their hosts themselves (hotswap.node.hosts), activities.monitor asks them,
workflows.monitor counts looks: only a fault that lasts is one of the version.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from hotswap.domain.aftercare import Aftercare
from hotswap.domain.analysis import HostReport, NodeFigures
from hotswap.domain.base import BoundedText, Instant, Model, PluginName
from hotswap.domain.deployment import Environment
from hotswap.domain.routes import ArtifactRef


class Condition(StrEnum):
    WELL = "Well"
    FAULTY = "Faulty"
    UNKNOWN = "Unknown"  # nobody could be asked: neither a fault nor the end of one


class HealthLook(Model):
    """One look. `crashes` by node is what the next look compares with."""

    condition: Condition
    evidence: BoundedText
    hosts: int = 0
    faulty_hosts: int = 0
    crashes: dict[str, int] = Field(default_factory=dict)


class FaultSeen(Model):
    """A node tells the monitor: a host of this version is down, or fails its probes, and restarting did not mend it."""

    node_id: str
    version: str


class MonitorSubject(Model):
    """What a health monitor watches: the version that a Completed deployment put in place, and what to go back to."""

    deployment_id: str
    environment: Environment
    plugin: PluginName
    target: ArtifactRef
    previous: ArtifactRef
    care: Aftercare
    completed_at: Instant
    crashes: dict[str, int] = Field(default_factory=dict, description="of its hosts so far, by node")

    @property
    def window_ends_at(self) -> datetime | None:
        """When warm versions are retired; None without a window."""
        window = self.care.rollback_window
        return self.completed_at + window if window > timedelta(0) else None


def look_at(
    figures: Sequence[NodeFigures],
    silent: Sequence[str],
    version: str,
    crashes_before: Mapping[str, int],
    max_faulty_hosts: float,
) -> HealthLook:
    """Weigh what the nodes say of the hosts of `version`.

    A node's host is faulty when a process of it is down, when one died since the look before (so that a host which crashes
    and comes back between two looks is seen), when its latest local probe failed, or when a node that serves the plugin
    does not have it. One that was evicted because nobody called it is well: the next request loads it.
    The version is when more than `max_faulty_hosts` of the hosts are. Silent nodes count neither way; only silence is
    Unknown.
    """
    crashes: dict[str, int] = dict(crashes_before)
    faults: list[str] = []
    for node in figures:
        hosts = [host for host in node.hosts if host.version == version and host.state not in ("Draining", "Stopped")]
        fault = _fault(hosts, crashes_before.get(node.node_id)) if hosts else "is not loaded"
        crashes[node.node_id] = sum(host.crashes for host in hosts)
        if fault:
            faults.append(f"{node.node_id}: {fault}")
    if not figures:
        named = f"{', '.join(silent)} did not answer" if silent else "there is no live node to ask"
        return HealthLook(condition=Condition.UNKNOWN, evidence=named, crashes=crashes)
    total = len(figures)
    ill = len(faults) / total > max_faulty_hosts
    told = f"{len(faults)} of {total} hosts of {version} are faulty ({'; '.join(faults)})" if faults else ""
    quiet = f"{', '.join(silent)} did not answer" if silent else ""
    return HealthLook(
        condition=Condition.FAULTY if ill else Condition.WELL,
        evidence="; ".join(part for part in (told or f"all {total} hosts of {version} are well", quiet) if part),
        hosts=total,
        faulty_hosts=len(faults),
        crashes=crashes,
    )


def _fault(hosts: Sequence[HostReport], crashes_before: int | None) -> str:
    """What is wrong with a version's host on one node, "" when nothing is."""
    # Several processes serve where the manifest says so, and one may stand by: the worst speaks for the node.
    host = max(hosts, key=lambda one: (one.state == "Crashed", one.probe_failures, bool(one.last_error)))
    why = f", last: {host.last_error}" if host.last_error else ""
    crashes = sum(one.crashes for one in hosts)
    # A node that was restarted counts from zero again: then every crash it knows of is new.
    risen = 0 if crashes_before is None else crashes - crashes_before if crashes >= crashes_before else crashes
    if host.state == "Crashed":
        return f"down after {crashes} crashes{why}"
    if risen > 0:
        return f"crashed {risen} times since the last look{why}"
    if host.probe_failures > 0:
        return f"failed {host.probe_failures} probes in a row{why}"
    return ""
