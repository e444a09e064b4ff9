"""What each verdict is, and says, for figures that nodes really send: the usual ones and every awkward one."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hotswap.analysis import judge
from hotswap.analysis.histogram import LAST_BUCKET, bucket_of
from hotswap.domain.analysis import (
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


def counts(version: str, requests: int, errors: int = 0, ms: Mapping[float, int] | None = None) -> VersionFigures:
    """`ms` maps a latency to how many requests took it; by default all took 10 ms."""
    took = {10.0: requests} if ms is None else ms
    buckets = {bucket_of(latency): count for latency, count in took.items() if count}
    return VersionFigures(version=version, requests=requests, errors=errors, latency_buckets=buckets)


def host(version: str = NEW, **more: Any) -> HostReport:
    return HostReport(plugin="phone", version=version, **{"state": "Ready", **more})


def node(*versions: VersionFigures, name: str = "node-1", hosts: tuple[HostReport, ...] | None = None) -> NodeFigures:
    return NodeFigures(
        node_id=name,
        plugin="phone",
        since=SINCE,
        taken_at=NOW,
        versions=versions,
        hosts=(host(), host(OLD)) if hosts is None else hosts,
    )


def verdict(
    *figures: NodeFigures,
    silent: tuple[str, ...] = (),
    baseline: str | None = OLD,
    limits: Thresholds | None = None,
    weight: int = 10,
) -> Verdict:
    return judge(figures, silent, NEW, baseline, limits or Thresholds(), SINCE, NOW, weight)


def metric(given: Verdict, name: str) -> MetricVerdict:
    (found,) = [item for item in given.metrics if item.metric == name]
    return found


def outcomes(given: Verdict) -> dict[str, Outcome]:
    return {item.metric: item.outcome for item in given.metrics}


HEALTHY = node(counts(NEW, 500), counts(OLD, 4_500, errors=9))


def test_a_healthy_version_passes_with_evidence() -> None:
    given = verdict(HEALTHY)
    assert given.outcome is PASS
    assert set(outcomes(given).values()) == {PASS}
    assert list(outcomes(given)) == [
        "crashes",
        "probes",
        "error-rate",
        "success-rate",
        "error-rate-vs-baseline",
        "latency-p99",
        "latency-vs-baseline",
    ]
    assert given.reason == "500 requests of 2.0.0 (beside 4,500 of 1.0.0) are within every limit"
    assert (given.candidate_requests, given.baseline_requests, given.actual_weight_percent) == (500, 4_500, 10)
    assert (given.nodes_heard, given.nodes_silent) == (("node-1",), ())
    assert (given.taken_at, given.window) == (NOW, timedelta(minutes=2))
    for item in given.metrics[2:]:
        assert item.estimate is not None
        assert item.lower is not None
        assert item.upper is not None
        assert item.lower <= item.estimate <= item.upper
        assert item.threshold is not None
        assert item.n == 500


def test_a_failing_version_fails_and_says_how_badly() -> None:
    given = verdict(node(counts(NEW, 104, errors=31), counts(OLD, 900)))
    assert given.outcome is FAIL
    assert outcomes(given) == {
        "crashes": PASS,
        "probes": PASS,
        "error-rate": FAIL,
        "success-rate": FAIL,
        "error-rate-vs-baseline": FAIL,
        "latency-p99": PASS,
        "latency-vs-baseline": PASS,
    }
    rate, success = metric(given, "error-rate"), metric(given, "success-rate")
    assert rate.explanation == (
        "31 of 104 requests of 2.0.0 failed (29.8 %, at least 14.9 % with 95 % confidence at any time); allowed 5 %"
    )
    assert success.explanation == (
        "73 of 104 requests of 2.0.0 succeeded (70.2 %, at most 85.1 % with 95 % confidence at any time); required 95 %"
    )
    assert metric(given, "error-rate-vs-baseline").baseline_estimate == 0
    assert given.reason.startswith("error-rate: 31 of 104 requests of 2.0.0 failed")
    assert "success-rate: " in given.reason
    assert rate.lower is not None
    assert success.upper == pytest.approx(1 - rate.lower), "one bound, told from both sides"


@pytest.mark.parametrize(
    ("errors", "of", "outcome"),
    [
        (0, 0, INCONCLUSIVE),
        (0, 49, INCONCLUSIVE),
        (49, 49, INCONCLUSIVE),
        (0, 50, PASS),
        (50, 50, FAIL),
        (5, 100, PASS),
        (6, 100, INCONCLUSIVE),
        (50, 1_000, PASS),
        (51, 1_000, INCONCLUSIVE),
        (100, 1_000, FAIL),
        (60, 50, FAIL),
    ],
)
def test_error_rate_at_its_edges(errors: int, of: int, outcome: Outcome) -> None:
    given = verdict(node(counts(NEW, of, errors=errors)), baseline=None)
    assert metric(given, "error-rate").outcome is outcome
    assert metric(given, "success-rate").outcome is outcome


def test_success_rate_has_a_limit_of_its_own() -> None:
    given = verdict(node(counts(NEW, 1_000, errors=30)), baseline=None, limits=Thresholds(min_success_rate=0.999))
    assert outcomes(given)["error-rate"] is PASS
    assert outcomes(given)["success-rate"] is FAIL
    assert given.outcome is FAIL


def test_limits_of_zero_and_one_can_be_met() -> None:
    strict = Thresholds(max_error_rate=0, min_success_rate=1, max_error_rate_increase=0)
    assert verdict(node(counts(NEW, 500), counts(OLD, 500)), limits=strict).outcome is PASS
    assert outcomes(verdict(node(counts(NEW, 500, errors=1), counts(OLD, 500)), limits=strict))["error-rate"] is FAIL


@pytest.mark.parametrize(
    ("new", "old", "outcome"),
    [
        pytest.param((4, 100), (3, 100), PASS, id="exactly-the-margin-is-allowed"),
        pytest.param((5, 100), (3, 100), INCONCLUSIVE, id="beyond-but-not-beyond-doubt"),
        pytest.param((300, 10_000), (100, 10_000), INCONCLUSIVE, id="1-to-3-percent-on-10000-is-not-yet-sure"),
        pytest.param((600, 20_000), (200, 20_000), FAIL, id="1-to-3-percent-on-20000-is"),
        pytest.param((400, 10_000), (400, 10_000), PASS, id="equally-bad"),
        pytest.param((0, 10_000), (400, 10_000), PASS, id="better"),
        pytest.param((20, 60), (0, 49), INCONCLUSIVE, id="too-few-of-the-old"),
        pytest.param((20, 49), (0, 5_000), INCONCLUSIVE, id="too-few-of-the-new"),
        pytest.param((0, 500), (0, 0), INCONCLUSIVE, id="old-arm-empty"),
        pytest.param((0, 0), (0, 500), INCONCLUSIVE, id="new-arm-empty"),
        pytest.param((0, 0), (0, 0), INCONCLUSIVE, id="no-traffic"),
    ],
)
def test_error_rate_against_the_version_in_place(new: tuple[int, int], old: tuple[int, int], outcome: Outcome) -> None:
    given = verdict(node(counts(NEW, new[1], errors=new[0]), counts(OLD, old[1], errors=old[0])))
    assert metric(given, "error-rate-vs-baseline").outcome is outcome
    assert given.outcome is not PASS or outcome is PASS


def test_a_baseline_that_is_bad_itself_does_not_excuse_the_absolute_limit() -> None:
    given = verdict(node(counts(NEW, 1_000, errors=200), counts(OLD, 9_000, errors=1_800)))
    assert outcomes(given)["error-rate-vs-baseline"] is PASS
    assert outcomes(given)["error-rate"] is FAIL
    assert given.outcome is FAIL


@pytest.mark.parametrize(
    ("slow", "of", "outcome"),
    [
        (0, 0, INCONCLUSIVE),
        (0, 49, INCONCLUSIVE),
        (0, 50, PASS),
        (1, 100, PASS),
        (2, 100, INCONCLUSIVE),
        (30, 100, FAIL),
        (49, 49, INCONCLUSIVE),
    ],
)
def test_p99_is_judged_by_the_share_of_slow_requests(slow: int, of: int, outcome: Outcome) -> None:
    given = verdict(node(counts(NEW, of, ms={20.0: of - slow, 900.0: slow})), baseline=None)
    assert metric(given, "latency-p99").outcome is outcome


def test_p99_names_its_milliseconds() -> None:
    given = metric(verdict(node(counts(NEW, 200, ms={20.0: 140, 900.0: 60}))), "latency-p99")
    assert given.explanation.startswith("60 of 200 requests of 2.0.0 (p99 9")
    assert "took longer than 500 ms (30 %, at least " in given.explanation
    assert given.explanation.endswith("allowed 1 %")


@pytest.mark.parametrize(
    ("new", "old", "outcome"),
    [
        pytest.param({10.0: 1_000}, {10.0: 9_000}, PASS, id="same"),
        pytest.param({19.0: 1_000}, {10.0: 9_000}, PASS, id="less-than-twice"),
        pytest.param({30.0: 1_000}, {10.0: 9_000}, FAIL, id="three-times"),
        pytest.param({10.0: 960, 30.0: 40}, {10.0: 9_000}, FAIL, id="slow-tail"),
        pytest.param({10.0: 990, 30.0: 10}, {10.0: 9_000}, PASS, id="1-percent-slow"),
        pytest.param({10.0: 980, 30.0: 20}, {10.0: 9_000}, INCONCLUSIVE, id="2-percent-slow-on-1000"),
        pytest.param({30.0: 1_000}, {10.0: 300}, INCONCLUSIVE, id="baseline-too-small-for-a-bound-on-its-p99"),
        pytest.param({0.9: 1_000}, {0.2: 9_000}, PASS, id="a-millisecond-more-is-no-regression"),
        pytest.param({30.0: 49}, {10.0: 9_000}, INCONCLUSIVE, id="too-few-of-the-new"),
        pytest.param({10.0: 500}, {10.0: 49}, INCONCLUSIVE, id="too-few-of-the-old"),
        pytest.param({}, {10.0: 500}, INCONCLUSIVE, id="new-arm-empty"),
        pytest.param({10.0: 500}, {}, INCONCLUSIVE, id="old-arm-empty"),
        pytest.param({700_000.0: 500}, {700_000.0: 9_000}, PASS, id="both-beyond-the-last-bucket"),
    ],
)
def test_latency_against_the_version_in_place(new: dict[float, int], old: dict[float, int], outcome: Outcome) -> None:
    given = verdict(node(counts(NEW, sum(new.values()), ms=new), counts(OLD, sum(old.values()), ms=old)))
    assert metric(given, "latency-vs-baseline").outcome is outcome


def test_ratio_of_latency_is_a_setting() -> None:
    figures = node(counts(NEW, 1_000, ms={20.5: 1_000}), counts(OLD, 9_000, ms={10.0: 9_000}))
    for ratio, outcome in ((1.5, FAIL), (2.5, PASS)):
        given = verdict(figures, limits=Thresholds(max_latency_ratio=ratio))
        assert outcomes(given)["latency-vs-baseline"] is outcome


@pytest.mark.parametrize(("failures", "outcome"), [((0, 0), PASS), ((2, 2), PASS), ((0, 3), FAIL), ((4, 0), FAIL)])
def test_probes_fail_at_once_on_any_node_without_any_traffic(failures: tuple[int, int], outcome: Outcome) -> None:
    given = verdict(
        *[
            node(name=f"node-{index}", hosts=(host(probe_failures=failed, last_error="not ready"), host(OLD)))
            for index, failed in enumerate(failures)
        ]
    )
    assert metric(given, "probes").outcome is outcome
    assert given.outcome is (FAIL if outcome is FAIL else INCONCLUSIVE)
    if outcome is FAIL:
        worst = failures.index(max(failures))
        assert given.reason == (
            f"probes: the host on node-{worst} failed {max(failures)} probes in a row; 3 are too many (not ready)"
        )


@pytest.mark.parametrize(
    ("hosts", "outcome"),
    [
        pytest.param([host()] * 3, PASS, id="all-live"),
        pytest.param([host(state="Crashed")] + [host()] * 3, FAIL, id="one-of-four"),
        pytest.param([host(crashes=1)] + [host()] * 3, FAIL, id="one-of-four-live-again"),
        pytest.param([host(state="Crashed")] + [host()] * 4, PASS, id="one-of-five-is-20-percent"),
        pytest.param([host(OLD, crashes=9)] + [host()] * 3, PASS, id="the-old-version-crashes"),
        pytest.param([host(state="Stopped")] * 4 + [host()], PASS, id="stopped-on-purpose"),
        pytest.param([host(state="Stopped", crashes=2), host()], FAIL, id="stopped-after-crashing"),
        pytest.param([host(OLD)], INCONCLUSIVE, id="no-host-of-the-new"),
        pytest.param([], INCONCLUSIVE, id="no-host"),
    ],
)
def test_crashes_are_a_share_of_the_new_versions_hosts(hosts: list[HostReport], outcome: Outcome) -> None:
    given = verdict(*[node(name=f"node-{index}", hosts=(one,)) for index, one in enumerate(hosts)] or [node(hosts=())])
    assert metric(given, "crashes").outcome is outcome
    assert (given.outcome is FAIL) is (outcome is FAIL)


def test_probes_of_the_old_version_do_not_count() -> None:
    given = verdict(node(counts(NEW, 500), counts(OLD, 500), hosts=(host(), host(OLD, probe_failures=9))))
    assert given.outcome is PASS


def test_no_node_answering_is_inconclusive_and_says_so() -> None:
    given = verdict(silent=("node-1", "node-2"))
    assert given.outcome is INCONCLUSIVE
    assert given.reason == "no node answered (node-1, node-2), so nothing is known"
    assert given.actual_weight_percent is None
    assert (given.nodes_heard, given.nodes_silent) == ((), ("node-1", "node-2"))
    for weight, baseline in ((100, OLD), (10, None)):
        assert verdict(silent=("node-1",), weight=weight, baseline=baseline).outcome is INCONCLUSIVE


def test_no_node_at_all_is_inconclusive() -> None:
    given = verdict()
    assert (given.outcome, given.reason) == (INCONCLUSIVE, "there is no node to ask")


def test_one_silent_node_of_three_is_named_but_does_not_block() -> None:
    given = verdict(HEALTHY, HEALTHY.model_copy(update={"node_id": "node-2"}), silent=("node-3",))
    assert given.outcome is PASS
    assert given.reason.endswith("within every limit; node-3 did not answer")


def test_a_pass_needs_more_nodes_heard_than_silent_but_a_fail_does_not() -> None:
    given = verdict(HEALTHY, silent=("node-2",))
    assert given.outcome is INCONCLUSIVE
    assert given.reason == "only 1 of 2 nodes answered, too few to pass; node-2 did not answer"
    assert verdict(node(counts(NEW, 100, errors=90)), silent=("node-2", "node-3")).outcome is FAIL


def test_zero_traffic_is_inconclusive() -> None:
    given = verdict(node())
    assert given.outcome is INCONCLUSIVE
    assert given.actual_weight_percent is None
    assert given.reason == (
        "error-rate: no requests yet; allowed 5 %; also inconclusive: success-rate, error-rate-vs-baseline, "
        "latency-p99, latency-vs-baseline"
    )


def test_zero_errors_on_few_requests_is_inconclusive() -> None:
    given = verdict(node(counts(NEW, 12), counts(OLD, 108)))
    assert given.outcome is INCONCLUSIVE
    assert metric(given, "error-rate").explanation == (
        "0 of 12 requests of 2.0.0 failed: too few to tell, 50 are needed; allowed 5 %"
    )


def test_a_doubtful_rate_says_that_it_is_doubtful() -> None:
    given = verdict(node(counts(NEW, 60, errors=5)), baseline=None)
    assert metric(given, "error-rate").explanation.startswith("5 of 60 requests of 2.0.0 failed (8.33 %, at least ")
    assert "beyond the limit, but not beyond doubt; allowed 5 %" in given.reason


@pytest.mark.parametrize(
    ("baseline", "weight", "why"),
    [
        (None, 10, "not applicable: there is no earlier version to compare with"),
        (None, 100, "not applicable: there is no earlier version to compare with"),
        (OLD, 100, "not applicable: at 100 % no tenant is left on 1.0.0 to compare with"),
    ],
)
def test_comparison_that_the_plan_rules_out_neither_blocks_nor_counts(
    baseline: str | None, weight: int, why: str
) -> None:
    given = verdict(node(counts(NEW, 500)), baseline=baseline, weight=weight)
    assert given.outcome is PASS
    for name in ("error-rate-vs-baseline", "latency-vs-baseline"):
        item = metric(given, name)
        assert (item.outcome, item.explanation, item.estimate, item.threshold) == (PASS, why, None, None)
    empty = verdict(node(), baseline=baseline, weight=weight)
    assert empty.outcome is INCONCLUSIVE, "a comparison that does not apply is no substitute for data"


def test_pinned_tenants_left_on_the_old_version_at_100_percent_are_no_fair_baseline() -> None:
    given = verdict(node(counts(NEW, 5_000, errors=150), counts(OLD, 5_000)), weight=100)
    assert metric(given, "error-rate-vs-baseline").outcome is PASS
    assert metric(given, "error-rate-vs-baseline").baseline_n == 5_000


def test_all_nodes_are_added_up() -> None:
    given = verdict(*[node(counts(NEW, 20, errors=1), counts(OLD, 60), name=f"node-{index}") for index in range(3)])
    item = metric(given, "error-rate")
    assert (item.n, item.estimate) == (60, 0.05)
    assert (given.candidate_requests, given.baseline_requests, given.actual_weight_percent) == (60, 180, 25)


def test_actual_weight_counts_every_version_that_served() -> None:
    given = verdict(node(counts(NEW, 100), counts(OLD, 200), counts("0.9.0", 100)))
    assert given.actual_weight_percent == 25


def test_figures_that_make_no_sense_do_not_stop_the_judge() -> None:
    odd = VersionFigures(
        version=NEW, requests=100, errors=0, latency_buckets={-5: 30, LAST_BUCKET + 9: 40, 3: -10, 4: 0}
    )
    given = verdict(node(odd, counts(OLD, 500)))
    assert metric(given, "latency-p99").n == 70
    assert metric(given, "latency-p99").outcome is FAIL, "beyond the last bucket is slow, not fast"
    assert judge((), (), NEW, OLD, Thresholds(), NOW, SINCE, 10).window == timedelta(0)


def test_worst_outcome_wins() -> None:
    given = verdict(node(counts(NEW, 10), hosts=(host(probe_failures=3),)))
    assert outcomes(given)["error-rate"] is INCONCLUSIVE
    assert outcomes(given)["crashes"] is PASS
    assert given.outcome is FAIL


def test_a_verdict_survives_json_and_stays_small() -> None:
    noisy = host(probe_failures=5, last_error="x" * 5_000)
    given = verdict(node(counts(NEW, 900, errors=800), counts(OLD, 900), hosts=(noisy,) * 20))
    text = given.model_dump_json()
    assert Verdict.model_validate_json(text) == given
    assert len(text) < 8_000
