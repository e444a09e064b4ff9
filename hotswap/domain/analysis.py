"""Figures that nodes count and verdicts that analysis gives on them. Facts only; hotswap.analysis does the statistics."""

from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from hotswap.domain.base import BoundedText, Instant, Model, PluginName


class Outcome(StrEnum):
    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"
    """A metric's provider gave no answer: counted apart, never a pass and never a fail."""


class InconclusivePolicy(StrEnum):
    PAUSE = "pause"
    CONTINUE = "continue"
    EXTEND = "extend"
    ROLLBACK = "rollback"


class DecisionMetric(StrEnum):
    """What an A/B test may be decided by. Each is a share of requests, so that evidence is exact for any sample."""

    ERROR_RATE = "errorRate"
    SUCCESS_RATE = "successRate"
    LATENCY_P99 = "latencyP99"  # share of requests slower than the threshold maxLatencyP99Ms


class Winner(StrEnum):
    A = "A"
    B = "B"
    NONE = "None"


class Health(StrEnum):
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    UNHEALTHY = "Unhealthy"
    UNKNOWN = "Unknown"


class Thresholds(Model):
    """When a version in traffic counts as bad. `alpha` is the false-rollback rate that holds under continuous peeking."""

    max_error_rate: float = Field(default=0.05, ge=0, lt=1)
    min_success_rate: float = Field(default=0.95, gt=0, le=1)
    max_latency_p99_ms: float = Field(default=500, gt=0, allow_inf_nan=False)
    max_latency_ratio: float = Field(
        default=2.0, gt=1, allow_inf_nan=False, description="p99 against the version in place"
    )
    max_error_rate_increase: float = Field(
        default=0.01, ge=0, lt=1, description="absolute, against the version in place"
    )
    max_crashed_hosts: float = Field(default=0.2, ge=0, lt=1, description="share of the candidate's hosts")
    max_probe_failures: int = Field(default=3, ge=1, le=100, description="consecutive, on any node")
    min_sample: int = Field(default=50, ge=1, description="candidate requests before a pass or a statistical fail")
    alpha: float = Field(default=0.05, gt=0, lt=0.5)


class FloodFigures(Model):
    """What one tenant did to a version by asking for more than it serves, while it could have served all others.

    `turned_away` of the version's failures are due to that. `latency_buckets` of its latencies are of calls that waited beside it.
    """

    turned_away: int = Field(default=0, ge=0)
    latency_buckets: dict[int, int] = Field(default_factory=dict)


class VersionFigures(Model):
    """What the nodes counted for one version in one window, floods included.

    `latency_buckets` maps a log-linear bucket index (hotswap.analysis.histogram) to a count.
    `errors` are requests the plugin or its host failed; `failures` a subset: the platform could not serve at all.
    """

    version: str
    requests: int = Field(default=0, ge=0)
    errors: int = Field(default=0, ge=0)
    failures: int = Field(default=0, ge=0)
    latency_buckets: dict[int, int] = Field(default_factory=dict)
    flood: FloodFigures | None = Field(default=None, exclude_if=lambda value: value is None)
    """Left out while there was none: a worker of the release before refuses what it does not know."""


class HostReport(Model):
    """One host process on one node."""

    plugin: PluginName
    version: str
    state: str = Field(description="Starting, Ready, Standby, Evicted, Draining, Crashed or Stopped")
    pid: int | None = None
    sandbox_tier: str = "none"
    in_flight: int = 0
    crashes: int = Field(default=0, description="times this host died unasked since the version was staged here")
    probe_failures: int = Field(default=0, description="consecutive")
    memory_bytes: int = 0
    load_ms: float = 0.0
    last_error: BoundedText = ""


MAX_HOSTS_TOLD = 16
"""Processes of one node that enter a history in one answer: 400 bytes each, and a version may have 64."""


def told_in_history(hosts: tuple[HostReport, ...]) -> tuple[HostReport, ...]:
    """At most MAX_HOSTS_TOLD of a node's hosts, those with something to tell first."""
    if len(hosts) <= MAX_HOSTS_TOLD:
        return hosts
    return tuple(sorted(hosts, key=lambda host: (-host.crashes, -host.probe_failures))[:MAX_HOSTS_TOLD])


class NodeFigures(Model):
    """One node's answer to 'what do you serve, and how is it going since ...'."""

    node_id: str
    plugin: PluginName
    generation: int = Field(default=0, description="route generation applied there; 0 = none")
    candidate_weight: int = Field(default=0, description="basis points in force there")
    since: Instant
    taken_at: Instant
    versions: tuple[VersionFigures, ...] = ()
    hosts: tuple[HostReport, ...] = ()


class MetricVerdict(Model):
    """One metric's verdict with the evidence that gave it."""

    metric: str
    outcome: Outcome
    n: int = 0
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    threshold: float | None = None
    baseline_n: int | None = None
    baseline_estimate: float | None = None
    explanation: BoundedText = ""
    # Of own metrics only (hotswap.domain.metrics); left out of histories and answers where they say nothing.
    provider: str | None = Field(default=None, exclude_if=lambda value: value is None)
    query: BoundedText | None = Field(default=None, exclude_if=lambda value: value is None)
    raw: BoundedText | None = Field(default=None, exclude_if=lambda value: value is None)
    no_data: bool = Field(default=False, exclude_if=lambda value: not value)


class ArmCounts(Model):
    """What one version of an A/B test did so far: enough for every decision metric, and small enough for a history."""

    requests: int = Field(default=0, ge=0)
    errors: int = Field(default=0, ge=0)
    timed: int = Field(default=0, ge=0, description="requests with a latency")
    slow: int = Field(default=0, ge=0, description="of these, slower than maxLatencyP99Ms")


class MetricEvidence(Model):
    """One decision metric of an A/B test. Shares are 0 to 1; the difference is B - A with bounds that hold at every look."""

    metric: DecisionMetric
    better: Winner
    a_n: int = 0
    a_estimate: float | None = None
    b_n: int = 0
    b_estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    explanation: BoundedText = ""


class ExperimentVerdict(Model):
    """Which version of an A/B test is better, with the evidence; `winner` None means that it could not be shown."""

    winner: Winner
    reason: BoundedText
    metrics: tuple[MetricEvidence, ...] = ()
    a_version: str
    b_version: str
    alpha: float
    taken_at: Instant


class Verdict(Model):
    """Worst metric wins: Fail, then Error, then Inconclusive, then Pass."""

    outcome: Outcome
    reason: BoundedText
    metrics: tuple[MetricVerdict, ...] = ()
    candidate_requests: int = 0
    baseline_requests: int = 0
    actual_weight_percent: float | None = Field(default=None, description="share of requests the candidate really got")
    nodes_heard: tuple[str, ...] = ()
    nodes_silent: tuple[str, ...] = ()
    taken_at: Instant
    window: timedelta
