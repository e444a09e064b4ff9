"""Writes into a plan's observations how many requests a regression of the declared size takes to be found. Pure.

Neighbours: registry calls it on every strategy's steps, hotswap.analysis.power does the arithmetic; the facade and
`hotswap deploy --plan` show it before anything is started.
"""

from collections.abc import Sequence

from hotswap.analysis.own_metrics import sequences
from hotswap.analysis.power import expected_samples
from hotswap.domain.deployment import CommonConfig
from hotswap.domain.plan import Observe, Step


def announced(steps: Sequence[Step], config: CommonConfig, *, compared: bool) -> tuple[Step, ...]:
    """The steps, each observation with its expected samples. `compared`: there is a version in place."""
    return tuple(_announced(step, config, compared) if isinstance(step, Observe) else step for step in steps)


def _announced(step: Observe, config: CommonConfig, compared: bool) -> Observe:
    own = sequences(config.metrics, compared=compared and step.weight_percent < 100)
    samples = expected_samples(step.thresholds, step.weight_percent, config.regression, compared, own)
    return step.model_copy(update={"expected_sample": samples})
