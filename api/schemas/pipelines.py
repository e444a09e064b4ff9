"""Pipelines as clients ask for them and read them: PipelineProgress in camelCase, with its handle and its links."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote

from pydantic import Field

from api.schemas.common import IsoDuration, Line
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.base import Model, PluginName
from hotswap.domain.deployment import Environment, Strategy
from hotswap.domain.manifest import SemVer
from hotswap.domain.pipeline import Gate, PipelineProgress, PipelineStatus, StageConflict
from hotswap.domain.registry import Page
from hotswap.ports.pipelines import PipelineRow


class StageIn(Model):
    """One environment on the way. `config` holds the strategy's own settings (spec section 4)."""

    environment: Environment
    strategy: Strategy | None = Field(default=None, description="default: the environment's own")
    config: dict[str, Any] = Field(default_factory=dict)
    gate: Gate | None = Field(default=None, description="who must agree before this stage begins; not for the first")
    soak: IsoDuration = Field(
        default=timedelta(0),
        ge=timedelta(0),
        le=timedelta(days=30),
        description="how long it must serve before the next",
    )


class PipelineIn(Model):
    """Body of POST /pipelines."""

    plugin_id: PluginName
    version: SemVer
    stages: tuple[StageIn, ...] = Field(min_length=1, max_length=4, description="in the order of promotion")
    on_conflict: StageConflict = Field(
        default=StageConflict.WAIT, description="when another deployment runs where a stage wants to: wait, or fail"
    )
    reason: Line = Field(default="", max_length=500)
    freeze_override_reason: Line = Field(
        default="", max_length=500, description="why freezes must not hold its stages; takes an Admin"
    )


class PipelineQuery(Page):
    """Query of GET /pipelines."""

    plugin_id: PluginName | None = None
    status: PipelineStatus | None = None


class PipelineLinks(Model):
    self: str
    temporal_ui: str = Field(description="the workflow in Temporal's Web UI; empty when its address is not configured")


class PipelineOut(PipelineProgress):
    workflow_id: str
    run_id: str
    links: PipelineLinks

    @classmethod
    def of(cls, progress: PipelineProgress, row: PipelineRow, temporal: TemporalSettings) -> "PipelineOut":
        ui = ""
        if temporal.ui_url:
            place = "/".join(
                quote(part, safe="") for part in (temporal.namespace, "workflows", row.workflow_id, row.run_id)
            )
            ui = f"{temporal.ui_url.rstrip('/')}/namespaces/{place}/history"
        links = PipelineLinks(self=f"/api/v1/pipelines/{progress.pipeline_id}", temporal_ui=ui)
        return cls.model_construct(**dict(progress), workflow_id=row.workflow_id, run_id=row.run_id, links=links)
