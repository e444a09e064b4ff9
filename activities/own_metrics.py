"""Asks the providers of a rollout's own metrics, all at once, and turns their answers into verdicts. One look each.

Neighbours: activities.analysis runs it beside the nodes' figures; hotswap.analysis.own_metrics judges; adapters ask.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from hotswap.analysis.metrics import shares_of_alpha
from hotswap.analysis.own_metrics import Answer, judge_answer, judge_counted, not_applicable, sequences
from hotswap.analysis.sample import collect
from hotswap.domain.analysis import MetricVerdict, NodeFigures, Thresholds
from hotswap.domain.base import Instant, Model
from hotswap.domain.errors import MetricProviderFault
from hotswap.domain.ids import deployment_workflow_id
from hotswap.domain.metrics import Compare, MetricProviderKind, MetricQuestion, MetricSpec
from hotswap.ports.metrics import MetricProvider

log = logging.getLogger(__name__)

Asked = Mapping[tuple[str, str], "asyncio.Task[Answer]"]
"""The answers on their way, by metric and version."""


class Scene(Model):
    """What a look is about."""

    environment: str
    plugin: str
    candidate: str
    baseline: str | None
    since: Instant
    weight_percent: int
    thresholds: Thresholds
    metrics: tuple[MetricSpec, ...] = ()

    @property
    def compared(self) -> bool:
        """Somebody is on the version in place, so that a comparison says something."""
        return self.baseline is not None and self.weight_percent < 100

    @property
    def own_sequences(self) -> int:
        return sequences(self.metrics, compared=self.compared)


class OwnMetrics:
    def __init__(self, providers: Mapping[str, MetricProvider]) -> None:
        """`providers` by kind; one that the platform does not have is an error of every metric that names it."""
        self._providers = providers

    @asynccontextmanager
    async def asking(self, scene: Scene, now: datetime) -> AsyncIterator[Asked]:
        """Every question is on its way while inside; what has not been answered at the end is given up."""
        asked = {
            (spec.name, version): asyncio.create_task(self._ask(_question(scene, spec, version, now), spec.provider))
            for spec in scene.metrics
            if spec.provider is not MetricProviderKind.NODES and _applies(spec, scene)
            for version in _versions(spec, scene)
        }
        try:
            yield asked
        finally:
            for task in asked.values():
                task.cancel()
            await asyncio.gather(*asked.values(), return_exceptions=True)

    async def verdicts(self, scene: Scene, asked: Asked, figures: Sequence[NodeFigures]) -> tuple[MetricVerdict, ...]:
        """One for each metric, in the order of the configuration. Waits for what has not been answered yet."""
        sample = collect(figures, scene.candidate, scene.baseline)
        alpha = scene.thresholds.alpha / (shares_of_alpha(scene.compared) + scene.own_sequences)
        told = []
        for spec in scene.metrics:
            if not _applies(spec, scene):
                told.append(not_applicable(spec, scene.baseline))
            elif spec.provider is MetricProviderKind.NODES:
                told.append(judge_counted(spec, sample, scene.thresholds, alpha))
            else:
                answers = [await asked[spec.name, version] for version in _versions(spec, scene)]
                candidate, baseline = (answers[0], answers[1]) if len(answers) > 1 else (answers[0], None)
                versions = (scene.candidate, scene.baseline)
                told.append(judge_answer(spec, versions, candidate, baseline, scene.thresholds.min_sample))
        return tuple(told)

    async def _ask(self, question: MetricQuestion, kind: str) -> Answer:
        provider = self._providers.get(kind)
        if provider is None:
            return MetricProviderFault(f"this platform has no {kind} to ask", transient=False)
        try:
            return await provider.measure(question)
        except MetricProviderFault as fault:
            return fault
        except Exception as bug:  # an adapter's bug must not blind the guards that the nodes' own figures are
            log.exception("asking %s for %s failed", kind, question.metric)
            return MetricProviderFault(
                f"{kind} could not be asked ({type(bug).__name__}); see the worker's log", transient=False
            )


def _applies(spec: MetricSpec, scene: Scene) -> bool:
    return scene.compared or not spec.needs_baseline


def _versions(spec: MetricSpec, scene: Scene) -> tuple[str, ...]:
    """Whom the question is about: the candidate, and the version in place beside it where they are compared."""
    if spec.compare is Compare.ABSOLUTE or scene.baseline is None:
        return (scene.candidate,)
    return (scene.candidate, scene.baseline)


def _question(scene: Scene, spec: MetricSpec, version: str, now: datetime) -> MetricQuestion:
    return MetricQuestion(
        deployment=deployment_workflow_id(scene.environment, scene.plugin),
        metric=spec.name,
        query=spec.query,
        url=spec.url,
        secret=spec.secret,
        plugin=scene.plugin,
        environment=scene.environment,
        version=version,
        candidate=scene.candidate,
        baseline=scene.baseline,
        weight_percent=scene.weight_percent,
        since=scene.since,
        now=now,
    )
