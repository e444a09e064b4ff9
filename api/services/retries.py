"""Trying again what ended badly: a new deployment with the same request, from the top, with every gate.

The cohort is the same by itself: tenants are chosen by plugin and version. Neighbour: api.services.commands, which starts it.
"""

from api.schemas.deployments import DeploymentIn
from api.services.actor import Actor
from api.services.deployments import DeploymentService, Prepared
from hotswap.domain.deployment import DeploymentProgress
from hotswap.domain.errors import Conflict
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.ports.records import DeploymentRow, UnitOfWork

RETRY = "retry"

RETRYABLE = (
    DeploymentStatus.ROLLED_BACK,
    DeploymentStatus.ABORTED,
    DeploymentStatus.FAILED,
    DeploymentStatus.REJECTED,
)


def check_retry(progress: DeploymentProgress) -> None:
    """Raises Conflict saying what can be done instead."""
    if progress.status in RETRYABLE:
        return
    instead = {
        DeploymentStatus.COMPLETED: f"{progress.to_version} was brought in; there is nothing to try again",
        DeploymentStatus.SUPERSEDED: "another one took its place on purpose; deploy the version that you want",
    }.get(progress.status, "it has not ended; wait for its end, or abort it first")
    raise Conflict(f"{progress.deployment_id} is {progress.status}: {instead}")


async def prepare_retry(
    deployments: DeploymentService, uow: UnitOfWork, failed: DeploymentRow, reason: str, actor: Actor, retry_id: str
) -> Prepared:
    """The same request, checked anew: the version may have been archived since. Raises what a first request raises.

    A rollback of a completed deployment that failed is tried again as an ordinary deployment, with trial and approval:
    what let it pass without was the good state of the environment, which is gone.
    """
    progress = failed.progress
    wanted = DeploymentIn(
        plugin_id=progress.plugin,
        version=progress.to_version,
        environment=progress.environment,
        strategy=progress.strategy,
        config=failed.config,
        reason=reason or progress.reason,
        hotfix=progress.hotfix,
    )
    return await deployments.prepare(uow, wanted, actor, retry_id, retry_of=progress.deployment_id)
