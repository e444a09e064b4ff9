"""The last thing a Completed deployment does: hand its version over to the health monitor (workflows.monitor)."""

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.errors import failure_of
    from activities.monitor import MonitorActivities
    from hotswap.domain.health import MonitorSubject
    from hotswap.domain.lifecycle import DeploymentStatus
    from workflows import activity_options
    from workflows.state import DeploymentState


async def hand_over(state: DeploymentState) -> None:
    """Nothing to do unless the plan asks for aftercare, which plans of older releases do not."""
    if state.status is not DeploymentStatus.COMPLETED:
        return
    plan = state.plan
    if plan.aftercare is None or plan.previous is None:
        return
    subject = MonitorSubject(
        deployment_id=state.request.deployment_id,
        environment=state.request.environment,
        plugin=plan.plugin,
        target=plan.target,
        previous=plan.previous,
        care=plan.aftercare,
        completed_at=workflow.now(),
        crashes={
            node.node_id: sum(host.crashes for host in node.hosts if host.version == plan.to_version)
            for node in state.nodes.values()
            if node.hosts
        },
    )
    try:
        await workflow.execute_activity_method(
            MonitorActivities.start_monitor,
            subject,
            summary=f"watch {plan.to_version} from now on",
            **activity_options.DATABASE,
        )
    except ActivityError as error:  # the version serves; that nobody watches it is said where operators look
        workflow.logger.error("no health monitor was started: %s", failure_of(error).message)
