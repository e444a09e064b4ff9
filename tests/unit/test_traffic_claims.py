"""The demo's claims hold for a good story and each one fails for the story that breaks it."""

from dataclasses import replace

import pytest

from hotswap.demo.claims import Seen, judge
from hotswap.demo.report import TrafficReport
from hotswap.demo.summary import claim_lines, figure_lines, verdict_line, web_ui_url

TENANTS = 200
BAD_TENANTS = 20


def traffic() -> TrafficReport:
    """All 200 tenants go 1 -> 2 at 110; twenty of them meet 2.1.0 from 130 to 131."""
    report = TrafficReport(started_at=100, finished_at=140, requests=16_000, ok=15_950)
    report.plugin_errors["2.1.0"] = 50
    report.by_version.update({"1.0.0": 4000, "2.0.0": 11_900, "2.1.0": 100})
    for number in range(TENANTS):
        name = f"tenant-{number}"
        report.saw(name, "1.0.0", 101)
        report.saw(name, "2.0.0", 110)
        if number < BAD_TENANTS:
            report.saw(name, "2.1.0", 130)
            report.saw(name, "2.0.0", 131.5)
    report.latencies_ms = [1.0, 2.0, 3.0]
    return report


def story(report: TrafficReport | None = None) -> Seen:
    return Seen(
        versions=("1.0.0", "2.0.0", "2.1.0"),
        statuses=("Completed", "Completed", "RolledBack"),
        worker_pids=(10, 11),
        resumed_after=2.5,
        canary_began=105,
        bad_began=125,
        bad_verdict_at=131.0,
        bad_rolled_back_at=131.2,
        first_step_percent=10,
        traffic=report or traffic(),
    )


def broken(seen: Seen) -> list[str]:
    return [claim.text for claim in judge(seen) if not claim.ok]


def test_a_good_story_keeps_every_promise() -> None:
    assert broken(story()) == []
    assert all(line.startswith("ok") for line in claim_lines(judge(story())))


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        ({"statuses": ("RolledBack", "Completed", "RolledBack")}, "1.0.0 is live"),
        ({"statuses": ("Completed", "Paused", "RolledBack")}, "2.0.0 is live"),
        ({"statuses": ("Completed", "Completed", "Completed")}, "was taken back"),
        ({"resumed_after": None}, "SIGKILL"),
        ({"resumed_after": 31.0}, "SIGKILL"),
        ({"worker_pids": (10, 10)}, "SIGKILL"),
        ({"bad_rolled_back_at": None}, "right after the failing verdict"),
        ({"bad_verdict_at": None}, "right after the failing verdict"),
        ({"bad_rolled_back_at": 142.0}, "right after the failing verdict"),
        ({"first_step_percent": 1}, "never went beyond its first step"),
    ],
)
def test_each_promise_can_be_broken(change: dict[str, object], promise: str) -> None:
    wrong = broken(replace(story(), **change))  # type: ignore[arg-type]
    assert len(wrong) == 1
    assert promise in wrong[0]


def test_one_failed_request_breaks_the_promise_of_none() -> None:
    report = traffic()
    report.platform_failures["CONNECTION_LOST"] = 1
    (claim,) = [claim for claim in judge(story(report)) if not claim.ok]
    assert "no request failed" in claim.text
    assert "CONNECTION_LOST 1" in claim.figure


def test_no_traffic_is_no_success() -> None:
    assert len(broken(story(TrafficReport()))) >= 5


def test_an_error_of_a_good_version_is_not_excused() -> None:
    report = traffic()
    report.plugin_errors["2.0.0"] = 1
    assert broken(story(report)) == ["only the bad version's own code broke requests"]


def test_a_tenant_that_goes_back_during_the_canary_is_found() -> None:
    report = traffic()
    report.versions["tenant-150"] = [("1.0.0", 101), ("2.0.0", 108), ("1.0.0", 109), ("2.0.0", 110)]
    assert broken(story(report)) == ["no tenant went back and forth during the canary"]


def test_a_tenant_that_meets_the_bad_version_twice_is_found() -> None:
    report = traffic()
    report.versions["tenant-1"] += [("2.1.0", 132.0), ("2.0.0", 132.5)]
    assert broken(story(report)) == ["no tenant went back and forth during the rollback"]


def test_a_tenant_left_on_the_bad_version_is_found() -> None:
    report = traffic()
    report.versions["tenant-1"].pop()
    assert broken(story(report)) == ["in the end every tenant is on 2.0.0"]


def test_the_figures_are_all_there() -> None:
    text = "\n".join(figure_lines(story(), 41.5))
    for expected in ("16,000 of 200 tenants", "400 a second", "2.50 s", "0.20 s", "41 s", "50 (counted apart)"):
        assert expected in text


def test_the_web_ui_is_filtered_to_these_deployments() -> None:
    url = web_ui_url({"temporalUiUrl": "http://127.0.0.1:8233"}, "Staging", "phone-format")
    assert url == (
        "http://127.0.0.1:8233/namespaces/default/workflows?query="
        "HotSwapEnvironment%3D%22Staging%22%20AND%20HotSwapPlugin%3D%22phone-format%22"
    )


def test_the_verdict_is_a_sentence_that_names_the_exit_code() -> None:
    claims = judge(story())
    assert verdict_line(claims) == f"all {len(claims)} claims held (exit code 0)"
    claims = judge(replace(story(), statuses=("Completed", "Completed", "Completed")))
    assert verdict_line(claims) == f"1 of {len(claims)} claims did NOT hold (exit code 1)"
