"""What freezes and pipelines need from Temporal, as an interface: wake what is held, start, command and ask a pipeline.

Neighbours: api.services.promotion_gateway is the real one; tests bring a small one of their own.
"""

from collections.abc import Sequence
from typing import Protocol

from api.services.rollouts import Handle
from hotswap.domain.pipeline import PipelineProgress, PipelineRequest
from workflows.messages import Command
from workflows.pipeline_messages import PipelineCommandResult


class Promotions(Protocol):
    async def wake(self, workflow_ids: Sequence[str]) -> None:
        """Tell these rollouts that freezes changed, within a few seconds. One that cannot be told asks by itself later."""
        ...

    async def start(self, request: PipelineRequest) -> Handle:
        """Start the workflow; the same pipeline again gives the run that has it already. Raises Unavailable."""
        ...

    async def command(
        self, handle: Handle, name: str, command: Command, update_id: str | None
    ) -> PipelineCommandResult:
        """Send a command and wait until it was obeyed; raises as Rollouts.command does."""
        ...

    async def status(self, handle: Handle) -> PipelineProgress | None:
        """The workflow's own word, within 1 s; None when it has none to give now."""
        ...
