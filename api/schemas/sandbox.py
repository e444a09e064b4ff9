"""Sandbox sessions as clients ask for them and read them. Neighbours: api.routers.sandbox, hotswap.domain.sandbox."""

import json
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, StringConstraints

from api.schemas.common import IsoDuration
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.base import Digest, Instant, Model, PluginName, TenantId
from hotswap.domain.deployment import Environment
from hotswap.domain.manifest import Resources, SemVer
from hotswap.domain.registry import Page
from hotswap.domain.sandbox import MAX_EXECUTIONS, ExecutionStatus, SandboxExecution, SandboxSession, SessionStatus

LONGEST_WAIT = timedelta(seconds=30)

ExecutionId = Annotated[str, StringConstraints(pattern=r"^exe_[0-9a-f]{32}$")]


class SandboxIn(Model):
    """Body of POST /sandbox/create."""

    plugin_id: PluginName
    version: SemVer
    environment: Environment = Environment.DEVELOPMENT
    ttl: IsoDuration | None = Field(default=None, description="how long it lives; default and most: PT1H, by setting")
    execution_timeout: IsoDuration | None = Field(
        default=None, description="longest execution, loading included; default and most: PT5M, by setting"
    )
    resources: dict[str, Any] = Field(
        default_factory=dict, description="keys of the manifest's `resources` that shall differ, e.g. memoryMb"
    )


class ExecuteIn(Model):
    """Body of POST /sandbox/{id}/execute."""

    method: str = Field(min_length=1, max_length=64, description="one of the manifest's methods")
    parameters: dict[str, Any] = Field(default_factory=dict, description="at most 256 KiB as JSON")
    tenant: TenantId = Field(default="sandbox", description="what the plugin is told as its tenant")
    configuration: dict[str, Any] | None = Field(
        default=None,
        description="what the plugin is told as its tenant's configuration, at most 256 KiB as JSON; "
        "default: the manifest's defaults. Put no secrets here",
    )
    timeout: IsoDuration | None = Field(default=None, description="default and most: the sandbox's executionTimeout")
    wait: IsoDuration = Field(
        default=timedelta(0), ge=timedelta(0), le=LONGEST_WAIT, description="how long to wait for the result: 200 then"
    )


class SandboxQuery(Page):
    """Query of GET /sandbox."""

    plugin_id: PluginName | None = None
    environment: Environment | None = None
    status: SessionStatus | None = None


class ResultsQuery(Page):
    """Query of GET /sandbox/{id}/results."""

    execution_id: ExecutionId | None = Field(default=None, description="only this one, with output and logs whole")


class SandboxLinks(Model):
    self: str
    results: str
    temporal_ui: str = Field(description="the workflow in Temporal's Web UI; empty when its address is not configured")


class SandboxOut(Model):
    sandbox_id: str
    plugin_id: PluginName
    version: SemVer
    digest: Digest
    environment: Environment
    status: SessionStatus
    tier: str = Field(description="the sandbox tier the platform is set to; each result says on which it ran")
    created_by: str
    created_at: Instant
    expires_at: Instant
    ended_at: Instant | None
    end_reason: str
    execution_timeout: timedelta
    resources: Resources
    executions: dict[ExecutionStatus, int] | None = Field(default=None, description="by status; not in lists")
    executions_left: int | None = None
    links: SandboxLinks

    @classmethod
    def of(
        cls, session: SandboxSession, temporal: TemporalSettings, counts: dict[str, int] | None = None
    ) -> "SandboxOut":
        here = f"/api/v1/sandbox/{session.sandbox_id}"
        links = SandboxLinks(self=here, results=f"{here}/results", temporal_ui=_ui(session, temporal))
        return cls(
            sandbox_id=session.sandbox_id,
            plugin_id=session.artifact.plugin,
            version=session.artifact.version,
            digest=session.artifact.digest,
            environment=session.environment,
            status=session.status,
            tier=session.tier,
            created_by=session.created_by,
            created_at=session.created_at,
            expires_at=session.expires_at,
            ended_at=session.ended_at,
            end_reason=session.end_reason,
            execution_timeout=session.execution_timeout,
            resources=session.resources,
            executions={ExecutionStatus(status): count for status, count in counts.items()}
            if counts is not None
            else None,
            executions_left=max(0, MAX_EXECUTIONS - sum(counts.values())) if counts is not None else None,
            links=links,
        )


class ExecutionOut(Model):
    """One execution. `output` is null until it has Succeeded, and when `outputOmitted` says that a list left it out."""

    execution_id: str
    sandbox_id: str
    method: str
    tenant: str
    status: ExecutionStatus
    output: Any
    output_omitted: bool
    logs: str = Field(description="what the plugin wrote to stdout and stderr, at most 64 KiB")
    logs_omitted: bool
    limit: str = Field(description="the limit that was hit, e.g. TIMEOUT or MEMORY_LIMIT; empty when none was")
    exit_reason: str
    error_kind: str = Field(description="class of the exception that the plugin raised")
    duration_ms: float = Field(description="loading and the call")
    load_ms: float
    peak_memory_bytes: int
    tier: str
    attempts: int
    timeout: timedelta
    requested_by: str
    queued_at: Instant
    started_at: Instant | None
    finished_at: Instant | None

    @classmethod
    def of(cls, execution: SandboxExecution) -> "ExecutionOut":
        facts = {name: value for name, value in dict(execution).items() if name in cls.model_fields}
        facts["output"] = json.loads(execution.output) if execution.output is not None else None
        return cls(**facts)


def _ui(session: SandboxSession, temporal: TemporalSettings) -> str:
    if not temporal.ui_url or not session.run_id:
        return ""
    parts = (temporal.namespace, "workflows", session.workflow_id, session.run_id)
    place = "/".join(quote(part, safe="") for part in parts)
    return f"{temporal.ui_url.rstrip('/')}/namespaces/{place}/history"
