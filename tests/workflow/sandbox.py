"""Sandbox sessions in a World: a caller that obeys a script, a worker for the sandbox queue, and the facade's part."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.worker import Worker

from activities.sandbox import SandboxCallActivities
from hotswap.domain.deployment import Environment
from hotswap.domain.manifest import Resources
from hotswap.domain.registry import AuditEntry, Page
from hotswap.domain.routes import ArtifactRef
from hotswap.domain.sandbox import MAX_EXECUTIONS, SandboxExecution, SandboxSession, request_text, sandbox_queue
from hotswap.ports.sandbox import CallReport, SandboxCall
from tests.workflow.world import World
from workflows.messages import Command
from workflows.sandbox_messages import (
    END,
    EXECUTE,
    SANDBOX_WORKFLOW,
    ExecuteCommand,
    SandboxAnswer,
    SessionOrder,
    SessionProgress,
)

HOUR = timedelta(hours=1)


@dataclass
class ScriptedCaller:
    """`faults` are raised by `prepare`, one a try; `hold` keeps a call of the method "hold" until it is set."""

    sandbox_tier: str = "standard"
    faults: list[Exception] = field(default_factory=list)
    reports: dict[str, CallReport] = field(default_factory=dict)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    called: list[SandboxCall] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    during: Callable[[SandboxCall], None] = lambda order: None

    async def prepare(self, ref: ArtifactRef) -> None:
        if self.faults:
            raise self.faults.pop(0)

    async def call(self, order: SandboxCall) -> CallReport:
        self.called.append(order)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if order.method == "hold":
                await self.hold.wait()
            self.during(order)
        except asyncio.CancelledError:
            self.cancelled.append(order.method)
            raise
        finally:
            self.at_once -= 1
        good = CallReport(succeeded=True, sandbox_tier=self.sandbox_tier, output=order.parameters, duration_ms=1.0)
        return self.reports.get(order.method, good)


@dataclass
class Sandbox:
    """One session: its place on record, its workflow, and what the facade does with both."""

    world: World
    session: SandboxSession
    handle: WorkflowHandle[Any, SessionProgress]

    @classmethod
    async def open(cls, world: World, life: timedelta = HOUR) -> "Sandbox":
        now = datetime.now(UTC)
        async with world.records.unit_of_work() as uow:
            version = await uow.versions.get(world.name, "2.0.0")
            session = SandboxSession(
                sandbox_id=f"sbx_{uuid.uuid4().hex}",
                artifact=version.ref,
                environment=Environment.DEVELOPMENT,
                resources=Resources(),
                execution_timeout=timedelta(minutes=5),
                tier="standard",
                created_by="dana",
                created_at=now,
                expires_at=now + life,
            )
            await uow.sandboxes.open(session, 50)
            await uow.commit()
        order = SessionOrder(
            sandbox_id=session.sandbox_id,
            plugin=world.name,
            version="2.0.0",
            environment=session.environment,
            expires_at=session.expires_at,
            created_by=session.created_by,
        )
        handle = await world.client.start_workflow(
            SANDBOX_WORKFLOW, order, id=session.workflow_id, task_queue=world.queue, result_type=SessionProgress
        )
        return cls(world, session, handle)

    async def queue(self, method: str = "run", parameters: str = '{"n":1}', **more: Any) -> str:
        """On record only."""
        execution = SandboxExecution(
            execution_id=f"exe_{uuid.uuid4().hex}",
            sandbox_id=self.session.sandbox_id,
            method=method,
            tenant="sandbox",
            timeout=timedelta(seconds=30),
            requested_by="dana",
            queued_at=self.session.created_at,
            **more,
        )
        async with self.world.records.unit_of_work() as uow:
            await uow.sandboxes.queue(execution, request_text(json.loads(parameters), None), MAX_EXECUTIONS + 50)
            await uow.commit()
        return execution.execution_id

    async def ask(self, execution_id: str, method: str = "run") -> SandboxAnswer:
        """The workflow takes it."""
        command = ExecuteCommand(by="dana", execution_id=execution_id, method=method, timeout=timedelta(seconds=30))
        answer: SandboxAnswer = await self.handle.execute_update(
            EXECUTE, command, id=execution_id, result_type=SandboxAnswer
        )
        return answer

    async def execute(self, method: str = "run", **more: Any) -> str:
        execution_id = await self.queue(method, **more)
        await self.ask(execution_id, method)
        return execution_id

    async def end(self, reason: str = "") -> SandboxAnswer:
        answer: SandboxAnswer = await self.handle.execute_update(
            END, Command(by="dana", reason=reason), result_type=SandboxAnswer
        )
        return answer

    async def progress(self) -> SessionProgress:
        return await self.handle.query("status", result_type=SessionProgress)

    async def on_record(self) -> SandboxSession:
        async with self.world.records.unit_of_work() as uow:
            return await uow.sandboxes.get(self.session.sandbox_id)

    async def execution(self, execution_id: str) -> SandboxExecution:
        async with self.world.records.unit_of_work() as uow:
            return await uow.sandboxes.execution(self.session.sandbox_id, execution_id)

    async def finished(self, execution_id: str) -> SandboxExecution:
        async with asyncio.timeout(60):
            while not (found := await self.execution(execution_id)).over:
                await asyncio.sleep(0.02)
        return found

    async def running(self, execution_id: str) -> None:
        async with asyncio.timeout(60):
            while (await self.execution(execution_id)).status != "Running":
                await asyncio.sleep(0.02)

    async def audited(self) -> list[AuditEntry]:
        async with self.world.records.unit_of_work() as uow:
            return list((await uow.audit.list(self.session.sandbox_id, None, Page()))[0])


def sandbox_worker(world: World, caller: ScriptedCaller) -> Worker:
    return Worker(
        world.client,
        task_queue=sandbox_queue(world.queue),
        activities=[SandboxCallActivities(world.records.unit_of_work, caller).run_execution],
    )


@asynccontextmanager
async def working(world: World, caller: ScriptedCaller) -> AsyncIterator[None]:
    async with world.control_worker(), sandbox_worker(world, caller):
        yield
