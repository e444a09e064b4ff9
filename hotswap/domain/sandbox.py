"""Sandbox sessions: one version that may be called in isolation for a while, and what each call came to. Pure.

Every execution has a fresh process of its own, so nothing of a session lives in a worker; the record of an execution is
also its watermark: what it says decides whether a call may run (again). Neighbours: workflows.sandbox_session keeps a
session, activities.sandbox runs its executions, hotswap.ports.sandbox_records keeps both.
"""

import json
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from hotswap.domain.base import BoundedText, Instant, Model, TenantId, bounded
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict
from hotswap.domain.manifest import Resources
from hotswap.domain.routes import ArtifactRef

MAX_EXECUTIONS = 200
"""A session's executions in all. It bounds its workflow's history: about 12 events each, far below 8,000 together."""
MAX_WAITING = 20
"""Executions of one session that may wait for their turn; they run one after the other."""
MAX_ATTEMPTS = 3
"""Begins of an idempotent execution whose worker died each time; what kills three workers is not given a fourth."""

MAX_REQUEST_BYTES = 256 * 1024
"""Largest parameters, and largest configuration, as JSON."""
MAX_OUTPUT_BYTES = 256 * 1024
"""Largest result, as JSON; past it the execution fails with REPLY_TOO_LARGE."""
MAX_LOG_BYTES = 64 * 1024
"""What is kept of an execution's stdout and stderr; the rest is dropped (OUTPUT_LIMIT)."""
LISTED_BYTES = 16 * 1024
"""Output and logs larger than this are left out of lists: a page of 100 stays under 4 MiB."""

LIMITS = frozenset(
    {
        "TIMEOUT",
        "CPU_LIMIT",
        "MEMORY_LIMIT",
        "PROCESS_LIMIT",
        "FILE_LIMIT",
        "SCRATCH_LIMIT",
        "OUTPUT_LIMIT",
        "REPLY_TOO_LARGE",
        "BAD_REPLY",
        "LOAD_FAILED",
        "DIED",
        "SANDBOX_UNAVAILABLE",
    }
)
"""What a result's `limit` may say. A host is the plugin's own process: anything else it claims is a BAD_REPLY."""


def request_text(parameters: dict[str, Any], configuration: dict[str, Any] | None) -> str:
    """What an execution is called with, as the record keeps it until it has finished."""
    return json.dumps({"parameters": parameters, "configuration": configuration}, separators=(",", ":"))


def request_parts(text: str) -> tuple[str, dict[str, Any] | None]:
    """The parameters, as JSON text, and the configuration of `request_text`."""
    request = json.loads(text)
    return json.dumps(request["parameters"], separators=(",", ":")), request["configuration"]


def sandbox_workflow_id(sandbox_id: str) -> str:
    return f"sandbox/{sandbox_id}"


def sandbox_queue(task_queue: str) -> str:
    """Where executions wait: a queue beside the control plane's, so that they never take a rollout's place on a worker."""
    return f"{task_queue}-sandbox"


class SessionStatus(StrEnum):
    ACTIVE = "Active"
    EXPIRED = "Expired"
    DELETED = "Deleted"


class ExecutionStatus(StrEnum):
    QUEUED = "Queued"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    LOST = "Lost"
    """Its worker died while it ran, and it may not be run again: whether it did its work is unknown."""
    CANCELLED = "Cancelled"
    """Its session ended first."""


FINISHED = frozenset(
    {ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.LOST, ExecutionStatus.CANCELLED}
)


class SandboxSession(Model):
    """One session on record. `tier` is what the platform is set to; each execution says on which it really ran."""

    sandbox_id: str
    artifact: ArtifactRef
    environment: Environment
    resources: Resources
    execution_timeout: timedelta
    tier: str
    created_by: str = Field(min_length=1, max_length=255)
    created_at: Instant
    expires_at: Instant
    run_id: str = Field(default="", description="its workflow's run; empty until that was started")
    status: SessionStatus = SessionStatus.ACTIVE
    ended_at: Instant | None = None
    end_reason: BoundedText = ""

    @property
    def workflow_id(self) -> str:
        return sandbox_workflow_id(self.sandbox_id)

    def ended(self, status: SessionStatus, reason: str, at: datetime) -> "SandboxSession":
        """The first ending holds."""
        if self.status is not SessionStatus.ACTIVE:
            return self
        return self.model_copy(update={"status": status, "end_reason": bounded(reason), "ended_at": at})


class SandboxExecution(Model):
    """One call of one method. `output` is the result as JSON text; what it was called with is not kept for long."""

    execution_id: str
    sandbox_id: str
    method: str
    idempotent: bool = Field(default=False, description="as the manifest declares it: may be run again")
    tenant: TenantId
    timeout: timedelta
    requested_by: str = Field(min_length=1, max_length=255)
    queued_at: Instant
    status: ExecutionStatus = ExecutionStatus.QUEUED
    attempts: int = 0
    started_at: Instant | None = None
    finished_at: Instant | None = None
    tier: str = ""
    load_ms: float = 0.0
    duration_ms: float = 0.0
    peak_memory_bytes: int = 0
    limit: str = ""
    error_kind: BoundedText = ""
    exit_reason: BoundedText = ""
    output: str | None = None
    output_omitted: bool = False
    logs: str = ""
    logs_omitted: bool = False

    @property
    def over(self) -> bool:
        return self.status in FINISHED

    def begun(self, at: datetime) -> "SandboxExecution":
        """As it stands once a worker takes it up: Running, or Lost when it must not run again. What is over stays."""
        if self.over:
            return self
        if self.status is ExecutionStatus.RUNNING:
            if not self.idempotent:
                return self._lost(
                    at,
                    f"and '{self.method}' is not declared idempotent, so it was not run again; send it anew if it may",
                )
            if self.attempts >= MAX_ATTEMPTS:
                return self._lost(at, f"as on {MAX_ATTEMPTS} tries in a row; look at the workers before trying again")
        return self.model_copy(
            update={"status": ExecutionStatus.RUNNING, "attempts": self.attempts + 1, "started_at": at}
        )

    def cancelled(self, reason: str, at: datetime) -> "SandboxExecution":
        if self.over:
            return self
        ran = self.status is ExecutionStatus.RUNNING
        what = "it was stopped while it ran" if ran else "it never ran"
        return self.model_copy(
            update={
                "status": ExecutionStatus.CANCELLED,
                "finished_at": at,
                "exit_reason": bounded(f"the sandbox ended ({reason}), {what}"),
            }
        )

    def _lost(self, at: datetime, why: str) -> "SandboxExecution":
        return self.model_copy(
            update={
                "status": ExecutionStatus.LOST,
                "finished_at": at,
                "limit": "DIED",
                "exit_reason": bounded(
                    f"the worker that ran it died, was stopped, or could not tell its result, {why}"
                ),
            }
        )


def over_already(session: SandboxSession) -> Conflict:
    return Conflict(
        f"{session.sandbox_id} is {session.status}: {session.end_reason}. Make another with POST /api/v1/sandbox/create"
    )
