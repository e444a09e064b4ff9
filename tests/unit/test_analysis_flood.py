"""What a verdict makes of one tenant's flood: nothing that is held against the version, and no pass either (ADR 64)."""

from datetime import UTC, datetime, timedelta

import pytest

from hotswap.analysis import judge
from hotswap.analysis.histogram import bucket_of
from hotswap.domain.analysis import (
    FloodFigures,
    HostReport,
    MetricVerdict,
    NodeFigures,
    Outcome,
    Thresholds,
    Verdict,
    VersionFigures,
)

SINCE = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = SINCE + timedelta(minutes=2)
OLD, NEW = "1.0.0", "2.0.0"
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def verdict(*versions: VersionFigures) -> Verdict:
    hosts = tuple(HostReport(plugin="phone", version=version, state="Ready") for version in (OLD, NEW))
    node = NodeFigures(node_id="node-1", plugin="phone", since=SINCE, taken_at=NOW, versions=versions, hosts=hosts)
    return judge([node], (), NEW, OLD, Thresholds(), SINCE, NOW, 10)


def metric(given: Verdict, name: str) -> MetricVerdict:
    (found,) = [item for item in given.metrics if item.metric == name]
    return found


def counts(version: str, requests: int, errors: int = 0) -> VersionFigures:
    return VersionFigures(
        version=version, requests=requests, errors=errors, latency_buckets={bucket_of(10.0): requests}
    )


def flooded(turned_away: int, served: int, slow: int = 0) -> VersionFigures:
    """Of the new version: `slow` of its calls ran beside the flood and took ten seconds."""
    fast, late = bucket_of(10.0), bucket_of(10_000.0)
    return VersionFigures(
        version=NEW,
        requests=served + turned_away,
        errors=turned_away,
        failures=turned_away,
        latency_buckets={fast: served - slow, late: slow},
        flood=FloodFigures(turned_away=turned_away, latency_buckets={late: slow}),
    )


def test_a_flood_however_large_never_fails_a_version_and_a_large_one_does_not_let_it_pass() -> None:
    large = verdict(flooded(1_000_000, 500, slow=400), counts(OLD, 4_500))
    assert large.outcome is INCONCLUSIVE
    assert {item.metric for item in large.metrics if item.outcome is not PASS} == {"flooded"}
    assert large.reason.startswith(
        "flooded: 99.95 % of 1,000,500 requests of 2.0.0 were turned away because one tenant"
    )
    small = verdict(flooded(20, 500, slow=400), counts(OLD, 4_500))
    assert small.outcome is PASS
    assert metric(small, "flooded").estimate == pytest.approx(20 / 520)


def test_beside_a_flood_a_version_fails_by_what_is_its_own() -> None:
    broken = flooded(1_000, 500).model_copy(update={"errors": 1_100})
    given = verdict(broken, counts(OLD, 4_500))
    assert given.outcome is FAIL
    assert metric(given, "error-rate").estimate == pytest.approx(100 / 500)


def test_a_flood_of_the_old_version_does_not_make_it_a_worse_one_to_beat() -> None:
    old = flooded(4_000, 4_500).model_copy(update={"version": OLD})
    given = verdict(counts(NEW, 1_000, errors=40), old)
    assert metric(given, "error-rate-vs-baseline").baseline_estimate == 0
