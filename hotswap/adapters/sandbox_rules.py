"""What both adapters of sandbox sessions share: limits of what is stored, and how a refusal reads. Pure.

Neighbours: hotswap.adapters.record_rules for the rest of the record.
"""

from collections.abc import Sequence

from hotswap.adapters.record_rules import NAME
from hotswap.domain.errors import Conflict, NotFound
from hotswap.domain.sandbox import LISTED_BYTES, SandboxExecution, SandboxSession

SESSION_LIMITS = {"sandboxId": NAME, "createdBy": NAME, "runId": NAME}
EXECUTION_LIMITS = {"executionId": NAME, "sandboxId": NAME, "requestedBy": NAME}
SHOWN = 3
LATE_REASON = "its time was over, and its workflow did not say so"


def session_missing(sandbox_id: str) -> NotFound:
    return NotFound(f"sandbox '{sandbox_id}' is not known; GET /api/v1/sandbox lists them")


def session_names_unknown(session: SandboxSession) -> NotFound:
    ref = session.artifact
    return NotFound(
        f"a sandbox needs a registered version and environment, but '{ref.plugin}' {ref.version} in "
        f"{session.environment} is not one"
    )


def execution_missing(execution_id: str) -> NotFound:
    return NotFound(f"execution '{execution_id}' is not known in this sandbox")


def all_taken(environment: str, most: int, oldest: Sequence[SandboxSession]) -> Conflict:
    named = ", ".join(
        f"{one.sandbox_id} ({one.artifact.plugin} {one.artifact.version}, by {one.created_by}, "
        f"until {one.expires_at:%H:%M:%S} UTC)"
        for one in oldest[:SHOWN]
    )
    return Conflict(
        f"{environment} has {most} live sandboxes, as many as it may have. Delete one that is not needed "
        f"(DELETE /api/v1/sandbox/ID) or wait for one to expire; the oldest are {named}"
    )


def full(sandbox_id: str, most: int) -> Conflict:
    return Conflict(f"{sandbox_id} has had {most} executions, as many as one sandbox may have; make another")


def listed(execution: SandboxExecution) -> SandboxExecution:
    """As lists show it: without output and logs that are too large for a page."""
    changes: dict[str, object] = {}
    if execution.output is not None and len(execution.output.encode()) > LISTED_BYTES:
        changes |= {"output": None, "output_omitted": True}
    if len(execution.logs.encode()) > LISTED_BYTES:
        changes |= {"logs": "", "logs_omitted": True}
    return execution.model_copy(update=changes)
