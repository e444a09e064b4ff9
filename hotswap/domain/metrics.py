"""A rollout's own metrics, asked for in its configuration: what to ask whom, when it is good, and what follows when not.

Facts and pure text only. Neighbours: hotswap.adapters asks the providers (ports.metrics), hotswap.analysis.own_metrics
judges what they say, hotswap.analysis.policies draws the consequence, hotswap.analysis.power announces samples.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from pydantic import Field, model_validator

from hotswap.domain.analysis import InconclusivePolicy, Outcome
from hotswap.domain.base import BoundedText, Instant, Model, PluginName

MAX_METRICS = 10
"""Own metrics of one rollout: each is asked at every look, and the plan that holds them lies in the history."""

BUILT_IN = (
    "crashes",
    "probes",
    "error-rate",
    "success-rate",
    "error-rate-vs-baseline",
    "latency-p99",
    "latency-vs-baseline",
    "flooded",
)
"""What hotswap.analysis.judge weighs anyway, by `thresholds`; an own metric needs a name of its own."""

PLACEHOLDERS = ("plugin", "version", "candidate", "baseline", "environment", "since", "window")

_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_UNKNOWN_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'" + r"|`[^`]*`")
_FIGURE = re.compile(r"^(?:(error-rate)|(success-rate)|latency-p([1-9]\d?(?:\.\d{1,2})?))$")
_URL = re.compile(
    r"^(https?)://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,39}\])(?::(\d{1,5}))?(/[A-Za-z0-9._~/%-]*)?$"
)


class MetricProviderKind(StrEnum):
    NODES = "nodes"
    PROMETHEUS = "prometheus"
    WEBHOOK = "webhook"


class Operator(StrEnum):
    """How a GOOD value stands to the threshold."""

    AT_MOST = "<="
    AT_LEAST = ">="
    BELOW = "<"
    ABOVE = ">"

    def holds(self, value: float, threshold: float) -> bool:
        match self:
            case Operator.AT_MOST:
                return value <= threshold
            case Operator.AT_LEAST:
                return value >= threshold
            case Operator.BELOW:
                return value < threshold
            case Operator.ABOVE:
                return value > threshold

    @property
    def small_is_good(self) -> bool:
        return self in (Operator.AT_MOST, Operator.BELOW)


class Compare(StrEnum):
    """What is held against the threshold: the new version's value, or how it stands to the version in place."""

    ABSOLUTE = "absolute"
    BASELINE_RATIO = "baseline-ratio"
    BASELINE_DIFFERENCE = "baseline-difference"


class FailPolicy(StrEnum):
    ROLLBACK = "rollback"
    PAUSE = "pause"


class ErrorPolicy(StrEnum):
    """`continue` leaves the metric out: nobody is stopped by a monitoring system that is down."""

    CONTINUE = "continue"
    PAUSE = "pause"
    ROLLBACK = "rollback"


class NoDataPolicy(StrEnum):
    """`inconclusive`: as `onInconclusive` says."""

    INCONCLUSIVE = "inconclusive"
    CONTINUE = "continue"
    PAUSE = "pause"
    ROLLBACK = "rollback"


class MetricPolicy(Model):
    """What follows from each way a metric can go."""

    on_fail: FailPolicy = FailPolicy.ROLLBACK
    on_error: ErrorPolicy = ErrorPolicy.PAUSE
    on_no_data: NoDataPolicy = NoDataPolicy.INCONCLUSIVE
    on_inconclusive: InconclusivePolicy = InconclusivePolicy.EXTEND


class MetricSpec(Model):
    """One own metric: `value operator threshold` is what good looks like."""

    name: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
    provider: MetricProviderKind
    query: str = Field(
        default="",
        max_length=1000,
        description="nodes: error-rate, success-rate or latency-p50 ... latency-p99.9 (ms); prometheus: PromQL with "
        "{plugin} {version} {candidate} {baseline} {environment} {since} {window}; webhook: passed on as it is",
    )
    url: str = Field(
        default="",
        max_length=500,
        description="webhook: where to POST; prometheus: another server than the platform's own",
    )
    secret: str = Field(
        default="",
        pattern=r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)?$",
        description="name of credentials that the platform's settings hold",
    )
    operator: Operator
    threshold: float = Field(allow_inf_nan=False)
    compare: Compare = Compare.ABSOLUTE
    policy: MetricPolicy = Field(default_factory=MetricPolicy)
    consecutive_failure_limit: int = Field(default=1, ge=1, le=100, description="looks in a row that must fail")
    error_limit: int = Field(default=4, ge=1, le=100, description="looks in a row without an answer")
    error_rate_limit: float = Field(default=0.5, gt=0, le=1, description="share of a step's looks without an answer")
    inconclusive_limit: int | None = Field(
        default=None, ge=1, le=1000, description="looks in a row that tell nothing; default: only the step's end counts"
    )

    @model_validator(mode="after")
    def _fits_its_provider(self) -> "MetricSpec":
        if said := _fault(self):
            raise ValueError(said)
        return self

    @property
    def needs_baseline(self) -> bool:
        """Speaks of the version in place, so it says nothing where nobody is left on that one."""
        return self.compare is not Compare.ABSOLUTE or "{baseline}" in self.query


def _fault(spec: MetricSpec) -> str | None:
    """What is wrong with one metric as a whole: field, fault, remedy."""
    if spec.name in BUILT_IN:
        return f"name: '{spec.name}' is judged anyway, by thresholds; give the metric a name of its own"
    if spec.url and origin_of(spec.url) is None:
        return "url: must be http(s)://host[:port]/path in lower case, without user, query or fragment, e.g. https://qa:8443/ok"
    if spec.compare is Compare.BASELINE_RATIO and spec.threshold <= 0:
        return f"threshold: a ratio to the version in place is above 0, not {spec.threshold:g}; 1.5 allows half as much again"
    match spec.provider:
        case MetricProviderKind.NODES:
            if spec.url or spec.secret:
                return "url: the nodes are asked directly; leave url and secret out"
            if figure_of(spec.query) is None:
                return "query: nodes know error-rate, success-rate and latency-p50, latency-p95, latency-p99 ... (milliseconds)"
        case MetricProviderKind.PROMETHEUS:
            return _promql_fault(spec)
        case MetricProviderKind.WEBHOOK:
            if not spec.url:
                return "url: is required for a webhook, e.g. https://quality.example:8443/verdict"
    return None


def _promql_fault(spec: MetricSpec) -> str | None:
    if not spec.query.strip():
        return "query: is required for prometheus: a PromQL expression that gives one number"
    if spec.compare is not Compare.ABSOLUTE and "{version}" not in spec.query:
        return "query: is asked once for each version to compare them; say where with {version}"
    # Inside quotes braces are text (path="/users/{id}"); outside, {word} is no PromQL, so it is a placeholder misspelt.
    unknown = [word for word in _UNKNOWN_PLACEHOLDER.findall(_QUOTED.sub('""', spec.query)) if word not in PLACEHOLDERS]
    if unknown:
        return f"query: {{{unknown[0]}}} is not a placeholder; there are {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}"
    return None


def unique_metrics(metrics: tuple[MetricSpec, ...]) -> tuple[MetricSpec, ...]:
    """The metrics as given. Raises ValueError when they are too many or two share a name."""
    if len(metrics) > MAX_METRICS:
        raise ValueError(f"must be at most {MAX_METRICS}, not {len(metrics)}; each is asked at every look")
    names = [metric.name for metric in metrics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"'{twice}' is there twice; give each metric a name of its own")
    return metrics


def origin_of(url: str) -> str | None:
    """`host:port` of a plain http(s) URL, the form of the allow-list; None for anything else.

    Only what every URL parser reads alike is a URL here: a difference between parsers is how an allow-list is passed by.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme, host, port, path = match.groups()
    if int(port or 80) not in range(1, 65536) or ".." in host or ".." in (path or ""):
        return None
    return f"{host}:{port or (443 if scheme == 'https' else 80)}"


def allowed_origins(entries: Sequence[str]) -> frozenset[str]:
    """The allow-list as origins: an entry without a port stands for that host's ports 80 and 443."""
    origins = set()
    for entry in entries:
        lowered = entry.strip().lower()
        bare = lowered.rpartition("]")[2] if lowered.startswith("[") else lowered
        origins |= {lowered} if ":" in bare else {f"{lowered}:80", f"{lowered}:443"}
    return frozenset(origins)


def figure_of(query: str) -> tuple[str, float] | None:
    """('error-rate', 0), ('success-rate', 0) or ('latency', quantile 0 to 1) of a nodes query; None for any other."""
    match = _FIGURE.fullmatch(query)
    if match is None:
        return None
    if match.group(3) is None:
        return query, 0.0
    return "latency", float(match.group(3)) / 100


def filled(template: str, values: Mapping[str, str]) -> str:
    """The query with its placeholders replaced, each once: what a value holds is never read as a placeholder."""
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


class MetricQuestion(Model):
    """What a provider is asked at one look, about one version (`version`: the candidate, or the baseline beside it)."""

    deployment: str = Field(description="workflow id: which rollout asks")
    metric: str
    query: str
    url: str = ""
    secret: str = ""
    plugin: PluginName
    environment: str
    version: str
    candidate: str
    baseline: str | None
    weight_percent: int
    since: Instant
    now: Instant

    @property
    def window_seconds(self) -> int:
        """Whole seconds since the window began, at least 1."""
        return max(int((self.now - self.since).total_seconds()), 1)


class Measurement(Model):
    """A provider's answer: a value, an outcome of its own, or neither (there is no data). `query` and `raw` are evidence."""

    value: float | None = Field(default=None, allow_inf_nan=False)
    n: int | None = Field(default=None, ge=0, description="how many observations are behind the value, when told")
    outcome: Outcome | None = Field(default=None, description="when the provider judges by itself")
    reason: BoundedText = ""
    query: BoundedText = ""
    raw: BoundedText = ""


class MetricCounts(Model):
    """How one own metric went so far in this step. `failures`, `errors`, `inconclusive` are in a row."""

    metric: str
    looks: int = 0
    failures: int = 0
    errors: int = 0
    inconclusive: int = 0
    errors_in_all: int = 0


class Ruling(Model):
    """What follows from one look: `decision` at once (continue, pause, rollback), `at_end` if the step ends with it."""

    decision: InconclusivePolicy
    at_end: InconclusivePolicy
    outcome: Outcome
    reason: BoundedText


class Regression(Model):
    """The size of fault for which the plan announces how many requests it takes to find it."""

    error_rate: float = Field(default=0.01, ge=0, lt=1, description="share that fails on the version in place")
    error_rate_increase: float | None = Field(
        default=None, gt=0, lt=1, description="how much more fails; default: twice what thresholds allow"
    )
    latency_ratio: float | None = Field(
        default=None,
        gt=1,
        le=1000,
        description="p99 against the version in place; default: a third above what thresholds allow",
    )


class ExpectedSample(Model):
    """Requests of the new version within which a regression is found with 95 % probability. None: it never is."""

    metric: str
    regression: str
    requests: int | None
    baseline_requests: int | None = None
