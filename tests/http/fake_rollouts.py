"""A small stand-in for api.services.rollouts.Rollouts: holds deployments in a dict, obeys like the workflow would."""

import asyncio
from dataclasses import dataclass, field

from api.services.rollouts import Handle, RolloutOver
from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest
from hotswap.domain.errors import DeploymentRunning, HotSwapError, Unavailable
from hotswap.domain.ids import deployment_workflow_id, queued_workflow_id
from workflows.messages import Command, CommandResult


@dataclass
class FakeRollouts:
    running: dict[str, DeploymentRequest] = field(default_factory=dict)
    started: list[DeploymentRequest] = field(default_factory=list)
    sent: list[tuple[str, Command, str | None]] = field(default_factory=list)
    refusal: HotSwapError | None = None
    tells: DeploymentProgress | None = None
    away: bool = False

    async def start(self, request: DeploymentRequest) -> Handle:
        self._check()
        workflow_id = deployment_workflow_id(request.environment, request.plugin)
        holder = self.running.get(workflow_id)
        if holder is not None and holder.deployment_id != request.deployment_id:
            raise DeploymentRunning(request.environment, request.plugin, holder.deployment_id)
        if holder is None:
            self.started.append(request)
        self.running[workflow_id] = request
        await asyncio.sleep(0)
        return Handle(workflow_id, f"run-{request.deployment_id}")

    async def enqueue(self, request: DeploymentRequest) -> Handle:
        self._check()
        workflow_id = queued_workflow_id(request.environment, request.plugin, request.deployment_id)
        if workflow_id not in self.running:
            self.started.append(request)
        self.running[workflow_id] = request
        return Handle(workflow_id, f"run-{request.deployment_id}")

    async def command(self, handle: Handle, name: str, command: Command, update_id: str | None) -> CommandResult:
        self._check()
        if self.refusal is not None:
            raise self.refusal
        holder = self.running.get(handle.workflow_id)
        if holder is None or handle.run_id != f"run-{holder.deployment_id}":
            raise RolloutOver("nothing runs there", "Completed")
        self.sent.append((name, command, update_id))
        return CommandResult(deployment_id=holder.deployment_id, status="InProgress", message=f"{name}: done")

    async def status(self, handle: Handle) -> DeploymentProgress | None:
        return self.tells

    async def ready(self) -> None:
        self._check()

    def finish(self, deployment_id: str) -> None:
        """The workflow of this deployment closes."""
        self.running = {key: value for key, value in self.running.items() if value.deployment_id != deployment_id}

    def _check(self) -> None:
        if self.away:
            raise Unavailable("Temporal at nowhere does not answer")
