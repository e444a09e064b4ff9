"""How the false-alarm rate is shared among windows whose number nobody knows beforehand. Pure.

Neighbours: workflows.rolling (a window for each batch of nodes) and workflows.experiment (a window for each hour of a test
of days) judge each window anew; hotswap.strategies.common divides alpha equally where the plan knows how many there are.
"""

from hotswap.domain.analysis import Thresholds


def limits_of_window(limits: Thresholds, number: int) -> Thresholds:
    """The limits for window `number` (from 1): its part of alpha is 1 / (n * (n + 1)), and all parts add up to 1.

    So the whole keeps its alpha (union bound) however many windows come. The price is small, evidence being logarithmic in
    alpha: the hundredth window needs about 9 more nats than the first, some hundred requests of a version gone bad.
    Raises ValueError below 1.
    """
    if number < 1:
        raise ValueError(f"windows count from 1, not from {number}")
    return limits.model_copy(update={"alpha": limits.alpha / (number * (number + 1))})
