"""What the services need from Temporal, as an interface: start a rollout, command it, ask it.

Neighbours: api.services.rollout_gateway is the real one; tests bring a small one of their own.
"""

from dataclasses import dataclass
from typing import Protocol

from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest
from hotswap.domain.errors import Conflict
from workflows.messages import Command, CommandResult


@dataclass(frozen=True, slots=True)
class Handle:
    """Where a deployment runs. `run_id` is the first run's: it also names the runs that continue it."""

    workflow_id: str
    run_id: str


class RolloutOver(Conflict):
    """The workflow is closed or was never there. `execution` is Temporal's word for how it ended, "" when unknown."""

    def __init__(self, message: str, execution: str = "") -> None:
        super().__init__(message)
        self.execution = execution


class Rollouts(Protocol):
    async def start(self, request: DeploymentRequest) -> Handle:
        """Start the workflow; the same deployment again gives the run that has it already.

        Raises DeploymentRunning naming the deployment that holds this (environment, plugin), Unavailable when
        Temporal does not answer (a repeat under the same Idempotency-Key helps).
        """
        ...

    async def enqueue(self, request: DeploymentRequest) -> Handle:
        """Start the workflow that waits until the place is free; the same deployment again gives the one it has.

        Raises Unavailable when Temporal does not answer (a repeat under the same Idempotency-Key helps).
        """
        ...

    async def command(self, handle: Handle, name: str, command: Command, update_id: str | None) -> CommandResult:
        """Send one of WorkflowNames and wait, at most 10 s, until it was obeyed; `update_id` makes a repeat safe.

        Raises Conflict with the workflow's reason when it makes no sense now, RolloutOver when nothing runs there,
        Forbidden or InvalidInput when the workflow says so, Unavailable when nobody answered in time.
        """
        ...

    async def status(self, handle: Handle) -> DeploymentProgress | None:
        """The workflow's own word, within 1 s; None when it has none to give now."""
        ...

    async def ready(self) -> None:
        """Raises Unavailable when Temporal cannot be reached."""
        ...
