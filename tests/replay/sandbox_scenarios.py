"""Scenarios of every ending of a sandbox session: expired, deleted while it ran, cancelled, with failed executions."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle

from hotswap.domain.errors import Unavailable
from hotswap.ports.sandbox import CallReport
from tests.workflow.sandbox import Sandbox, ScriptedCaller, sandbox_worker
from tests.workflow.world import World

AnyHandle = WorkflowHandle[Any, Any]


async def _expired(world: World) -> AnyHandle:
    async with sandbox_worker(world, ScriptedCaller()):
        sandbox = await Sandbox.open(world, life=timedelta(seconds=5))
        for _ in range(3):
            await sandbox.finished(await sandbox.execute())
        await sandbox.handle.result()
    return sandbox.handle


async def _deleted(world: World) -> AnyHandle:
    async with sandbox_worker(world, ScriptedCaller()):
        sandbox = await Sandbox.open(world)
        running = await sandbox.execute("hold")
        await sandbox.execute()
        await sandbox.running(running)
        await sandbox.end("enough")
        await sandbox.handle.result()
    return sandbox.handle


async def _executions_failed(world: World) -> AnyHandle:
    """One fails, one waits for its bundle, one was withdrawn."""
    caller = ScriptedCaller()
    caller.reports["fail"] = CallReport(succeeded=False, sandbox_tier="standard", limit="TIMEOUT", reason="too slow")
    async with sandbox_worker(world, caller):
        sandbox = await Sandbox.open(world)
        await sandbox.finished(await sandbox.execute("fail"))
        caller.faults.append(Unavailable("S3 is away"))
        await sandbox.finished(await sandbox.execute())
        await sandbox.ask("exe_" + "0" * 32)
        await sandbox.finished(await sandbox.execute())
        await sandbox.end()
        await sandbox.handle.result()
    return sandbox.handle


async def _cancelled(world: World) -> AnyHandle:
    async with sandbox_worker(world, ScriptedCaller()):
        sandbox = await Sandbox.open(world)
        running = await sandbox.execute("hold")
        await sandbox.running(running)
        await sandbox.handle.cancel()
        with suppress(WorkflowFailureError):
            await sandbox.handle.result()
    return sandbox.handle


SANDBOX_SCENARIOS: dict[str, Callable[[World], Awaitable[AnyHandle]]] = {
    "sandbox-expired": _expired,
    "sandbox-deleted": _deleted,
    "sandbox-executions-failed": _executions_failed,
    "sandbox-cancelled": _cancelled,
}
