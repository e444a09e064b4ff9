"""What the doctor found: findings with their remedy, and which checks were made. Pure.

Neighbours: hotswap.doctor.examine fills it, hotswap.doctor.__main__ prints it.
"""

from enum import StrEnum

from hotswap.domain.base import Instant, Model

MOST_OF_A_KIND = 20
"""Findings of one check told one by one; the rest is counted. A bucket that is gone is one fact, not 50,000."""


class Severity(StrEnum):
    CRITICAL = "critical"
    """Something does not work, or will not when it is needed. Act now."""
    WARNING = "warning"
    """Works, and somebody would want to know. Act soon."""
    NOTE = "note"
    """Worth knowing; the installation counts as healthy."""


class Finding(Model):
    check: str = ""
    """The check's name, which hotswap.doctor.examine writes in."""
    severity: Severity
    what: str
    why: str
    remedy: str


class CheckState(StrEnum):
    DONE = "done"
    SKIPPED = "skipped"
    """By --skip, or because a check that it needs found something critical."""


class CheckResult(Model):
    name: str
    about: str
    state: CheckState
    detail: str = ""


class Report(Model):
    taken_at: Instant
    checks: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        return all(finding.severity is Severity.NOTE for finding in self.findings)


def bounded_findings(findings: list[Finding]) -> list[Finding]:
    """The first MOST_OF_A_KIND, worst first, and one that counts the rest."""
    order = list(Severity)
    ranked = sorted(findings, key=lambda finding: order.index(finding.severity))
    if len(ranked) <= MOST_OF_A_KIND:
        return ranked
    kept, rest = ranked[:MOST_OF_A_KIND], ranked[MOST_OF_A_KIND:]
    return [*kept, rest[0].model_copy(update={"what": f"and {len(rest)} more like these"})]
