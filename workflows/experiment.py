"""Runs an A/B test for hours to days: guards at every look, counts by chapters, and the evidence decides. Called from step_runner.

A chapter is an hour. Nodes keep figures for a day and forget them with a restart, so what a chapter counted is carried in
the state; and guards look only at the present chapter, because a version that turns bad on the third day would hide behind
two good ones for hours. Neighbours: activities.experiment compares, gates guards and asks people.
"""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.experiment import CompareInput, Comparison, ExperimentActivities
    from hotswap.domain.analysis import Outcome, Winner
    from hotswap.domain.plan import Experiment
    from hotswap.tracing import aside
    from workflows import activity_options, haste
    from workflows.gates import Gates, UndoNeeded
    from workflows.state import ArmsProgress, Watch

CHAPTER = timedelta(hours=1)

CHAPTER_GAP = timedelta(minutes=1)
"""Left uncounted between two chapters: figures older than 5 minutes have a minute's resolution, and a request that is
counted twice would lean the verdict, while one that is not counted only blurs it."""


class ExperimentGate(Gates):
    """Carries out Experiment. All it knows is in state.watch, state.window and state.arms, so that it can continue as new."""

    async def run(self, step: Experiment) -> None:
        """Returns when B has won and may be promoted. Raises UndoNeeded when A stays, saying why."""
        state = self._state
        if state.watch is None or state.arms is None:
            state.window = 1
            state.watch = Watch(since=workflow.now(), remaining=step.duration)
            state.arms = ArmsProgress(counted_since=workflow.now())
            state.counts, state.ruling = (), None
        elif state.arms.asking and self._answered(step):  # continued as new while a person was asked
            return self._over()
        while True:
            self._leave_when_history_is_full()
            early = await self._look_once(step)
            if not early and state.watch.remaining > timedelta(0):
                if workflow.now() - state.watch.since >= CHAPTER:
                    await self._close_chapter(step)
                continue
            comparison = await self._compare(step)
            if comparison.verdict.winner is not Winner.B:
                raise UndoNeeded(
                    f"{step_winner(comparison)}A ({comparison.verdict.a_version}) stays: {comparison.verdict.reason}",
                    "read the evidence; deploy a changed version, or test longer, with more tenants or more load",
                )
            if (step.auto_promote and not self._failing()) or early or await self._person_wants_it(step, comparison):
                return self._over()

    async def _look_once(self, step: Experiment) -> bool:
        """Wait for the next look and take it. True when a person ends the test now: the evidence so far decides."""
        watch, guard = self._state.watch, self._state.guard_in_window(step)
        if watch is None or guard is None:
            raise RuntimeError("a test that runs has a watch and a guard")
        started = workflow.now()
        if watch.remaining > timedelta(0):
            await self._wait(min(step.interval, watch.remaining))
            await self._look(guard)
            watch.remaining -= workflow.now() - started
        await self.hold_while_paused()
        return haste.ends_early(self._state, step.thresholds)

    async def _person_wants_it(self, step: Experiment, comparison: Comparison) -> bool:
        """Hold for a person: promote makes B stable, abort or rollback keep A, resume tests on for as long again."""
        state, arms = self._state, self._state.arms
        if arms is None:
            raise RuntimeError("a test that is decided has its counts")
        arms.asking = True
        but = "a guard fails" if self._failing() else "autoPromote is off"
        state.waiting_for = f"a person to promote or abort, because {but}: {comparison.verdict.reason}"
        state.pause_wanted = True
        await self.hold_while_paused()
        return self._answered(step)

    def _answered(self, step: Experiment) -> bool:
        state, watch, arms = self._state, self._state.watch, self._state.arms
        if watch is None or arms is None:
            raise RuntimeError("a test that is decided has a watch and its counts")
        arms.asking = False
        if haste.ends_early(state, step.thresholds):
            return True
        watch.remaining = step.duration
        state.note(workflow.now(), "experiment", f"resumed: testing on for {step.duration}")
        return False

    def _failing(self) -> bool:
        """B may be better than A and still be over a limit, when autoRollback is off."""
        return self._state.verdict is not None and self._state.verdict.outcome is Outcome.FAIL

    def _over(self) -> None:
        self._state.watch, self._state.arms, self._state.window = None, None, 1

    async def _close_chapter(self, step: Experiment) -> None:
        state = self._state
        comparison = await self._compare(step)
        if state.watch is None or state.arms is None:
            raise RuntimeError("a test that runs has a watch and its counts")
        state.arms.a, state.arms.b = comparison.a, comparison.b
        state.watch.since = workflow.now()
        state.arms.counted_since = workflow.now() + CHAPTER_GAP
        state.window += 1

    async def _compare(self, step: Experiment) -> Comparison:
        state, plan, arms = self._state, self._state.plan, self._state.arms
        if arms is None or plan.from_version is None:
            raise RuntimeError("a test compares two versions and has counts")
        with aside():
            comparison = await workflow.execute_activity_method(
                ExperimentActivities.compare_versions,
                CompareInput(
                    environment=plan.environment,
                    plugin=plan.plugin,
                    a_version=plan.from_version,
                    b_version=plan.to_version,
                    a=arms.a,
                    b=arms.b,
                    since=arms.counted_since,
                    decision_metrics=step.decision_metrics,
                    min_difference=step.min_difference,
                    thresholds=step.thresholds,
                ),
                summary=f"compare {plan.from_version} and {plan.to_version}",
                **activity_options.DATABASE,
            )
        before, state.experiment = state.experiment, comparison.verdict
        state.touch()
        if before is None or before.winner is not comparison.verdict.winner:
            verdict = comparison.verdict
            state.note(
                workflow.now(), "experiment", f"winner {verdict.winner}: {verdict.reason}", {"winner": verdict.winner}
            )
        return comparison


def step_winner(comparison: Comparison) -> str:
    return "" if comparison.verdict.winner is Winner.A else "no winner, so "
