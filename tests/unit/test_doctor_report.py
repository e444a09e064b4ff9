"""The doctor without servers: wrong settings are findings, exit codes, what it prints, and how checks depend on one another."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import pytest
from typer.testing import CliRunner

from hotswap.cli.main import app
from hotswap.doctor.__main__ import main, text_of
from hotswap.doctor.catalog import CHECKS
from hotswap.doctor.examine import Check, examine
from hotswap.doctor.report import MOST_OF_A_KIND, CheckResult, CheckState, Finding, Report, Severity, bounded_findings
from hotswap.doctor.site import Site
from hotswap.domain.errors import Unavailable


class FakeSite:
    def clock(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


SITE = cast(Site, FakeSite())


def finding(severity: Severity = Severity.CRITICAL, what: str = "w", check: str = "") -> Finding:
    return Finding(check=check, severity=severity, what=what, why="y", remedy="r")


def report(*findings: Finding) -> Report:
    check = CheckResult(name="c", about="a", state=CheckState.DONE)
    return Report(taken_at=SITE.clock(), checks=(check,), findings=findings)


async def nothing(site: Site) -> Sequence[Finding]:
    return []


async def critical(site: Site) -> Sequence[Finding]:
    return [finding()]


async def away(site: Site) -> Sequence[Finding]:
    raise Unavailable("the server is gone")


async def test_a_check_is_left_out_when_one_it_needs_found_something_critical() -> None:
    checks = (Check("a", "a", critical), Check("b", "b", nothing, ("a",)), Check("c", "c", nothing, ("b",)))
    told = await examine(SITE, checks)
    assert [(one.name, one.state) for one in told.checks] == [("a", "done"), ("b", "skipped"), ("c", "skipped")]
    assert len(told.findings) == 1


async def test_a_finding_bears_the_name_of_the_check_that_found_it() -> None:
    told = await examine(SITE, (Check("a", "the a", critical), Check("b", "the b", away)))
    assert [one.check for one in told.findings] == ["a", "b"]


async def test_what_cannot_be_looked_at_is_a_finding_and_the_next_check_goes_on() -> None:
    told = await examine(SITE, (Check("a", "the a", away), Check("b", "b", nothing)))
    assert "the a could not be looked at: the server is gone" in told.findings[0].what
    assert told.checks[1].state is CheckState.DONE


async def test_what_was_skipped_by_hand_is_named_and_what_needs_it_too() -> None:
    told = await examine(SITE, (Check("a", "a", critical), Check("b", "b", nothing, ("a",))), skip=["a"])
    assert [one.detail for one in told.checks] == ["left out by --skip", "needs a first"]
    assert told.findings == ()


def test_notes_alone_are_healthy() -> None:
    assert report(finding(Severity.NOTE)).healthy
    assert not report(finding(Severity.NOTE), finding(Severity.WARNING)).healthy


def test_many_findings_of_a_kind_are_counted_and_the_worst_are_told() -> None:
    many = [finding(Severity.WARNING, f"w{number}") for number in range(100)] + [finding(what="worst")]
    told = bounded_findings(many)
    assert len(told) == MOST_OF_A_KIND + 1
    assert told[0].what == "worst"
    assert told[-1].what == f"and {101 - MOST_OF_A_KIND} more like these"


def test_text_says_what_why_and_remedy_and_no_name_steers_the_terminal() -> None:
    told = text_of(report(finding(what="node \x1b[2J gone", check="c")), verbose=False)
    assert told.splitlines()[:3] == ["CRITICAL  c: node  [2J gone", "  why     y", "  remedy  r"]
    assert told.endswith("1 of 1 checks made: 1 critical")


def test_every_check_that_is_needed_comes_before() -> None:
    seen: set[str] = set()
    for check in CHECKS:
        assert set(check.needs) <= seen, check.name
        seen.add(check.name)


def test_an_unknown_check_is_a_usage_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--skip", "nonsense"]) == 2
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err


def test_the_command_reports_wrong_settings_as_findings(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `hotswap doctor`, which starts a process of its own."""
    monkeypatch.setenv("HOTSWAP_POSTGRES__POOL_SIZE", "0")
    for name in ("HOTSWAP_POSTGRES__URL", "HOTSWAP_REDIS__URL"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    document = json.loads(capfd.readouterr().out)
    whats = [one["what"] for one in document["findings"]]
    assert "HOTSWAP_REDIS__URL is not set" in whats
    assert any(what.startswith("HOTSWAP_POSTGRES__POOL_SIZE") for what in whats)
    assert {one["severity"] for one in document["findings"]} == {"critical"}
    assert all(one["remedy"] for one in document["findings"])
