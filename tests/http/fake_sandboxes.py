"""A small stand-in for api.services.sandbox_gateway.Sandboxes: sessions obey like their workflow would, and run at once."""

from collections.abc import Callable
from dataclasses import dataclass, field

from api.services.rollouts import RolloutOver
from hotswap.adapters.memory.records import MemoryRecords
from hotswap.domain.errors import HotSwapError
from hotswap.domain.sandbox import ExecutionStatus, SandboxExecution, SandboxSession, SessionStatus, request_parts
from workflows.messages import Command
from workflows.sandbox_messages import END, ExecuteCommand, SandboxAnswer


def echo(execution: SandboxExecution, request: str) -> SandboxExecution:
    parameters, _ = request_parts(request)
    changes = {"status": ExecutionStatus.SUCCEEDED, "output": parameters, "tier": "standard"}
    return execution.model_copy(update=changes)


@dataclass
class FakeSandboxes:
    """`run` None leaves executions queued; `refusal` is raised by every command, `away` by a start."""

    records: MemoryRecords
    run: Callable[[SandboxExecution, str], SandboxExecution] | None = echo
    refusal: HotSwapError | None = None
    away: HotSwapError | None = None
    gone: bool = False
    started: list[str] = field(default_factory=list)
    sent: list[tuple[str, Command, str | None]] = field(default_factory=list)

    async def start(self, session: SandboxSession) -> str:
        if self.away is not None:
            raise self.away
        self.started.append(session.sandbox_id)
        return f"run-{session.sandbox_id}"

    async def command(
        self, session: SandboxSession, name: str, command: Command, update_id: str | None
    ) -> SandboxAnswer:
        if self.gone:
            raise RolloutOver("nothing runs there", "Terminated")
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((name, command, update_id))
        async with self.records.unit_of_work() as uow:
            if name == END:
                await uow.sandboxes.close(session.sandbox_id, SessionStatus.DELETED, f"deleted by {command.by}")
            elif self.run is not None:
                assert isinstance(command, ExecuteCommand)
                held, request = await uow.sandboxes.claim(command.execution_id)
                if not held.over:
                    await uow.sandboxes.save(self.run(held.begun(await uow.now()), request))
            await uow.commit()
        return SandboxAnswer(sandbox_id=session.sandbox_id, status=session.status, message="done")
