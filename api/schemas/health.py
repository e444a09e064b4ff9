"""Health and figures of a plugin as clients read them."""

from datetime import timedelta

from pydantic import Field, field_validator

from api.schemas.common import IsoDuration
from hotswap.domain.analysis import Health
from hotswap.domain.base import BoundedText, Instant, Model, PluginName
from hotswap.domain.deployment import Environment
from hotswap.domain.plugin_health import HealthCheck
from hotswap.domain.registry import Page

LONGEST_WINDOW = timedelta(hours=24)
"""What the nodes' minute rings reach (hotswap.node.figures), with an hour to spare."""


class HealthQuery(Page):
    """Query of GET /plugins/{pluginId}/health; `limit` and `offset` are of the history."""

    environment: Environment | None = None


class MetricsQuery(Model):
    """Query of GET /plugins/{pluginId}/metrics."""

    environment: Environment | None = None
    window: IsoDuration = Field(default=timedelta(minutes=5), description="ISO 8601, PT1S to PT24H")

    @field_validator("window")
    @classmethod
    def _reachable(cls, window: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= window <= LONGEST_WINDOW:
            raise ValueError("must be PT1S to PT24H: that is how far back the nodes count")
        return window


class HealthCheckIn(Model):
    """Body of POST /plugins/{pluginId}/health-check; may be left out."""

    environment: Environment | None = None


class VersionHealth(Model):
    """One version on one node, now."""

    environment: Environment
    node_id: str
    version: str
    status: Health
    processes: int = 0
    serving: int = 0
    crashes: int = 0
    probe_failures: int = 0
    memory_bytes: int = 0
    latency_ms: float | None = Field(default=None, description="of the probe, where one was asked for")
    last_error: BoundedText = ""


class HealthOut(Model):
    """`status` is the worst of the versions; nodes that did not answer are in `silent`."""

    plugin_id: PluginName
    status: Health
    checked_at: Instant
    versions: tuple[VersionHealth, ...]
    silent: tuple[str, ...]


class HealthWithHistory(HealthOut):
    """`history`: what changed, and a check every few minutes; a week is kept."""

    history: tuple[HealthCheck, ...]
    history_total: int


class FiguresOut(Model):
    """Of one version in the window. Latencies are null without a request that ran."""

    version: str
    requests: int
    errors: int
    failures: int = Field(description="of the errors: those that the platform could not serve at all")
    error_rate: float | None
    requests_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    memory_bytes: int = Field(description="of its processes now")
    cpu_percent: float | None = Field(description="of one core, its processes together, at this moment")
    processes: int


class NodeFiguresOut(FiguresOut):
    environment: Environment
    node_id: str


class MetricsOut(Model):
    """`versions` over all nodes, `nodes` one by one. Figures come from the nodes and begin with their last start."""

    plugin_id: PluginName
    environment: Environment | None
    since: Instant
    until: Instant
    versions: tuple[FiguresOut, ...]
    nodes: tuple[NodeFiguresOut, ...]
    silent: tuple[str, ...]
