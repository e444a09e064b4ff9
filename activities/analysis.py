"""Asks the nodes how the versions do and gives the verdict that the workflow records. Pure statistics: hotswap.analysis."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from temporalio import activity

from activities.errors import translated
from activities.own_metrics import OwnMetrics, Scene
from hotswap.analysis import policies
from hotswap.analysis.judge import judge
from hotswap.domain.analysis import InconclusivePolicy, NodeFigures, Outcome, Verdict, told_in_history
from hotswap.domain.base import Model
from hotswap.domain.deployment import NodeProgress
from hotswap.domain.metrics import MetricCounts, Ruling
from hotswap.domain.registry import NodeRecord
from hotswap.ports.metrics import FiguresSource, MetricProvider
from hotswap.ports.records import UnitOfWorkFactory

SEEN_WITHIN = timedelta(minutes=2)
"""A node that told nothing for longer has left; one that is merely silent now is named in the verdict."""


class JudgeInput(Scene):
    """`counts`: how the own metrics went so far in this step; the answer carries them on."""

    counts: tuple[MetricCounts, ...] = ()
    on_inconclusive: InconclusivePolicy = InconclusivePolicy.PAUSE


class Judgement(Model):
    """`ruling` says what follows; None without own metrics, when the verdict itself says it."""

    verdict: Verdict
    nodes: tuple[NodeProgress, ...]
    counts: tuple[MetricCounts, ...] = ()
    ruling: Ruling | None = None


class AnalysisActivities:
    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        figures: FiguresSource,
        providers: Mapping[str, MetricProvider] | None = None,
    ) -> None:
        """`providers` of own metrics, by kind."""
        self._unit_of_work = unit_of_work
        self._figures = figures
        self._own = OwnMetrics(providers or {})

    @activity.defn
    @translated
    async def judge_version(self, order: JudgeInput) -> Judgement:
        """One look at the figures since `since`. Silent nodes make it weaker, never an error."""
        async with self._unit_of_work() as uow:
            nodes = await uow.nodes.list(order.environment, SEEN_WITHIN)
            now: datetime = await uow.now()
        now = max(now, order.since)
        async with self._own.asking(order, now) as asked:
            readings = await self._figures.read(nodes, order.plugin, order.since)
            verdict = judge(
                readings.figures,
                readings.silent,
                candidate=order.candidate,
                baseline=order.baseline,
                thresholds=order.thresholds,
                since=order.since,
                now=now,
                weight_percent=order.weight_percent,
                own_sequences=order.own_sequences,
            )
            progress = _node_progress(nodes, readings.figures, readings.silent)
            if not order.metrics or verdict.outcome is Outcome.FAIL:  # a failed version waits for no slow provider
                return Judgement(verdict=verdict, nodes=progress, counts=order.counts)
            own = await self._own.verdicts(order, asked, readings.figures)
        counts, ruling = policies.rule(order.counts, verdict, order.on_inconclusive, own, order.metrics)
        return Judgement(verdict=policies.merged(verdict, own, ruling), nodes=progress, counts=counts, ruling=ruling)


def _node_progress(
    nodes: Sequence[NodeRecord], figures: tuple[NodeFigures, ...], silent: tuple[str, ...]
) -> tuple[NodeProgress, ...]:
    heard = {item.node_id: item for item in figures}
    rows = []
    for node in nodes:
        if node.node_id in heard:
            told = heard[node.node_id]
            hosts = told_in_history(told.hosts)
            rows.append(NodeProgress(node_id=node.node_id, state="Ready", generation=told.generation, hosts=hosts))
        elif node.node_id in silent:
            rows.append(NodeProgress(node_id=node.node_id, state="Lost", detail="does not answer"))
    return tuple(rows)
