"""The places where a deployment waits: for people, for time, for evidence. Guards stay on through every wait.

An observation ends by evidence, by time, or by a person's `promote`; a Fail ends it at once.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.analysis import AnalysisActivities, JudgeInput
    from activities.errors import failure_of
    from hotswap.domain.analysis import InconclusivePolicy, Outcome, Verdict
    from hotswap.domain.lifecycle import DeploymentStatus, Event
    from hotswap.domain.notices import APPROVAL_EXPIRED, PAUSED_BY_PERSON
    from hotswap.domain.plan import AwaitApproval, Observe
    from hotswap.tracing import aside
    from workflows import activity_options, commands, haste
    from workflows.freezes import Freezes, Guards
    from workflows.state import DeploymentState, Watch

HISTORY_LIMIT = 8_000
"""Events after which a waiting run continues as new: below the 10,000 of design invariant 9, with room for an undo."""

PAUSED_INTERVAL = timedelta(seconds=30)
"""How often guards look while a person holds the rollout."""


class UndoNeeded(Exception):
    """The deployment must be undone. `event` is the move that ends it, `what_to_do` advice for a person."""

    def __init__(self, reason: str, what_to_do: str = "", event: Event = Event.UNDONE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.what_to_do = what_to_do
        self.event = event


class HistoryFull(Exception):
    """A safe point to continue as new: the state says everything."""


class Gates:
    def __init__(self, state: DeploymentState) -> None:
        self._state = state
        self.freezes = Freezes(state, Guards(self._look, self.hold_while_paused, self._leave_when_history_is_full))

    async def await_approval(self, gate: AwaitApproval) -> None:
        """Wait for the people the plan asks for. Raises UndoNeeded when the time is over."""
        state = self._state
        if state.status is not DeploymentStatus.AWAITING_APPROVAL:
            admin = ", one of them an Admin" if gate.require_admin else ""
            people = "1 approval" if gate.required == 1 else f"{gate.required} approvals"
            state.waiting_for = f"{people}{admin}, not by {state.request.initiated_by}"
            state.approval_expires_at = workflow.now() + gate.expires_after
            state.move(Event.ASK_APPROVAL, workflow.now(), f"waiting for {state.waiting_for}")
        try:
            await workflow.wait_condition(
                lambda: commands.approved(state), timeout=gate.expires_after, timeout_summary="approval expires"
            )
        except TimeoutError:
            raise UndoNeeded(
                f"{APPROVAL_EXPIRED} within {gate.expires_after}", "deploy again", Event.UNDONE_AFTER_REJECT
            ) from None
        state.waiting_for = ""
        state.move(Event.APPROVE, workflow.now(), "approved")

    async def hold_while_paused(self) -> None:
        """Stand still while a person wants it. The new version stays judged: a Fail raises UndoNeeded."""
        state = self._state
        # Paused and not wanted any more: resumed in the moment in which the run was continued as new.
        if not state.pause_wanted and state.status is not DeploymentStatus.PAUSED:
            return
        state.waiting_for = state.waiting_for or PAUSED_BY_PERSON
        if state.status is not DeploymentStatus.PAUSED:
            state.move(Event.PAUSE, workflow.now(), f"paused: waiting for {state.waiting_for}")
        guard = state.guard()
        watched = guard is not None and state.in_traffic()
        while self._held():
            self._leave_when_history_is_full()
            if not watched and workflow.patched("a-pause-without-guards-sleeps"):
                # Nothing can change but by a command: without timers, thousands of paused deployments cost nothing.
                await workflow.wait_condition(lambda: not self._held() or _history_is_full())
                continue
            await self._wait(guard.interval if guard and state.watch else PAUSED_INTERVAL, until_resumed=True)
            if self._held() and guard is not None and state.in_traffic():
                await self._look(guard)
        state.waiting_for = ""
        state.counts = ()  # a person has seen what was counted: own metrics get their whole limits again
        state.move(Event.RESUME, workflow.now(), "resumed")

    async def observe(self, step: Observe) -> None:
        """Judge each interval for the whole period; then let the evidence decide. Raises UndoNeeded on a Fail."""
        state = self._state
        if state.watch is None:
            state.watch = Watch(since=workflow.now(), remaining=step.period)
            state.counts, state.ruling = (), None
        while True:
            self._leave_when_history_is_full()
            started = workflow.now()
            await self._wait(min(step.interval, max(state.watch.remaining, timedelta(milliseconds=1))))
            await self._look(step)
            state.watch.remaining -= workflow.now() - started
            await self.hold_while_paused()
            if state.watch.remaining <= timedelta(0) or haste.wanted(state):
                await self.freezes.hold()
            if haste.ends_early(state, step.thresholds):
                break
            if state.watch.remaining <= timedelta(0) and await self._period_over(step):
                break
        state.watch = None

    def _held(self) -> bool:
        return self._state.pause_wanted

    async def _period_over(self, step: Observe) -> bool:
        """True when the step is done. Otherwise it was extended, or a person has resumed it."""
        state, watch, verdict = self._state, self._state.watch, self._state.verdict
        if watch is None or verdict is None:
            raise RuntimeError("an observation that runs has a watch and was judged")
        if verdict.outcome is Outcome.PASS:
            return True
        held = state.ruling is not None and state.ruling.decision is not InconclusivePolicy.CONTINUE
        if verdict.outcome is Outcome.FAIL or held:  # it was held for that and a person resumed: watch on, never pass
            watch.remaining = step.period
            return False
        how = verdict.outcome.lower()
        match state.ruling.at_end if state.ruling else step.on_inconclusive:
            case InconclusivePolicy.CONTINUE:
                state.note(workflow.now(), "verdict", f"{how}, going on as the plan says: {verdict.reason}")
                return True
            case InconclusivePolicy.ROLLBACK:
                raise UndoNeeded(f"{how} at the end of the step: {verdict.reason}")
            case InconclusivePolicy.EXTEND if watch.extensions < step.max_extensions:
                watch.extensions += 1
                watch.remaining = step.period
                state.note(workflow.now(), "verdict", f"{how}, watching on for {step.period}: {verdict.reason}")
                return False
            case _:
                evidence = "the evidence is inconclusive" if how == "inconclusive" else "a metric has no answer"
                state.waiting_for = f"a person, because {evidence}: {verdict.reason}"
                state.pause_wanted = True
                watch.remaining = step.period  # before the hold: a run that leaves in it forgets where it was
                await self.hold_while_paused()
                return haste.ends_early(state, step.thresholds)

    async def _look(self, step: Observe) -> None:
        """Judge once and act on a Fail: undo, or hold for a person when the plan forbids undoing by itself.

        With own metrics the recorded ruling says what follows, of an Error too.
        """
        state = self._state
        before = state.verdict
        verdict = await self._judge(step)
        state.verdict = verdict
        state.touch()
        if before is None or before.outcome is not verdict.outcome:
            state.note(workflow.now(), "verdict", f"{verdict.outcome}: {verdict.reason}", {"outcome": verdict.outcome})
        wanted = state.ruling.decision if state.ruling else InconclusivePolicy.CONTINUE
        if verdict.outcome is Outcome.FAIL or wanted is not InconclusivePolicy.CONTINUE:
            held = wanted is InconclusivePolicy.PAUSE
            failed = "failed" if verdict.outcome is Outcome.FAIL else f"is {verdict.outcome}"
            if step.auto_rollback and not held:
                raise UndoNeeded(
                    f"the verdict {failed} at {state.set_weight_percent} %: {verdict.reason}",
                    "read the verdict's figures, mend the plugin and deploy a new version",
                )
            why = "its policy is to pause" if held else "autoRollback is off"
            state.waiting_for = f"a person, because the verdict {failed} and {why}: {verdict.reason}"
            state.pause_wanted = True
            if state.promote_wanted and workflow.patched("a-fail-voids-promote"):
                state.promote_wanted = False  # it was given before this was known; `resume` alone must not pass it

    async def _judge(self, step: Observe) -> Verdict:
        state, plan = self._state, self._state.plan
        # A window must not span a change of weight (hotswap.analysis.judge): between steps it begins at the last one.
        since = state.watch.since if state.watch else state.weight_since or workflow.now()
        own = plan.metrics if state.in_traffic() else ()  # without tenants an own metric has nothing to tell
        try:
            with aside():
                judgement = await workflow.execute_activity_method(
                    AnalysisActivities.judge_version,
                    JudgeInput(
                        environment=plan.environment,
                        plugin=plan.plugin,
                        candidate=plan.to_version,
                        baseline=plan.from_version,
                        since=since,
                        weight_percent=state.set_weight_percent,
                        thresholds=step.thresholds,
                        metrics=own,
                        counts=state.counts,
                        on_inconclusive=step.on_inconclusive,
                    ),
                    summary=f"judge {plan.to_version} at {state.set_weight_percent} %",
                    **(activity_options.JUDGE_OWN_METRICS if own else activity_options.JUDGE),
                )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            state.ruling = None
            return Verdict(
                outcome=Outcome.INCONCLUSIVE,
                reason=f"no verdict could be given: {failure_of(error).message}",
                taken_at=workflow.now(),
                window=workflow.now() - since,
            )
        for node in judgement.nodes:
            state.nodes[node.node_id] = node
        state.counts, state.ruling = judgement.counts, judgement.ruling
        return judgement.verdict

    async def _wait(self, duration: timedelta, until_resumed: bool = False) -> None:
        """Sleep, but wake at once for a command."""
        state = self._state

        def disturbed() -> bool:
            return (not state.pause_wanted) if until_resumed else (state.pause_wanted or haste.wanted(state))

        try:
            await workflow.wait_condition(disturbed, timeout=duration, timeout_summary="next look at the figures")
        except TimeoutError:
            return

    def _leave_when_history_is_full(self) -> None:
        if _history_is_full():
            raise HistoryFull


def _history_is_full() -> bool:
    info = workflow.info()
    return info.get_current_history_length() > HISTORY_LIMIT or info.is_continue_as_new_suggested()
