"""Where live figures come from: the nodes themselves (hotswap.adapters.node_figures), and for own metrics any provider
(hotswap.adapters.prometheus_metrics, webhook_metrics)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from hotswap.domain.analysis import NodeFigures
from hotswap.domain.base import Model
from hotswap.domain.metrics import Measurement, MetricQuestion
from hotswap.domain.registry import NodeRecord


class Readings(Model):
    """What the nodes said, and which did not answer."""

    figures: tuple[NodeFigures, ...] = ()
    silent: tuple[str, ...] = ()


class FiguresSource(Protocol):
    async def read(self, nodes: Sequence[NodeRecord], plugin: str, since: datetime) -> Readings:
        """Ask every node at once, each within 2 s. A node that fails is named in `silent`, never an error."""
        ...


class MetricProvider(Protocol):
    """Anybody who can be asked for one number of a rollout's own metric: a Prometheus, a webhook, a twin in memory."""

    async def measure(self, question: MetricQuestion) -> Measurement:
        """One answer, within the provider's own timeout. No data is an answer without value and outcome, never an error.

        Raises MetricProviderFault: nobody answered, or nothing that can be read. The next look asks again.
        """
        ...

    async def close(self) -> None: ...
