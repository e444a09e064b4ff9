"""Says what watches a version once its rollout is over. Pure.

Neighbours: registry asks here, hotswap.domain.aftercare holds the words, workflows.monitor follows the orders.
"""

from hotswap.domain.aftercare import Aftercare
from hotswap.domain.deployment import DeploymentRequest
from hotswap.domain.routes import ArtifactRef


def aftercare_of(request: DeploymentRequest, previous: ArtifactRef | None) -> Aftercare | None:
    """None when there is nothing to go back to, or when it is itself a rollback: one never triggers another."""
    config = request.config
    if previous is None or request.rollback_of is not None:
        return None
    return Aftercare(
        interval=config.monitor_interval,
        max_faulty_hosts=config.thresholds.max_crashed_hosts,
        auto_rollback=config.auto_rollback,
        rollback_window=config.rollback_window,
        drain_grace=config.drain_grace,
    )
