"""Shapes of /approvals: what waits for people, and the answer to a decision."""

from enum import StrEnum

from pydantic import Field

from hotswap.domain.base import Instant, Model, PluginName
from hotswap.domain.deployment import ApprovalGiven, Environment, Role
from hotswap.domain.manifest import SemVer
from hotswap.domain.registry import Page

APPROVAL_ID = r"^(?:dep_[0-9a-f]{32}|pip_[0-9a-f]{32}\.[1-4])$"


class ApprovalKind(StrEnum):
    DEPLOYMENT = "deployment"
    PIPELINE = "pipeline"


class ApprovalQuery(Page):
    """Query of GET /approvals. `mine`: only what the caller may approve now."""

    plugin_id: PluginName | None = None
    environment: Environment | None = None
    kind: ApprovalKind | None = None
    mine: bool = False


class ApprovalOut(Model):
    """One gate that waits. Its id is the deployment's, or the pipeline's with the number of the stage before which it waits."""

    id: str
    kind: ApprovalKind
    plugin: PluginName
    version: SemVer
    from_version: SemVer | None = None
    environment: Environment
    strategy: str
    digest: str = Field(description="SHA-256 of the artifact that is approved; another artifact voids it")
    plan_hash: str = Field(default="", description="of what would be done; send it with the approval. A gate has none")
    initiated_by: str
    reason: str = ""
    required: int = Field(description="different people, never who initiated it")
    needs_admin: bool = Field(description="one of them must be an Admin")
    roles: tuple[Role, ...] = Field(description="who may approve")
    approvals: tuple[ApprovalGiven, ...] = ()
    missing: str = Field(description="what is still needed")
    requested_at: Instant
    expires_at: Instant | None = Field(description="null: it began under a release that did not note it")
    mine: bool = Field(description="the caller may approve it now")
    why_not: str = Field(default="", description="why the caller may not")
    link: str


class DecisionOut(Model):
    """What became of a decision."""

    id: str
    status: str = Field(description="of the deployment or the pipeline")
    message: str
