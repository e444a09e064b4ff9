"""Deployments as clients ask for them and read them: DeploymentProgress in camelCase, with its handle and its links."""

from typing import Any
from urllib.parse import quote

from pydantic import Field, computed_field, model_validator

from api.schemas.common import Flag, Line
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.base import Instant, Model, PluginName
from hotswap.domain.deployment import DeploymentProgress, Environment, OnConflict, Strategy
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.domain.manifest import SemVer
from hotswap.domain.plan import Plan
from hotswap.domain.registry import Page


class DeploymentIn(Model):
    """Body of POST /deployments and /deployments/plan. `config` holds the strategy's own settings (spec section 4)."""

    plugin_id: PluginName
    version: SemVer
    environment: Environment
    strategy: Strategy | None = Field(default=None, description="default: the environment's own")
    config: dict[str, Any] = Field(default_factory=dict)
    reason: Line = Field(default="", max_length=2000)
    on_conflict: OnConflict = Field(
        default=OnConflict.REJECT,
        description="when another deployment holds the place: reject (409), queue behind it, or supersede it",
    )
    freeze_override_reason: Line = Field(
        default="",
        max_length=500,
        description="why no freeze must hold it (takes an Admin); the stop switch still does",
    )
    override_hold: Line = Field(
        default="", max_length=2000, description="why a version that was taken back here may come again; audited"
    )
    allow_deprecated: Flag = Field(default=False, description="deploy a Deprecated version all the same; audited")
    hotfix: Flag = Field(
        default=False,
        description="observations end as soon as the minimum sample was seen, or nobody asked; trial, approvals and "
        "guards stay",
    )


class DeploymentQuery(Page):
    """Query of GET /deployments."""

    plugin_id: PluginName | None = None
    environment: Environment | None = None
    status: DeploymentStatus | None = None


class DeploymentLinks(Model):
    self: str
    events: str
    temporal_ui: str = Field(description="the workflow in Temporal's Web UI; empty when its address is not configured")


class DeploymentOut(DeploymentProgress):
    workflow_id: str
    run_id: str
    links: DeploymentLinks
    steps: tuple[str, ...] = Field(
        default=(),
        description="titles of the plan's steps, those to come too; empty in lists, and before it is planned",
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def progress_percent(self) -> int:
        """Steps begun, in percent of the plan."""
        return super().progress_percent

    @model_validator(mode="before")
    @classmethod
    def _computed_is_no_input(cls, data: Any) -> Any:
        """A kept answer is read back; what is computed is computed again."""
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if name != "progressPercent"}
        return data

    @classmethod
    def of(
        cls,
        progress: DeploymentProgress,
        workflow_id: str,
        run_id: str,
        temporal: TemporalSettings,
        steps: tuple[str, ...] = (),
    ) -> "DeploymentOut":
        base = f"/api/v1/deployments/{progress.deployment_id}"
        ui = ""
        if temporal.ui_url:
            place = (
                f"{quote(temporal.namespace, safe='')}/workflows/{quote(workflow_id, safe='')}/{quote(run_id, safe='')}"
            )
            ui = f"{temporal.ui_url.rstrip('/')}/namespaces/{place}/history"
        links = DeploymentLinks(self=base, events=f"{base}/events", temporal_ui=ui)
        return cls.model_construct(**dict(progress), workflow_id=workflow_id, run_id=run_id, links=links, steps=steps)


class PlannedStep(Model):
    number: int
    title: str
    step: dict[str, Any] = Field(description="the step itself, with its `kind`")


class PlanOut(Model):
    """What would happen. Nothing was started and nothing was stored."""

    plan: Plan
    plan_hash: str
    from_version: SemVer | None
    to_version: SemVer
    strategy: Strategy
    approvals_required: int
    steps: tuple[PlannedStep, ...]
    running: str | None = Field(description="a deployment that holds this environment and plugin now, if one does")


class RolledBack(Model):
    """One deployment that was taken back."""

    deployment_id: str
    version: SemVer
    back_to: SemVer | None
    strategy: Strategy
    initiated_by: str
    reason: str
    requested_at: Instant
    rolled_back_at: Instant | None
