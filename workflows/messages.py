"""Commands a deployment takes, each both a signal and a validated update, and the answers to its queries.

Neighbours: workflows.deployment handles them, api.services sends them, people send them from the Temporal Web UI.
"""

from pydantic import Field

from hotswap.domain.base import BoundedText, Model
from hotswap.domain.deployment import Role


class Command(Model):
    """Who commands, and why. `reason` is required for reject, abort and rollback (the facade and the validator check)."""

    by: str = Field(min_length=1, max_length=255)
    roles: tuple[Role, ...] = ()
    reason: BoundedText = ""


class ApproveCommand(Command):
    """`plan_hash` binds the approval: empty means 'whatever is planned now', otherwise it must match."""

    plan_hash: str = ""


class SupersedeCommand(Command):
    """`deployment_id` says who is meant (empty: whoever runs): by the time it comes another one may hold the place."""

    deployment_id: str = ""


class CommandResult(Model):
    """What the command did: `accepted` and the deployment's status after it. A repeat gives the same answer."""

    deployment_id: str
    status: str
    message: BoundedText


class WorkflowNames:
    """The names under which workflows and messages are registered: the contract with the Web UI and the CLI of Temporal."""

    APPROVE = "approve"
    REJECT = "reject"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    PROMOTE_FULL = "promote-full"
    ABORT = "abort"
    ROLLBACK = "rollback"
    SUPERSEDE = "supersede"
    OVERRIDE_FREEZE = "override-freeze"
    FREEZES_CHANGED = "freezes-changed"
    TELL_WHEN_OVER = "tell-when-over"
    YOUR_TURN = "your-turn"
    STATUS = "status"
    PLAN = "plan"
    TIMELINE = "timeline"


QUEUED_WORKFLOW = "QueuedDeployment"

WORKFLOW_OF_STRATEGY = {
    "Direct": "DirectDeployment",
    "Rolling": "RollingDeployment",
    "Canary": "CanaryDeployment",
    "BlueGreen": "BlueGreenDeployment",
    "ABTesting": "ABTestDeployment",
}
"""Workflow type by strategy: types differ so that the Web UI can filter by them; the machinery is one."""
