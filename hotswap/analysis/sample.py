"""Adds up what the nodes counted, for each version. Tolerates figures that contradict themselves; judges nothing.

Neighbours: hotswap.analysis.judge builds a Sample from NodeFigures, hotswap.analysis.metrics reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hotswap.analysis.histogram import LAST_BUCKET, merge
from hotswap.domain.analysis import HostReport, NodeFigures, VersionFigures


@dataclass(frozen=True, slots=True)
class Arm:
    """One version's traffic, all nodes together. `errors` includes what the platform itself could not serve.

    What one tenant's flood had turned away (`flooded`) is in neither count, and what waited beside it has no latency here.
    """

    version: str
    requests: int = 0
    errors: int = 0
    latencies: dict[int, int] = field(default_factory=dict)
    flooded: int = 0

    @property
    def timed(self) -> int:
        """Requests with a latency."""
        return sum(self.latencies.values())


@dataclass(frozen=True, slots=True)
class Host:
    """A live or crashed host of the candidate and where it runs."""

    node_id: str
    report: HostReport


@dataclass(frozen=True, slots=True)
class Sample:
    """What one window holds. `baseline` is None when there is no earlier version at all."""

    candidate: Arm
    baseline: Arm | None
    hosts: tuple[Host, ...]
    total_requests: int


def collect(figures: Sequence[NodeFigures], candidate: str, baseline: str | None) -> Sample:
    """The sums over all nodes that answered."""
    counted = [version for node in figures for version in node.versions]
    hosts = tuple(
        Host(node.node_id, host)
        for node in figures
        for host in node.hosts
        # A host stopped on purpose says nothing about the version, nor does a standby that no request meets: it would only
        # make the share of crashed hosts smaller. One that died before does.
        if host.version == candidate and (host.state not in ("Stopped", "Standby") or host.crashes > 0)
    )
    return Sample(
        candidate=_arm(candidate, counted),
        baseline=None if baseline is None else _arm(baseline, counted),
        hosts=hosts,
        total_requests=sum(max(version.requests, version.errors) for version in counted),
    )


def _arm(version: str, counted: Sequence[VersionFigures]) -> Arm:
    mine = [figures for figures in counted if figures.version == version]
    floods = [figures.flood for figures in mine if figures.flood is not None]
    flooded = sum(min(figures.flood.turned_away, figures.errors) for figures in mine if figures.flood is not None)
    latencies = merge(_sane(figures.latency_buckets) for figures in mine)
    for index, count in merge(_sane(flood.latency_buckets) for flood in floods).items():
        latencies[index] = latencies.get(index, 0) - count
    return Arm(
        version=version,
        # A request is counted and its failure a moment later, or the other way round: never more errors than requests.
        requests=sum(max(figures.requests, figures.errors) for figures in mine) - flooded,
        errors=sum(figures.errors for figures in mine) - flooded,
        latencies={index: count for index, count in latencies.items() if count > 0},
        flooded=flooded,
    )


def _sane(buckets: dict[int, int]) -> dict[int, int]:
    """Figures come over the network: an unknown bucket goes to the nearest one, a count below one to nothing."""
    return merge({min(max(index, 0), LAST_BUCKET): count} for index, count in buckets.items() if count > 0)
