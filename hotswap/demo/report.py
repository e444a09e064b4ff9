"""What traffic saw: counts, versions by tenant, latency, a timeline. Pure: filled by hotswap.demo.traffic, read by claims."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Sighting = tuple[str, float]
"""A version and the Unix time at which a tenant was first served by it (again)."""


@dataclass
class Second:
    """One second of traffic."""

    requests: int = 0
    ok: int = 0
    plugin_errors: int = 0
    platform_failures: int = 0
    versions: Counter[str] = field(default_factory=Counter)


@dataclass
class TrafficReport:
    """Everything that was seen.

    `ok`: answered 200. `plugin_errors`: the plugin's own code raised (PLUGIN_ERROR), by version. `platform_failures`:
    anything else, by code: CONNECTION_LOST, CLIENT_TIMEOUT, NO_NODE, or the code of the router's envelope.
    `retried_connects`: a node could not be connected to and another was asked instead, as a load balancer does.
    Latencies are milliseconds from the moment the request was sent.
    """

    started_at: float = 0.0
    finished_at: float = 0.0
    requests: int = 0
    ok: int = 0
    retried_connects: int = 0
    plugin_errors: Counter[str] = field(default_factory=Counter)
    platform_failures: Counter[str] = field(default_factory=Counter)
    failure_samples: list[str] = field(default_factory=list)
    by_version: Counter[str] = field(default_factory=Counter)
    versions: dict[str, list[Sighting]] = field(default_factory=dict)
    first_seen: dict[str, float] = field(default_factory=dict)
    last_seen: dict[str, float] = field(default_factory=dict)
    first_error: dict[str, float] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    seconds: dict[int, Second] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Requests that the platform failed."""
        return sum(self.platform_failures.values())

    @property
    def broken(self) -> int:
        """Requests that a plugin's own code broke."""
        return sum(self.plugin_errors.values())

    def percentile(self, share: float) -> float:
        """Latency in milliseconds at or below which `share` (0 to 1) of the answered requests were; 0 without any."""
        if not self.latencies_ms:
            return 0.0
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def second(self, at: float) -> Second:
        """The bucket of a Unix time."""
        return self.seconds.setdefault(int(at), Second())

    def saw(self, tenant: str, version: str, at: float) -> None:
        """Note which version served the tenant; only changes are kept."""
        self.first_seen.setdefault(version, at)
        self.last_seen[version] = max(at, self.last_seen.get(version, at))
        sightings = self.versions.setdefault(tenant, [])
        if not sightings or sightings[-1][0] != version:
            sightings.append((version, at))

    def sequences(self, since: float = 0.0, until: float = float("inf")) -> dict[str, tuple[str, ...]]:
        """By tenant: the versions in the order in which they served it between two Unix times, repeats left out."""
        result = {}
        for tenant, sightings in self.versions.items():
            before = [version for version, at in sightings if at < since][-1:]
            within = [version for version, at in sightings if since <= at < until]
            result[tenant] = (*before, *within)
        return result

    def to_json(self) -> dict[str, Any]:
        """For the way from the traffic's process to the story's."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: dict(getattr(self, name)) for name in _COUNTERS},
            "latencies_ms": [round(value, 3) for value in self.latencies_ms],
            "seconds": {
                str(at): [one.requests, one.ok, one.plugin_errors, one.platform_failures, dict(one.versions)]
                for at, one in self.seconds.items()
            },
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "TrafficReport":
        """The inverse of `to_json`."""
        report = cls(**{name: document[name] for name in (*_PLAIN, "latencies_ms")})
        for name in _COUNTERS:
            setattr(report, name, Counter(document[name]))
        report.versions = {
            tenant: [(str(version), float(at)) for version, at in sightings]
            for tenant, sightings in document["versions"].items()
        }
        report.seconds = {
            int(at): Second(values[0], values[1], values[2], values[3], Counter(values[4]))
            for at, values in document["seconds"].items()
        }
        return report


_PLAIN = (
    "started_at",
    "finished_at",
    "requests",
    "ok",
    "retried_connects",
    "failure_samples",
    "versions",
    "first_seen",
    "last_seen",
    "first_error",
)
_COUNTERS = ("plugin_errors", "platform_failures", "by_version")


def flips(sequences: Iterable[Sequence[str]], order: Sequence[str]) -> list[tuple[str, ...]]:
    """Sequences that do not follow `order`: a tenant that went back, or met a version that is not in it.

    `order` is what a tenant may see at most, e.g. (old, new) during a canary, (old, bad, old) around a rollback.
    """
    wrong = []
    for sequence in sequences:
        expected = iter(order)
        if not all(version in expected for version in sequence):  # `in` consumes: this is a subsequence test
            wrong.append(tuple(sequence))
    return wrong
