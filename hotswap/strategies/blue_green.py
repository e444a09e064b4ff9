"""Plans a BlueGreen deployment: warm and test the idle colour, then switch, watch, and keep the old colour loaded.

Pure. Neighbours: common holds the shared steps, registry chooses this planner, workflows.bluegreen carries out the
warm-up and the smoke tests.
"""

from datetime import timedelta

from hotswap.domain.deployment import BlueGreenConfig, DeploymentRequest, Switchover
from hotswap.domain.plan import SmokeNodes, Step, WarmUp
from hotswap.domain.registry import EnvironmentPolicy
from hotswap.strategies.common import completion, judging_interval, preparation, shift_and_watch

DEFAULT_GRADUAL_WEIGHTS = (25, 50, 75, 100)


def blue_green_steps(
    request: DeploymentRequest, config: BlueGreenConfig, policy: EnvironmentPolicy
) -> tuple[Step, ...]:
    """prepare, [warm up], smoke tests, switch (at once or by steps) and watch, promote, retire what is older still."""
    warm_up: tuple[Step, ...] = ()
    if config.warmup_period > timedelta(0):
        warm_up = (
            WarmUp(
                period=config.warmup_period,
                interval=judging_interval(config.warmup_period),
                thresholds=config.thresholds,
                auto_rollback=config.auto_rollback,
            ),
        )
    return (
        *preparation(request, policy),
        *warm_up,
        SmokeNodes(timeout=config.smoke_timeout),
        *shift_and_watch(blue_green_weights(config), config, config.monitoring_period),
        *completion(config, keep_previous=config.keep_previous_environment),
    )


def blue_green_weights(config: BlueGreenConfig) -> tuple[int, ...]:
    """The percentages in order, ending at exactly 100."""
    if config.switchover is Switchover.INSTANT:
        return (100,)
    return config.gradual_steps or DEFAULT_GRADUAL_WEIGHTS
