"""Plans a Direct deployment: all tenants at once, after every node is ready; watched afterwards when that is asked.

Pure. Neighbours: common holds the shared steps, registry chooses this planner.
"""

from datetime import timedelta

from hotswap.domain.deployment import DeploymentRequest, DirectConfig
from hotswap.domain.plan import Step
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.strategies.common import completion, preparation, shift_and_watch


def direct_steps(request: DeploymentRequest, config: DirectConfig, policy: EnvironmentPolicy) -> tuple[Step, ...]:
    """prepare, [100 % watched for `monitoring_period`], promote, retire.

    While it is watched the old version stays loaded and the new one a candidate, so that taking it back is one switch.
    """
    watched: tuple[Step, ...] = ()
    if config.monitoring_period > timedelta(0):
        watched = shift_and_watch((100,), config, config.monitoring_period)
    return (*preparation(request, policy), *watched, *completion(config))
