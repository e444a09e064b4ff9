"""What a rollout's end adds to the worker's figures (docs/telemetry.md). Replay adds nothing: the workflow's meter sees to it.

The page is the one of Temporal's SDK (hotswap.temporal.make_runtime), so these stand beside its own. Labels are bounded:
environment, strategy, status and what the SDK adds (namespace, task queue, workflow type); never a plugin or a tenant.
"""

from datetime import datetime

from temporalio import workflow
from temporalio.common import MetricMeter

from hotswap.domain.deployment import Environment, Strategy
from hotswap.domain.lifecycle import DeploymentStatus
from workflows.messages import WORKFLOW_OF_STRATEGY
from workflows.state import DeploymentState

DEPLOYED, ROLLED_BACK, FAILED = "plugins_deployed", "plugins_rollback", "plugins_failed"
MEANING = {
    DEPLOYED: "Deployments that completed.",
    ROLLED_BACK: "Deployments whose traffic was given back, and completed ones that took another back.",
    FAILED: "Deployments that undid themselves, or could not.",
}
DEPLOYMENT_SECONDS, ROLLBACK_SECONDS = "deployment_duration", "rollback_duration"
"""Without their unit, which the page adds."""

HISTOGRAM_LIMITS = {
    DEPLOYMENT_SECONDS: (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 604800.0),
    ROLLBACK_SECONDS: (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
}

_STATUSES = {
    DEPLOYED: (DeploymentStatus.COMPLETED,),
    ROLLED_BACK: (
        DeploymentStatus.COMPLETED,
        DeploymentStatus.ROLLED_BACK,
        DeploymentStatus.ABORTED,
        DeploymentStatus.REJECTED,
        DeploymentStatus.SUPERSEDED,
        DeploymentStatus.FAILED,
    ),
    FAILED: (DeploymentStatus.ROLLED_BACK, DeploymentStatus.FAILED),
}
"""The statuses that each counter knows."""


def count_ending(state: DeploymentState, undoing_since: datetime | None) -> None:
    """Called once, when a deployment has ended."""
    meter, request, status = workflow.metric_meter(), state.request, state.status
    labels = {"environment": str(request.environment), "strategy": str(request.strategy), "status": str(status)}
    back = state.rolled_back_at is not None or (request.rollback_of is not None and status is _STATUSES[DEPLOYED][0])
    for name, counts in (
        (DEPLOYED, status in _STATUSES[DEPLOYED]),
        (ROLLED_BACK, back),
        (FAILED, status in _STATUSES[FAILED]),
    ):
        if counts:
            meter.create_counter(name, MEANING[name]).add(1, labels)
    if state.started_at is not None and state.finished_at is not None:
        whole = meter.create_histogram_timedelta(DEPLOYMENT_SECONDS, "Begin to end, waits included.", "duration")
        whole.record(state.finished_at - state.started_at, labels)
    if state.rolled_back_at is not None and undoing_since is not None:
        undone = meter.create_histogram_timedelta(
            ROLLBACK_SECONDS, "Decision to go back until all traffic is back.", "duration"
        )
        undone.record(state.rolled_back_at - undoing_since, labels)


def announce(meter: MetricMeter, namespace: str, task_queue: str) -> None:
    """Show every counter as 0 before anything ends: increase() is blind to an event that makes its series."""
    for strategy in Strategy:
        of_sdk = {
            "namespace": namespace,
            "task_queue": task_queue,
            "workflow_type": WORKFLOW_OF_STRATEGY[strategy],
        }
        for environment in Environment:
            for name, statuses in _STATUSES.items():
                counter = meter.create_counter(name, MEANING[name])
                for status in statuses:
                    labels = {"environment": str(environment), "strategy": str(strategy), "status": str(status)}
                    counter.add(0, {**of_sdk, **labels})
