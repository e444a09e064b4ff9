"""Pipelines on record: the store behind `UnitOfWork.pipelines`, a projection of their workflows."""

from collections.abc import Sequence
from typing import Protocol

from hotswap.domain.base import Model
from hotswap.domain.pipeline import PipelineProgress, PipelineStatus
from hotswap.domain.registry import Page


class PipelineFilter(Model):
    plugin: str | None = None
    status: PipelineStatus | None = None


class PipelineRow(Model):
    """A projected pipeline with the handle of its workflow."""

    progress: PipelineProgress
    workflow_id: str
    run_id: str


class PipelineStore(Protocol):
    async def open(self, row: PipelineRow) -> None:
        """Insert once; a repeat changes nothing (workflow and facade both call it). Raises NotFound without the plugin."""
        ...

    async def project(self, progress: PipelineProgress) -> None:
        """Store the newer progress (an older `sequence` is ignored). Raises NotFound for one that was never opened."""
        ...

    async def get(self, pipeline_id: str) -> PipelineRow:
        """Raises NotFound."""
        ...

    async def list(self, where: PipelineFilter, page: Page) -> tuple[Sequence[PipelineRow], int]:
        """Newest first, and the total."""
        ...
