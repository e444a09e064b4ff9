"""Shapes of /audit-logs: its query, a verification's, a checkpoint's."""

from pydantic import Field

from api.schemas.common import Line
from hotswap.domain.audit import Checkpoint
from hotswap.domain.base import Instant, Model
from hotswap.domain.registry import Page

HASH = r"^[0-9a-f]{64}$"


class AuditWhere(Model):
    """Which entries. `from` is included, `to` is not."""

    entity: Line | None = Field(default=None, max_length=255, description="id of a plugin, deployment, freeze, ...")
    entity_type: Line | None = Field(default=None, max_length=100, description="plugin, deployment, pipeline, ...")
    event_type: Line | None = Field(default=None, max_length=100, description="deployment.requested, ...")
    user: Line | None = Field(default=None, max_length=255)
    since: Instant | None = Field(default=None, alias="from")
    until: Instant | None = Field(default=None, alias="to")


class AuditQuery(Page, AuditWhere):
    """Query of GET /audit-logs."""


class VerifyQuery(Model):
    """Query of GET /audit-logs/verify. A former head (`expectPosition`, `expectHash`) proves that nothing before it changed."""

    after: int = Field(default=0, ge=0, description="go on behind this position")
    hash: str | None = Field(default=None, pattern=HASH, description="that the chain had at `after`, as told before")
    expect_position: int | None = Field(default=None, ge=1)
    expect_hash: str | None = Field(default=None, pattern=HASH)


class CheckpointIn(Model):
    """Body of POST /audit-logs/checkpoints. Without `truncateBefore` nothing is taken away."""

    reason: Line = Field(min_length=1, max_length=500)
    truncate_before: Instant | None = Field(default=None, description="entries older than this go")


class CheckpointOut(Model):
    checkpoint: Checkpoint
    removed: int = Field(description="entries taken away")
    more: bool = Field(description="older entries are left: repeat")
