"""The spans of a rollout: one for each phase of its plan, and one for taking it back. Called from workflows.deployment.

A span is exported when it ends, so what waits for people, time or evidence has none: the phase after a wait links to the
phase before it, and to the commands that came meanwhile. All are children of the request that started the rollout.
Replay makes the same ids again and exports nothing twice (hotswap.telemetry.configure_tracing).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry.trace import SpanContext

from hotswap.domain.deployment import DeploymentRequest
from hotswap.domain.plan import AwaitApproval, Bake, Experiment, Observe, Step, SwitchNodes, WarmUp
from hotswap.tracing import MAX_LINKS, SpanName, current, span

WAITING = (AwaitApproval, Bake, Experiment, Observe, SwitchNodes, WarmUp)
"""Steps that last as long as people or time want. What they order from nodes has spans of its own all the same."""


class Phases:
    def __init__(self, request: DeploymentRequest) -> None:
        self._facts = {
            "deployment": request.deployment_id,
            "plugin": request.plugin,
            "version": request.version,
            "environment": str(request.environment),
            "strategy": str(request.strategy),
        }
        self._last: SpanContext | None = None
        self._causes: list[SpanContext] = []

    def commanded(self) -> None:
        """A command has come, by a request with a trace of its own: the next span links to it."""
        if (command := current()) is not None:
            self._causes = [*self._causes[-(MAX_LINKS - 2) :], command]

    def of_step(self, step: Step) -> AbstractContextManager[None]:
        if not isinstance(step, WAITING):
            return self.phase(step.kind)
        if self._last is not None:
            self._causes = [self._last, *self._causes]
        return nullcontext()

    def phase(self, name: str) -> AbstractContextManager[None]:
        return self._span(SpanName.DEPLOY, name)

    def rollback(self, event: str) -> AbstractContextManager[None]:
        """`event`: the move of the lifecycle that it will end with."""
        return self._span(SpanName.ROLLBACK, event)

    @contextmanager
    def _span(self, name: SpanName, phase: str) -> Iterator[None]:
        causes, self._causes = self._causes, []
        with span(name, {**self._facts, "phase": phase}, links=causes) as running:
            self._last = running.get_span_context()
            yield
