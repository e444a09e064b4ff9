"""Plans a Rolling deployment: node by node, each batch healthy and watched before the next.

Pure. Neighbours: common holds the shared steps, registry chooses this planner, workflows.rolling carries the batches out.
"""

from hotswap.domain.deployment import DeploymentRequest, RollingConfig
from hotswap.domain.plan import Step, SwitchNodes
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.strategies.common import completion, judging_interval, preparation, watched_limits

DEFAULT_BATCH = 1


def rolling_steps(request: DeploymentRequest, config: RollingConfig, policy: EnvironmentPolicy) -> tuple[Step, ...]:
    """prepare, switch the nodes batch by batch, promote, retire.

    Which nodes there are is not in the plan: they come and go while it runs, so the batches are made when it is their turn.
    """
    switch = SwitchNodes(
        batch_size=config.batch_size if config.batch_size or config.batch_percent else DEFAULT_BATCH,
        batch_percent=config.batch_percent,
        wait_between_batches=config.wait_between_batches,
        health_check_timeout=config.health_check_timeout,
        progress_deadline=config.progress_deadline,
        interval=judging_interval(config.wait_between_batches),
        thresholds=watched_limits(config),
        on_inconclusive=config.on_inconclusive,
        auto_rollback=config.auto_rollback,
    )
    return (*preparation(request, policy), switch, *completion(config))
