"""Holds a rollout at its step while a freeze stands, and releases it there. Guards stay on; undoing never asks here.

Asked before each step that moves traffic or nodes and before an observation may end, so a freeze costs nothing between.
A held rollout wakes when the facade tells that freezes changed, when the freeze ends by itself, and in any case after
`LONGEST_PATIENCE` (a signal may be lost with the api). Neighbours: activities.freezes knows what stands, gates look and wait.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.freezes import CheckFreeze, FreezeActivities
    from hotswap.domain.freeze import FreezeVerdict
    from hotswap.domain.plan import Observe, Step
    from workflows import activity_options
    from workflows.messages import Command
    from workflows.state import DeploymentState

FIRST_PATIENCE = timedelta(seconds=15)
LONGEST_PATIENCE = timedelta(minutes=5)
"""Between two questions: doubling from the first to the longest, so that a weekend's freeze of 10,000 costs 33 a second."""

MOVES_NOTHING = frozenset(
    {"verify-artifact", "run-trial", "await-approval", "observe", "warm-up", "smoke-nodes", "experiment", "bake"}
)
"""Steps that change neither traffic nor what nodes run. Every other kind, also one to come, is held before it begins."""


@dataclass(frozen=True)
class Guards:
    """What a hold needs of the gates: look once (raises UndoNeeded on a Fail), stand still for a person, leave in time."""

    look: Callable[[Observe], Awaitable[None]]
    hold_while_paused: Callable[[], Awaitable[None]]
    leave_when_history_is_full: Callable[[], None]


class Freezes:
    def __init__(self, state: DeploymentState, guards: Guards) -> None:
        self._state = state
        self._guards = guards

    async def hold_before(self, step: Step) -> None:
        """Hold before a step that moves something."""
        if step.kind not in MOVES_NOTHING:
            await self.hold()

    async def hold(self) -> None:
        """Stand still while a freeze stands. Raises UndoNeeded when a guard fails meanwhile, HistoryFull."""
        state = self._state
        if not state.plan.freezes:  # planned before there were freezes, or takes back a deployment
            return
        patience = FIRST_PATIENCE
        while True:
            news = state.freeze_news
            verdict = await self._ask()
            if not self._holds(verdict):
                break
            self._note_held(verdict)
            await self._stand(verdict, patience, news)
            patience = min(patience * 2, LONGEST_PATIENCE)
        self._note_released()

    async def _ask(self) -> FreezeVerdict:
        plan = self._state.plan
        return await workflow.execute_activity_method(
            FreezeActivities.check_freeze,
            CheckFreeze(environment=plan.environment, plugin=plan.plugin, at=workflow.now()),
            summary=f"may {plan.plugin} move in {plan.environment}",
            **activity_options.DATABASE,
        )

    def _holds(self, verdict: FreezeVerdict) -> bool:
        """An override passes every freeze but the stop switch, and says so once for each."""
        state, override = self._state, self._override()
        if not verdict.frozen or verdict.stopped or override is None:
            return verdict.frozen
        if verdict.freeze_id not in state.freezes_passed:
            state.freezes_passed.append(verdict.freeze_id)
            state.note(
                workflow.now(),
                "command",
                f"passes {verdict.text}: overridden by {override.by}: {override.reason}",
                {"by": override.by, "freeze": verdict.freeze_id},
            )
        return False

    def _override(self) -> Command | None:
        """An Admin's, given by command or with the request."""
        request = self._state.request
        if self._state.freeze_override is None and request.freeze_override_reason:
            return Command(by=request.initiated_by, reason=request.freeze_override_reason)
        return self._state.freeze_override

    def _note_held(self, verdict: FreezeVerdict) -> None:
        state = self._state
        if state.held_by != verdict.freeze_id:
            state.held_by = verdict.freeze_id
            state.note(workflow.now(), "freeze", f"held by {verdict.text}", {"freeze": verdict.freeze_id})
        if state.waiting_for != verdict.text:
            state.waiting_for = verdict.text
            state.touch()

    def _note_released(self) -> None:
        state = self._state
        if state.held_by:
            state.note(workflow.now(), "freeze", "released: nothing freezes it any more", {"freeze": state.held_by})
            state.held_by, state.waiting_for = "", ""

    async def _stand(self, verdict: FreezeVerdict, patience: timedelta, news: int) -> None:
        """Until it is time to ask again; a new version in traffic is judged each interval meanwhile."""
        state = self._state
        until = workflow.now() + patience
        if verdict.until is not None:
            until = min(until, verdict.until)
        while (left := until - workflow.now()) > timedelta(0):
            self._guards.leave_when_history_is_full()
            guard = state.guard() if state.in_traffic() else None
            undisturbed = await self._wait(min(left, guard.interval) if guard else left, news)
            if undisturbed and guard is not None:
                await self._guards.look(guard)
            if state.pause_wanted:
                if state.waiting_for == verdict.text:
                    state.waiting_for = ""  # a person holds it now, besides
                await self._guards.hold_while_paused()
                return
            if not undisturbed:
                return

    async def _wait(self, duration: timedelta, news: int) -> bool:
        """True when the time is over, False when something came before."""
        state = self._state
        try:
            await workflow.wait_condition(
                lambda: state.pause_wanted or state.freeze_news != news,
                timeout=duration,
                timeout_summary="held by a freeze",
            )
        except TimeoutError:
            return True
        return False
