"""Names, commands and answers of a sandbox session's workflow: the contract with the facade and the Web UI.

Neighbours: workflows.sandbox_session handles them, api.services.sandbox_gateway sends them.
"""

from datetime import timedelta

from pydantic import Field

from hotswap.domain.base import BoundedText, Instant, Model
from hotswap.domain.deployment import Environment
from hotswap.domain.sandbox import SessionStatus
from workflows.messages import Command

SANDBOX_WORKFLOW = "SandboxSession"

EXECUTE = "execute"
"""An update only: the execution's record, which holds its parameters, must be there first."""
END = "end"
"""Update (answered once everything is cleaned up) and signal."""


class SessionOrder(Model):
    """What a session's workflow is started with."""

    sandbox_id: str
    plugin: str
    version: str
    environment: Environment
    expires_at: Instant
    created_by: str


class ExecuteCommand(Command):
    execution_id: str
    method: str
    timeout: timedelta


class SandboxAnswer(Model):
    sandbox_id: str
    status: SessionStatus
    message: BoundedText


class SessionProgress(Model):
    """The answer to the query `status`."""

    sandbox_id: str
    status: SessionStatus = SessionStatus.ACTIVE
    expires_at: Instant
    running: str = Field(default="", description="the execution that runs")
    waiting: int = 0
    executed: int = 0
    end_reason: BoundedText = ""
