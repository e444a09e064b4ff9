"""A small stand-in for api.services.promotions.Promotions: pipelines in a dict, obeying like their workflow would."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from api.services.rollouts import Handle, RolloutOver
from hotswap.domain.errors import HotSwapError, Unavailable
from hotswap.domain.pipeline import PipelineProgress, PipelineRequest, pipeline_workflow_id
from workflows.messages import Command
from workflows.pipeline_messages import PipelineCommandResult


@dataclass
class FakePromotions:
    started: dict[str, PipelineRequest] = field(default_factory=dict)
    sent: list[tuple[str, Command, str | None]] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)
    refusal: HotSwapError | None = None
    tells: PipelineProgress | None = None
    over: bool = False
    away: bool = False

    async def wake(self, workflow_ids: Sequence[str]) -> None:
        self.woken += workflow_ids

    async def start(self, request: PipelineRequest) -> Handle:
        if self.away:
            raise Unavailable("Temporal at nowhere does not answer")
        self.started[request.pipeline_id] = request
        return Handle(pipeline_workflow_id(request.plugin, request.pipeline_id), f"run-{request.pipeline_id}")

    async def command(
        self, handle: Handle, name: str, command: Command, update_id: str | None
    ) -> PipelineCommandResult:
        if self.refusal is not None:
            raise self.refusal
        if self.over:
            raise RolloutOver("nothing runs there", "Completed")
        self.sent.append((name, command, update_id))
        return PipelineCommandResult(
            pipeline_id=handle.workflow_id.split("/")[-1], status="InProgress", message=f"{name}: done"
        )

    async def status(self, handle: Handle) -> PipelineProgress | None:
        return self.tells
