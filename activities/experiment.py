"""Counts what both versions of an A/B test did and says which one is better. Pure statistics: hotswap.analysis.experiment.

Neighbours: workflows.experiment carries the counts of closed chapters, activities.analysis guards the same traffic.
"""

from datetime import datetime

from temporalio import activity

from activities.analysis import SEEN_WITHIN
from activities.errors import translated
from hotswap.analysis.experiment import add_counts, compare, count_arms
from hotswap.domain.analysis import ArmCounts, DecisionMetric, ExperimentVerdict, Thresholds
from hotswap.domain.base import Instant, Model
from hotswap.ports.metrics import FiguresSource
from hotswap.ports.records import UnitOfWorkFactory


class CompareInput(Model):
    """`a` and `b` hold what was counted before `since`."""

    environment: str
    plugin: str
    a_version: str
    b_version: str
    a: ArmCounts
    b: ArmCounts
    since: Instant
    decision_metrics: tuple[DecisionMetric, ...]
    min_difference: float
    thresholds: Thresholds


class Comparison(Model):
    """`a` and `b` with the present chapter added."""

    verdict: ExperimentVerdict
    a: ArmCounts
    b: ArmCounts
    silent: tuple[str, ...] = ()


class ExperimentActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory, figures: FiguresSource) -> None:
        self._unit_of_work = unit_of_work
        self._figures = figures

    @activity.defn
    @translated
    async def compare_versions(self, order: CompareInput) -> Comparison:
        """One look. A node that is silent takes its counts of this chapter with it: a blurred picture, not a leaning one."""
        async with self._unit_of_work() as uow:
            nodes = await uow.nodes.list(order.environment, SEEN_WITHIN)
            now: datetime = await uow.now()
        readings = await self._figures.read(nodes, order.plugin, order.since)
        a, b = count_arms(readings.figures, order.a_version, order.b_version, order.thresholds.max_latency_p99_ms)
        a, b = add_counts(order.a, a), add_counts(order.b, b)
        verdict = compare(
            a,
            b,
            a_version=order.a_version,
            b_version=order.b_version,
            metrics=order.decision_metrics,
            limits=order.thresholds,
            min_difference=order.min_difference,
            now=now,
        )
        return Comparison(verdict=verdict, a=a, b=b, silent=readings.silent)
