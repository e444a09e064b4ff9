"""Plans a Canary deployment: growing percentages of tenants, each watched before the next.

Pure. Neighbours: common holds the shared steps, registry chooses this planner, hotswap.routing gives tenants their arm.
"""

from hotswap.domain.deployment import CanaryConfig, DeploymentRequest
from hotswap.domain.plan import Step
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.strategies.common import completion, preparation, shift_and_watch

DEFAULT_WEIGHTS = (10, 30, 50, 100)
DEFAULT_INITIAL_PERCENT = 10
DEFAULT_INCREMENT_PERCENT = 20


def canary_steps(request: DeploymentRequest, config: CanaryConfig, policy: EnvironmentPolicy) -> tuple[Step, ...]:
    """prepare, then for each weight shift and observe, promote, retire.

    A first deployment has no version to compare with but climbs the same steps: the absolute limits still guard it.
    """
    watched = shift_and_watch(
        canary_weights(config), config, config.evaluation_period, interval=config.evaluation_interval
    )
    return (*preparation(request, policy), *watched, *completion(config))


def canary_weights(config: CanaryConfig) -> tuple[int, ...]:
    """The percentages in order, ending at exactly 100: as given, or initial + n * increment, or 10, 30, 50, 100."""
    if config.steps is not None:
        return config.steps
    if config.initial_percentage is None and config.increment_percentage is None:
        return DEFAULT_WEIGHTS
    initial = config.initial_percentage or DEFAULT_INITIAL_PERCENT
    increment = config.increment_percentage or DEFAULT_INCREMENT_PERCENT
    return (*range(initial, 100, increment), 100)
