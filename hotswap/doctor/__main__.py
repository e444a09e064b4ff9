"""`python -m hotswap.doctor` (also `hotswap doctor`): examines an installation and says what is wrong, why, and what mends it.

Composition root. Speaks to the servers themselves, by HOTSWAP_ settings: run it where the api's or the worker's are. Changes
nothing. Exit codes: 0 healthy, 1 findings, 2 usage.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from hotswap.config import SettingsInvalid, load_settings
from hotswap.doctor.catalog import CHECKS
from hotswap.doctor.examine import examine, settings_report
from hotswap.doctor.report import CheckState, Report, Severity
from hotswap.doctor.site import Site, now
from hotswap.domain.errors import HotSwapError

HEALTHY, FINDINGS, USAGE = 0, 1, 2


async def diagnose(deep: bool, skip: Sequence[str]) -> Report:
    """Examine the installation that the settings name."""
    try:
        settings = load_settings()
    except SettingsInvalid as fault:
        return settings_report([line.strip() for line in fault.message.splitlines()[1:]], now())
    try:
        site = Site.of(settings, deep=deep)
    except HotSwapError as fault:  # an URL that no driver can read
        return settings_report([fault.message], now())
    try:
        return await examine(site, CHECKS, skip)
    finally:
        await site.close()


def text_of(report: Report, verbose: bool) -> str:
    lines = []
    for finding in report.findings:
        lines += [
            f"{finding.severity.upper()}  {finding.check}: {_clean(finding.what)}",
            f"  why     {_clean(finding.why)}",
            f"  remedy  {_clean(finding.remedy)}",
            "",
        ]
    for check in report.checks:
        if check.state is CheckState.SKIPPED:
            lines.append(f"not checked: {check.name} ({check.about}): {check.detail}")
        elif verbose and not any(finding.check == check.name for finding in report.findings):
            lines.append(f"ok: {check.name} ({check.about})")
    counts = {severity: sum(one.severity is severity for one in report.findings) for severity in Severity}
    done = sum(check.state is CheckState.DONE for check in report.checks)
    told = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count)
    lines.append(f"{done} of {len(report.checks)} checks made: {told or 'nothing found'}")
    return "\n".join(lines)


def _clean(text: str) -> str:
    """Names and messages come from outside; they must not steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def main(arguments: list[str] | None = None) -> int:
    names = [check.name for check in CHECKS]
    parser = argparse.ArgumentParser(
        "hotswap doctor",
        description="Examine an installation by its settings (HOTSWAP_ variables). Changes nothing.",
        epilog="Exit code 0: healthy; 1: findings; 2: usage. Checks: " + ", ".join(names),
    )
    parser.add_argument("--deep", action="store_true", help="read every artifact through and compare its SHA-256")
    parser.add_argument("--json", action="store_true", dest="as_json", help="answer in JSON")
    parser.add_argument("--skip", action="append", default=[], choices=names, metavar="CHECK", help="leave a check out")
    parser.add_argument("--verbose", action="store_true", help="name the checks that found nothing, too")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as end:  # argparse's own code for wrong usage is 2 as well
        return int(end.code or 0)
    report = asyncio.run(diagnose(given.deep, given.skip))
    if given.as_json:
        print(report.model_dump_json(indent=2, by_alias=True))
    else:
        print(text_of(report, given.verbose))
    return HEALTHY if report.healthy else FINDINGS


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a short process can abort at exit inside the Temporal client (sdk-python #300)
