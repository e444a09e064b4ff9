"""Runs the checks in order: one that needs another is left out, and named, when that one found something critical."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from hotswap.doctor.report import CheckResult, CheckState, Finding, Report, Severity, bounded_findings
from hotswap.doctor.site import Site
from hotswap.domain.errors import HotSwapError


@dataclass(frozen=True, slots=True)
class Check:
    """`run` raises HotSwapError or ValidationError for what keeps it from looking: a finding like any other."""

    name: str
    about: str
    run: Callable[[Site], Awaitable[Sequence[Finding]]]
    needs: tuple[str, ...] = ()


async def examine(site: Site, checks: Sequence[Check], skip: Collection[str] = ()) -> Report:
    results: list[CheckResult] = []
    findings: list[Finding] = []
    unfit: dict[str, str] = dict.fromkeys(skip, "left out by --skip")
    for check in checks:
        why = unfit.get(check.name) or _needs_more(check, unfit)
        if why:
            unfit[check.name] = why
            results.append(CheckResult(name=check.name, about=check.about, state=CheckState.SKIPPED, detail=why))
            continue
        found = await _run(check, site)
        if any(finding.severity is Severity.CRITICAL for finding in found):
            unfit[check.name] = "found something critical"
        results.append(CheckResult(name=check.name, about=check.about, state=CheckState.DONE))
        findings += found
    return Report(taken_at=site.clock(), checks=tuple(results), findings=tuple(findings))


def settings_report(lines: Sequence[str], at: datetime) -> Report:
    """Of an installation whose settings cannot be read: nothing else can be looked at."""
    findings = [
        Finding(
            check="settings",
            severity=Severity.CRITICAL,
            what=line,
            why="no part of HotSwap starts with these settings, and nothing else could be looked at",
            remedy="correct it (every setting: .env.example), then run the doctor again",
        )
        for line in lines
    ]
    check = CheckResult(name="settings", about="settings", state=CheckState.DONE)
    return Report(taken_at=at, checks=(check,), findings=tuple(findings))


def _needs_more(check: Check, unfit: dict[str, str]) -> str:
    missing = [name for name in check.needs if name in unfit]
    return f"needs {' and '.join(missing)} first" if missing else ""


async def _run(check: Check, site: Site) -> list[Finding]:
    try:
        found = bounded_findings(list(await check.run(site)))
    except (HotSwapError, ValidationError) as fault:
        said = fault.message if isinstance(fault, HotSwapError) else f"a row cannot be read: {fault.errors()[0]['msg']}"
        found = [
            Finding(
                severity=Severity.CRITICAL,
                what=f"{check.about} could not be looked at: {said}",
                why="what is not looked at may be broken",
                remedy="mend what the message names, then run the doctor again",
            )
        ]
    return [finding.model_copy(update={"check": check.name}) for finding in found]
