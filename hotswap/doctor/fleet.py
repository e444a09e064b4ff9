"""Checks of the data plane: nodes that are away, what they run compared with the routes, and how they isolate plugins."""

from collections.abc import Sequence
from datetime import timedelta

from activities.drift import DriftComparison
from hotswap.doctor.report import Finding, Severity
from hotswap.doctor.site import Site
from hotswap.domain.deployment import Environment
from hotswap.domain.drift import FORGOTTEN_AFTER, STALE_AFTER, DriftItem, DriftKind, DriftReport
from hotswap.domain.errors import SandboxUnavailable
from hotswap.domain.registry import NodeRecord
from hotswap.runtime.launcher import ZygoteLauncher

OLD_REPORT = timedelta(minutes=5)
"""The worker's watch compares every minute by default."""

TIERS = ("none", "standard", "strong")
"""From weak to strong."""


async def nodes(site: Site) -> Sequence[Finding]:
    """Every environment that somebody deployed to has nodes, and those on record live."""
    findings: list[Finding] = []
    async with site.database.unit_of_work() as uow:
        now = await uow.now()
        for environment in Environment:
            known = await uow.nodes.list(environment, FORGOTTEN_AFTER)
            alive = [node for node in known if now - node.last_seen_at <= STALE_AFTER]
            findings += [_away(node, now - node.last_seen_at) for node in known if node not in alive]
            served = len(await uow.routes.desired(environment))
            if served and not alive:
                findings.append(
                    Finding(
                        severity=Severity.CRITICAL,
                        what=f"{environment} has routes of {served} plugins and no node that lives",
                        why="nobody serves its tenants",
                        remedy="start its nodes (`python -m hotswap.node`); docs/runbooks/node-lost.md",
                    )
                )
    return findings


async def drift(site: Site) -> Sequence[Finding]:
    """What living nodes run: asked of themselves now, or without their token as the worker's watch saw it last."""
    findings: list[Finding] = []
    for environment in Environment:
        if site.nodes is not None:
            report: DriftReport | None = await DriftComparison(site.database.unit_of_work, site.nodes).report(
                environment
            )
        else:
            async with site.database.unit_of_work() as uow:
                report = await uow.drift.last(environment)
                now = await uow.now()
                alive = await uow.nodes.list(environment, STALE_AFTER)
            old = report is None or now - report.taken_at > max(OLD_REPORT, 3 * site.settings.drift.interval)
            if old and alive:
                findings.append(_not_compared(environment, report))
        findings += [
            _different(item, environment)
            for item in (report.unexplained if report is not None else ())
            if item.kind is not DriftKind.STALE_NODE or item.found.startswith("no answer")
        ]
    return findings


async def sandbox(site: Site) -> Sequence[Finding]:
    """The tier that nodes report, and whether this machine can give the one that is set (trials run on a worker)."""
    wanted = site.settings.sandbox.tier
    findings: list[Finding] = []
    async with site.database.unit_of_work() as uow:
        known = await uow.nodes.list(None, STALE_AFTER)
    for node in known:
        if node.sandbox_tier == "none":
            findings.append(
                Finding(
                    severity=Severity.CRITICAL if node.environment is Environment.PRODUCTION else Severity.WARNING,
                    what=f"{node.node_id} ({node.environment}) runs plugins without isolation (tier none)",
                    why="a plugin there can read other tenants' data and the node's own secrets",
                    remedy="set HOTSWAP_SANDBOX__TIER=standard on the node and start it again; docs/isolation.md",
                )
            )
        elif node.sandbox_tier in TIERS and TIERS.index(node.sandbox_tier) < TIERS.index(wanted):
            findings.append(
                Finding(
                    severity=Severity.WARNING,
                    what=f"{node.node_id} ({node.environment}) isolates by tier {node.sandbox_tier}, not {wanted}",
                    why="trials run under the tier that is set here, so they prove something else than what serves",
                    remedy=f"set HOTSWAP_SANDBOX__TIER={wanted} on the node and start it again",
                )
            )
    launcher = ZygoteLauncher(wanted, site.settings.sandbox.max_memory_mb)
    try:
        await launcher.start()
    except SandboxUnavailable as fault:
        findings.append(
            Finding(
                severity=Severity.CRITICAL,
                what=f"sandbox tier {wanted} does not hold on this machine: {fault.message}",
                why="a worker or node here runs no trial and no plugin",
                remedy="give it what the message names (docs/isolation.md), set a tier that it can give, or leave this "
                "out with --skip sandbox where neither worker nor node runs",
            )
        )
    finally:
        await launcher.close()
    return findings


def _away(node: NodeRecord, silent: timedelta) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        what=f"{node.node_id} ({node.environment}) has told nothing for {_span(silent)}",
        why="it takes no orders; the others of its environment carry its tenants",
        remedy="start it, or see why it cannot reach PostgreSQL (docs/runbooks/node-lost.md); one that will not come "
        "back is forgotten after a day",
    )


def _not_compared(environment: Environment, report: DriftReport | None) -> Finding:
    since = f"since {report.taken_at:%Y-%m-%d %H:%M} UTC" if report is not None else "yet"
    return Finding(
        severity=Severity.WARNING,
        what=f"nobody has compared what the nodes of {environment} run with its routes {since}",
        why="a node that serves another version than its route says would not be seen",
        remedy="see that a worker runs (it compares each HOTSWAP_DRIFT__INTERVAL), or set HOTSWAP_NODE__ADMIN_TOKEN here, "
        "as on the nodes, and the doctor asks them itself",
    )


def _different(item: DriftItem, environment: Environment) -> Finding:
    return Finding(
        severity=Severity.CRITICAL,
        what=f"{environment}: {item.text}",
        why="tenants on that node are not served as the routes say, and no running deployment explains it",
        remedy=f"`hotswap drift -e {environment} --repair -m REASON`, or start the node again: it then does what "
        "PostgreSQL says",
    )


def _span(silent: timedelta) -> str:
    seconds = silent.total_seconds()
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
