"""What a sandbox session does to the world: run one execution, end the session on record.

Requests and results pass between the record and the process only; a history holds ids. The execution's row is locked
to begin it and to finish it, so an attempt that comes late can neither run it twice nor overwrite what another found.
Neighbours: workflows.sandbox_session orders, hotswap.ports.sandbox calls, hotswap.domain.sandbox decides.
"""

import asyncio
import logging
from time import monotonic

from temporalio import activity

from activities.errors import translated
from activities.heartbeat import heartbeating
from hotswap.domain.base import BoundedText, Model
from hotswap.domain.errors import HotSwapError, NotFound, SandboxUnavailable, Unavailable
from hotswap.domain.registry import AuditEntry
from hotswap.domain.sandbox import ExecutionStatus, SandboxExecution, SandboxSession, SessionStatus, request_parts
from hotswap.ports.records import UnitOfWorkFactory
from hotswap.ports.sandbox import CallReport, SandboxCall, SandboxCaller

logger = logging.getLogger(__name__)

FETCH_ATTEMPTS = 12
"""Tries to have the bundle here while its store is away, about 40 s in all: then the execution fails and says so."""
KEEP_PATIENCE = 60.0
"""Seconds to write a result down while PostgreSQL is away; the plugin has run, and nobody else knows what it said."""
KEEP_PAUSE = 0.5


class ExecutionOrder(Model):
    sandbox_id: str
    execution_id: str


class ExecutionDone(Model):
    """How it ended; the record has the rest."""

    status: ExecutionStatus
    limit: str = ""
    reason: BoundedText = ""


class CloseOrder(Model):
    sandbox_id: str
    status: SessionStatus
    reason: BoundedText
    by: str


class SandboxCallActivities:
    """Polled on the sandbox queue: its slots are the executions that one worker runs at once."""

    def __init__(self, unit_of_work: UnitOfWorkFactory, caller: SandboxCaller) -> None:
        self._unit_of_work = unit_of_work
        self._caller = caller

    @activity.defn
    @translated
    async def run_execution(self, order: ExecutionOrder) -> ExecutionDone:
        """Run it, or say what has become of it. Raises NotFound (forgotten), Unavailable (retried, nothing has run)."""
        async with heartbeating():
            session, known = await self._look(order)
            if known.over:
                return _done(known)
            failed = await self._fetch(session)
            execution, request = await self._begin(order)
            if execution.over:
                return _done(execution)
            report = failed or await self._call(session, execution, request)
            return _done(await self._keep(execution, report))

    async def _look(self, order: ExecutionOrder) -> tuple[SandboxSession, SandboxExecution]:
        async with self._unit_of_work() as uow:
            session = await uow.sandboxes.get(order.sandbox_id)
            return session, await uow.sandboxes.execution(order.sandbox_id, order.execution_id)

    async def _fetch(self, session: SandboxSession) -> CallReport | None:
        """Have the bundle unpacked before anything counts as begun. The report of a failure that a repeat cannot mend."""
        try:
            await self._caller.prepare(session.artifact)
        except Unavailable as away:
            if activity.info().attempt < FETCH_ATTEMPTS:
                raise
            return self._failed(away, "LOAD_FAILED")
        except HotSwapError as fault:
            return self._failed(fault, "LOAD_FAILED")
        return None

    async def _begin(self, order: ExecutionOrder) -> tuple[SandboxExecution, str]:
        async with self._unit_of_work() as uow:
            held, request = await uow.sandboxes.claim(order.execution_id)
            begun = held.begun(await uow.now())
            await uow.sandboxes.save(begun)
            await uow.commit()
        return begun, request

    async def _call(self, session: SandboxSession, execution: SandboxExecution, request: str) -> CallReport:
        parameters, configuration = request_parts(request)
        call = SandboxCall(
            ref=session.artifact,
            environment=session.environment,
            resources=session.resources,
            method=execution.method,
            tenant=execution.tenant,
            parameters=parameters,
            configuration=configuration,
            timeout=execution.timeout,
        )
        try:
            return await self._caller.call(call)
        except SandboxUnavailable as fault:
            return self._failed(fault, "SANDBOX_UNAVAILABLE")
        except HotSwapError as fault:
            return self._failed(fault, "LOAD_FAILED")

    def _failed(self, fault: HotSwapError, limit: str) -> CallReport:
        return CallReport(
            succeeded=False,
            sandbox_tier=self._caller.sandbox_tier,
            limit=limit,
            reason=f"{fault.message}; it never ran",
        )

    async def _keep(self, execution: SandboxExecution, report: CallReport) -> SandboxExecution:
        """Write the result down, if this attempt is still the one that counts."""
        until = monotonic() + KEEP_PATIENCE
        while True:
            try:
                async with self._unit_of_work() as uow:
                    held, _ = await uow.sandboxes.claim(execution.execution_id)
                    if (held.status, held.attempts) != (ExecutionStatus.RUNNING, execution.attempts):
                        return held
                    finished = held.model_copy(update={**_outcome(report), "finished_at": await uow.now()})
                    await uow.sandboxes.save(finished)
                    await uow.commit()
                return finished
            except Unavailable as away:
                if monotonic() > until:
                    raise
                logger.warning("the result of %s is not on record yet: %s", execution.execution_id, away.message)
            await asyncio.sleep(KEEP_PAUSE)


class SandboxRecordActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory) -> None:
        self._unit_of_work = unit_of_work

    @activity.defn
    @translated
    async def close_session(self, order: CloseOrder) -> None:
        """End it on record, cancel what has not finished, audit it. Repeats, and sessions forgotten meanwhile, are fine."""
        async with self._unit_of_work() as uow:
            try:
                ended = await uow.sandboxes.close(order.sandbox_id, order.status, order.reason)
            except NotFound:
                return
            if ended:
                await uow.audit.append(
                    AuditEntry(
                        event_type="sandbox.ended",
                        entity_type="sandbox",
                        entity_id=order.sandbox_id,
                        user=order.by,
                        details={"status": str(order.status), "reason": order.reason},
                        at=await uow.now(),
                    )
                )
                await uow.commit()


def _outcome(report: CallReport) -> dict[str, object]:
    return {
        "status": ExecutionStatus.SUCCEEDED if report.succeeded else ExecutionStatus.FAILED,
        "tier": report.sandbox_tier,
        "output": report.output,
        "logs": report.logs,
        "limit": report.limit,
        "error_kind": report.error_kind,
        "exit_reason": report.reason,
        "load_ms": report.load_ms,
        "duration_ms": report.duration_ms,
        "peak_memory_bytes": report.peak_memory_bytes,
    }


def _done(execution: SandboxExecution) -> ExecutionDone:
    return ExecutionDone(status=execution.status, limit=execution.limit, reason=execution.exit_reason)
