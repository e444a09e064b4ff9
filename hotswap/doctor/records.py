"""Checks of the record: rollouts that need a person, records and workflows that disagree, freezes left on, the audit."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from hotswap import temporal
from hotswap.adapters.postgres.inspection import OpenDeployment
from hotswap.doctor.report import Finding, Severity
from hotswap.doctor.site import Site
from hotswap.domain.errors import Unavailable
from hotswap.domain.freeze import Freeze, FreezeKind, Once

MOST_ASKED = 1_000
"""Unfinished deployments whose workflow is asked for; the platform aims at 10,000 paused ones, and the oldest come first."""

ASKED_AT_ONCE = 20

SETTLES_WITHIN = timedelta(minutes=2)
"""The record follows its workflow, retried while PostgreSQL is away: younger differences are on their way."""

LEFT_ON_AFTER = timedelta(hours=24)


async def failed(site: Site) -> Sequence[Finding]:
    async with site.database.inspection() as looking:
        deployments = await looking.failed_last()
    return [
        Finding(
            severity=Severity.CRITICAL,
            what=f"{_named(one)} ended Failed: {one.error or 'no reason on record'}",
            why="even its undo could not finish: tenants may be on a version that nobody wants",
            remedy=f"`hotswap status {one.deployment_id}` says what a person must do; then deploy the good version "
            "(docs/runbooks/deployment-failure.md). The next rollout there that ends clears this",
        )
        for one in deployments
    ]


async def workflows(site: Site) -> Sequence[Finding]:
    """Unfinished by the record means running in Temporal, and the other way round."""
    client = await site.temporal()
    async with site.database.inspection() as looking:
        unfinished = await looking.unfinished(MOST_ASKED)
        now = await looking.now()
    settled = [one for one in unfinished if now - one.requested_at > SETTLES_WITHIN]
    places = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(one: OpenDeployment) -> Finding | None:
        async with places:
            state = await _state(client, one)
        return None if state == "running" else _lost(one, state)

    findings = [finding for finding in await asyncio.gather(*(ask(one) for one in settled)) if finding is not None]
    return [*findings, *await _unrecorded(site, client)]


async def _state(client: Client, one: OpenDeployment) -> str:
    """ "running", how it ended, or "unknown to Temporal". By id alone: a long run goes on under other run ids."""
    try:
        told = await client.get_workflow_handle(one.workflow_id).describe()
    except RPCError as fault:
        if fault.status == RPCStatusCode.NOT_FOUND:
            return "unknown to Temporal"
        raise Unavailable(f"Temporal does not tell of {one.workflow_id}: {fault.message}") from fault
    if told.status == WorkflowExecutionStatus.RUNNING:
        return "running"
    return told.status.name.lower().replace("_", " ") if told.status is not None else "unknown to Temporal"


def _lost(one: OpenDeployment, state: str) -> Finding:
    return Finding(
        severity=Severity.CRITICAL,
        what=f"{_named(one)} is {one.status} on record, but its workflow {one.workflow_id} is {state}",
        why="nothing carries it on: its step stays as it is, and nothing is undone (a terminated workflow undoes nothing)",
        remedy=f"look at the route (`hotswap drift -e {one.environment}`), then deploy the version that you want there "
        "with --strategy direct; docs/runbooks/temporal-down.md, step 5",
    )


async def _unrecorded(site: Site, client: Client) -> list[Finding]:
    queue = site.settings.temporal.task_queue
    running: dict[str, str] = {}
    query = (
        f"TaskQueue = '{queue}' AND ExecutionStatus = 'Running' AND {temporal.DEPLOYMENT.name} IS NOT NULL "
        "AND WorkflowType IN ('DirectDeployment', 'RollingDeployment', 'CanaryDeployment', 'BlueGreenDeployment', "
        "'ABTestDeployment')"
    )
    try:
        async for one in client.list_workflows(query, limit=MOST_ASKED):
            deployment = one.typed_search_attributes.get(temporal.DEPLOYMENT)
            if deployment and site.clock() - one.start_time > SETTLES_WITHIN:
                running[deployment] = one.id
    except RPCError as fault:
        raise Unavailable(f"Temporal does not list workflows: {fault.message}") from fault
    async with site.database.inspection() as looking:
        known = await looking.known_deployments(sorted(running))
    return [
        Finding(
            severity=Severity.CRITICAL,
            what=f"workflow {running[deployment]} runs {deployment}, of which PostgreSQL has no record",
            why="PostgreSQL was restored from before it began, or another installation polls the same task queue: it "
            "moves routes that this record does not explain",
            remedy=f"let it end, or `temporal workflow cancel --workflow-id {running[deployment]}` (never terminate); two "
            "installations need HOTSWAP_TEMPORAL__TASK_QUEUE of their own",
        )
        for deployment in sorted(running.keys() - known)
    ]


async def freezes(site: Site) -> Sequence[Finding]:
    async with site.database.unit_of_work() as uow:
        standing = await uow.freezes.in_force(None, None)
        now = await uow.now()
    findings = []
    for freeze in standing:
        since = now - freeze.created_at
        where = f"{freeze.environment or 'every environment'}, {freeze.plugin or 'every plugin'}"
        if freeze.kind is FreezeKind.STOP:
            findings.append(
                _left_on(
                    freeze, "the stop switch is on: nothing moves forward anywhere", "`hotswap release-everything`"
                )
            )
        elif freeze.kind is FreezeKind.DENY and _endless(freeze) and since > LEFT_ON_AFTER:
            findings.append(
                _left_on(
                    freeze,
                    f"a freeze without an end has stood for {since / timedelta(days=1):.0f} days ({where})",
                    f"`hotswap freeze lift {freeze.freeze_id} -m REASON`",
                )
            )
    return findings


def _endless(freeze: Freeze) -> bool:
    return isinstance(freeze.window, Once) and freeze.window.ends is None


def _left_on(freeze: Freeze, what: str, lift: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        what=f"{what}; by {freeze.created_by} at {freeze.created_at:%Y-%m-%d %H:%M} UTC: {freeze.reason}",
        why="rollouts that run stand still, also the one that would mend something",
        remedy=f"{lift} when its reason is gone",
    )


async def audit(site: Site) -> Sequence[Finding]:
    async with site.database.unit_of_work() as uow:
        unsealed = await uow.audit.unsealed()
    if not unsealed:
        return []
    return [
        Finding(
            severity=Severity.CRITICAL,
            what=f"{unsealed} audit entries have no seal",
            why="somebody wrote past the chain, so the audit cannot prove what happened since",
            remedy="`hotswap audit verify` names the place; find who may write to audit_logs (docs/audit.md)",
        )
    ]


def _named(one: OpenDeployment) -> str:
    return f"{one.deployment_id} ({one.plugin} {one.version} in {one.environment})"
