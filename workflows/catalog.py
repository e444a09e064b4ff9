"""What a worker registers: the workflow types, and the sandbox they run in. Used by worker.py, tests and replay."""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workflows.deployment import CanaryDeployment, DirectDeployment
from workflows.drift import DriftWatch
from workflows.monitor import HealthMonitor, RollbackWindowClosing
from workflows.notify import NotificationDelivery
from workflows.pipeline import PipelineWorkflow
from workflows.queued import QueuedDeployment
from workflows.retention import RetentionSweep
from workflows.sandbox_session import SandboxSession
from workflows.types import ABTestDeployment, BlueGreenDeployment, RollingDeployment

DEPLOYMENT_WORKFLOWS = [
    DirectDeployment,
    RollingDeployment,
    CanaryDeployment,
    BlueGreenDeployment,
    ABTestDeployment,
    QueuedDeployment,
    HealthMonitor,
    RollbackWindowClosing,
    DriftWatch,
    PipelineWorkflow,
    SandboxSession,
    RetentionSweep,
    NotificationDelivery,
]

# Pure modules are shared with the sandbox instead of imported anew for every run: less work for each.
WORKFLOW_RUNNER = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules(
        "pydantic", "hotswap", "activities", "semver", "opentelemetry"
    )
)
