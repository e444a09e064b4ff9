"""Asking the nodes to probe what they host, now (hotswap.adapters.node_figures)."""

from collections.abc import Sequence
from typing import Protocol

from hotswap.domain.base import Model
from hotswap.domain.registry import NodeRecord
from hotswap.ports.metrics import FiguresSource
from hotswap.ports.node_runtime import ProbeReport


class NodeProbes(Model):
    """One node's answer."""

    node_id: str
    probes: tuple[ProbeReport, ...] = ()


class Probes(Model):
    """What the nodes found, and which did not answer."""

    probes: tuple[ProbeReport, ...] = ()
    silent: tuple[str, ...] = ()


class VersionUsage(Model):
    version: str
    cpu_percent: float
    """Of one core, over all of its processes on the node."""


class NodeUsage(Model):
    """One node's answer. Beside the figures and not in them: workers of the release before read those."""

    node_id: str
    versions: tuple[VersionUsage, ...] = ()


class ProbeSource(FiguresSource, Protocol):
    async def probe(self, nodes: Sequence[NodeRecord], plugin: str) -> Probes:
        """Probe every version of the plugin on every node at once. A node that fails is named in `silent`."""
        ...

    async def usage(self, nodes: Sequence[NodeRecord], plugin: str) -> Sequence[NodeUsage]:
        """CPU of the plugin's processes now. A node that does not answer, or cannot tell yet, is missing."""
        ...
