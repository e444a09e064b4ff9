"""Watches the version in place for as long as it is: takes it back once when its fault lasts, ends its rollback window.

It sleeps until a node tells of a fault that lasts (hotswap.node.alarm), and then looks until all is well again. One run for each (environment, plugin); a newer deployment hands it its new subject by the signal `watch`. It has no lock
on the route, so whatever changes routes runs under the deployments' workflow id: the rollback is a DirectDeployment, the
end of the window the small workflow below. Neighbours: activities.monitor looks and writes, workflows.handover starts it.
"""

import asyncio
from datetime import datetime, timedelta

from pydantic import BaseModel, Field
from temporalio import workflow
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ActivityError, ChildWorkflowError, WorkflowAlreadyStartedError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.errors import failure_of
    from activities.monitor import (
        LookInput,
        MonitorActivities,
        MonitorLook,
        Place,
        RollbackOrder,
        RollbackStarted,
        WindowClosed,
    )
    from activities.nodes import NodeActivities, RetireInput
    from activities.routing import LiveNodes, RoutingActivities
    from hotswap import temporal
    from hotswap.domain.base import bounded
    from hotswap.domain.health import Condition, FaultSeen, MonitorSubject
    from hotswap.domain.ids import deployment_workflow_id, node_queue
    from hotswap.domain.lifecycle import DeploymentStatus
    from hotswap.domain.registry import NodeRecord
    from hotswap.domain.routes import RouteOrder
    from workflows import activity_options, launch
    from workflows.messages import WORKFLOW_OF_STRATEGY
    from workflows.outlive import continue_as_new_when_due


RESTING = timedelta(minutes=10)
"""Between two looks while nobody tells of a fault: for what no node can tell, as that it does not have the version at all."""


class MonitorState(BaseModel):
    """Everything a monitor knows; continue-as-new carries it, the query `status` tells it."""

    subject: MonitorSubject
    since: datetime
    looks: int = 0
    failing: int = Field(default=0, description="looks in a row that found a fault")
    crashes: dict[str, int] = Field(default_factory=dict)
    last: str = "no look yet"
    window_open: bool = False
    awake: bool = Field(default=False, description="a fault was told of or found, and no look has found all well since")
    gave_up: bool = False
    """A rollback of this subject was ordered before, or cannot be: there is never a second."""
    back: RollbackStarted | None = Field(default=None, description="runs, and is not on record yet")

    @classmethod
    def of(cls, subject: MonitorSubject, now: datetime) -> "MonitorState":
        return cls(subject=subject, since=now, crashes=subject.crashes, window_open=subject.window_ends_at is not None)


@workflow.defn(name="HealthMonitor")
class HealthMonitor:
    @workflow.init
    def __init__(self, carried: MonitorState | None = None) -> None:
        self._state = carried
        self._next: MonitorSubject | None = None
        self._told = False

    @workflow.run
    async def run(self, carried: MonitorState | None = None) -> str:
        """Says how it ended."""
        await workflow.wait_condition(lambda: self._state is not None or self._next is not None)
        while True:
            if self._next is not None:
                self._state, self._next = MonitorState.of(self._next, workflow.now()), None
            assert self._state is not None
            ending = await self._watch(self._state)
            if self._next is None:
                return ending

    @workflow.signal
    def watch(self, subject: MonitorSubject) -> None:
        """A deployment has completed: watch its version from now on. A repeat changes nothing."""
        known = self._next or (self._state.subject if self._state else None)
        if known is None or known.deployment_id != subject.deployment_id:
            self._next = subject

    @workflow.signal
    def fault(self, seen: FaultSeen) -> None:
        """A node's own probes and restarts did not mend this version: look now, and on until all is well."""
        state = self._state
        if state is None or state.awake or state.subject.target.version != seen.version:
            return  # one that is awake looks at its own pace, however many nodes tell
        state.awake = self._told = True

    @workflow.query
    def status(self) -> MonitorState | None:
        return self._state

    async def _watch(self, state: MonitorState) -> str:
        """Look again and again until something newer is in place, or until this version was taken back."""
        care = state.subject.care
        while True:
            workflow.set_current_details(_described(state))
            if state.back is not None and await self._record_rollback(state.back):
                back = state.back.request
                return f"took {state.subject.deployment_id} back by {back.deployment_id}: {back.reason}"
            if self._next is not None and workflow.patched("a-newer-subject-outlives-the-run"):
                return f"{self._next.deployment_id} took over"  # only `state` is carried into the next run
            continue_as_new_when_due(state)
            await self._wait(_until_next(state))
            if self._next is not None:
                return f"{self._next.deployment_id} took over"
            if state.back is not None:
                continue
            if state.window_open and _window_over(state):
                await self._close_window(state)
            look = await self._look(state)
            if look is None or look.place is Place.UNDECIDED:
                continue
            if look.place is Place.GONE:
                return "another version is in place"
            if state.failing >= care.failures and care.auto_rollback and not state.gave_up:
                state.back = await self._go_back(state)

    async def _wait(self, duration: timedelta) -> None:
        try:
            await workflow.wait_condition(
                lambda: self._next is not None or self._told, timeout=duration, timeout_summary="next look"
            )
        except TimeoutError:
            return
        finally:
            self._told = False

    async def _look(self, state: MonitorState) -> MonitorLook | None:
        """One look, counted; None when nobody could look. Silence neither adds to a fault nor ends one."""
        subject, now = state.subject, workflow.now()
        try:
            look = await workflow.execute_activity_method(
                MonitorActivities.look_at_version,
                LookInput(subject=subject, crashes=state.crashes, since=state.since),
                summary=f"{subject.plugin} {subject.target.version} in {subject.environment}",
                **activity_options.JUDGE,
            )
        except ActivityError as error:
            if is_cancelled_exception(error) and workflow.patched("a-cancel-ends-a-look"):
                raise
            state.last = bounded(f"no look was possible: {failure_of(error).message}")
            return None
        state.looks += 1
        if look.health is not None:
            state.last, state.crashes, state.since = look.health.evidence, look.health.crashes, now
            if look.health.condition is Condition.FAULTY:
                state.failing, state.awake = state.failing + 1, True
            elif look.health.condition is Condition.WELL:
                state.failing, state.awake = 0, False
        return look

    # --- going back --------------------------------------------------------------------------------------------------

    async def _go_back(self, state: MonitorState) -> RollbackStarted | None:
        """Start the one rollback; None when it cannot start now (try at the next look) or ever (`gave_up`)."""
        subject = state.subject
        reason = f"{state.failing} looks in a row, {subject.care.interval} apart, found a fault: {state.last}"
        try:
            prepared = await workflow.execute_activity_method(
                MonitorActivities.prepare_rollback,
                RollbackOrder(subject=subject, evidence=bounded(reason)),
                summary=f"back to {subject.previous.version}?",
                **activity_options.DATABASE,
            )
        except ActivityError as error:
            _outlive(error, f"{subject.deployment_id} is not taken back for now")
            return None
        request = prepared.request
        if request is None:
            state.gave_up = True
            workflow.logger.error("%s is not taken back: %s", subject.deployment_id, prepared.why_not)
            return None
        try:
            await workflow.start_child_workflow(
                WORKFLOW_OF_STRATEGY[request.strategy],
                request,
                id=deployment_workflow_id(request.environment, request.plugin),
                parent_close_policy=ParentClosePolicy.ABANDON,
                task_timeout=launch.TASK_TIMEOUT,
                memo={launch.MEMO_DEPLOYMENT: request.deployment_id},
                search_attributes=launch.search_attributes(request),
                static_summary=launch.summary(request),
                static_details=launch.details(request),
            )
        except WorkflowAlreadyStartedError:
            workflow.logger.info("a deployment is running in place of the rollback of %s", subject.deployment_id)
            return None
        return RollbackStarted(subject=subject, request=request)

    async def _record_rollback(self, started: RollbackStarted) -> bool:
        """Hold what is taken back. False when that was refused: the next look tries again."""
        try:
            await workflow.execute_activity_method(
                MonitorActivities.record_rollback,
                started,
                summary=f"hold {started.subject.target.version}",
                **activity_options.DATABASE,
            )
        except ActivityError as error:
            _outlive(error, f"{started.subject.target.version} is not held for now")
            return False
        return True

    # --- the rollback window -----------------------------------------------------------------------------------------

    async def _close_window(self, state: MonitorState) -> None:
        """Retire the warm versions. A deployment that runs now decides about them itself: then try at the next look."""
        subject = state.subject
        try:
            closed = await workflow.execute_child_workflow(
                RollbackWindowClosing.run,
                subject,
                id=deployment_workflow_id(subject.environment, subject.plugin),
                memo={launch.MEMO_DEPLOYMENT: subject.deployment_id},
                # As a deployment that has ended and only tidies up: the facade waits for its place a moment.
                search_attributes=_attributes(subject),
                static_summary=f"the rollback window of {subject.plugin} {subject.target.version} ends",
            )
        except WorkflowAlreadyStartedError:
            return
        except ChildWorkflowError as error:
            workflow.logger.warning("the window of %s stays open for now: %s", subject.deployment_id, error.cause)
            return
        if closed.state is not None:
            order = RouteOrder(plugin=subject.plugin, generation=closed.generation, state=closed.state)
            try:
                await _retire_everywhere(subject, order)
            except ActivityError as error:  # the window stays open: the next look tells the nodes again
                _outlive(error, f"no node was told that the window of {subject.deployment_id} is over")
                return
        state.window_open = False


@workflow.defn(name="RollbackWindowClosing")
class RollbackWindowClosing:
    """Holds the place of a deployment while the route is written, for milliseconds: no rollout can begin in between."""

    @workflow.run
    async def run(self, subject: MonitorSubject) -> WindowClosed:
        return await workflow.execute_activity_method(
            MonitorActivities.close_window,
            subject,
            summary="take the warm versions out of the route",
            **activity_options.CLOSE_WINDOW,
        )


async def _retire_everywhere(subject: MonitorSubject, order: RouteOrder) -> None:
    """Unload what the order does not name. A node that does not follow keeps a host too many, which drift shows."""
    found = await workflow.execute_activity_method(
        RoutingActivities.list_live_nodes,
        LiveNodes(environment=subject.environment, seen_within=activity_options.NODE_REGISTERED),
        summary=f"who is alive in {subject.environment}",
        **activity_options.DATABASE,
    )

    async def retire(node: NodeRecord) -> None:
        try:
            await workflow.execute_activity_method(
                NodeActivities.retire_versions,
                RetireInput(order=order, grace=subject.care.drain_grace),
                task_queue=node_queue(node.node_id),
                schedule_to_start_timeout=activity_options.NODE_START,
                summary=f"retire warm versions on {node.node_id}",
                **activity_options.node_order(subject.care.drain_grace + activity_options.NODE_SWITCH),
            )
        except ActivityError as error:
            workflow.logger.warning("%s retired nothing: %s", node.node_id, failure_of(error).message)

    await asyncio.gather(*(retire(node) for node in found.nodes))


def _outlive(error: ActivityError, what: str) -> None:
    """Nobody would start a monitor that failed before the plugin's next deployment. Raises `error` when it is a cancel."""
    if is_cancelled_exception(error) or not workflow.patched("a-refusal-ends-no-monitor"):
        raise error
    workflow.logger.error("%s: %s", what, failure_of(error).message)


def _until_next(state: MonitorState) -> timedelta:
    """The first look comes after one interval, so that the next ones know how often hosts had crashed by then."""
    interval, ends = state.subject.care.interval, state.subject.window_ends_at
    pause = interval if state.awake or state.looks == 0 else max(interval, RESTING)
    if not state.window_open or ends is None:
        return pause
    return interval if _window_over(state) else min(pause, ends - workflow.now())


def _window_over(state: MonitorState) -> bool:
    ends = state.subject.window_ends_at
    return ends is not None and workflow.now() >= ends


def _attributes(subject: MonitorSubject) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [
            SearchAttributePair(temporal.PLUGIN, subject.plugin),
            SearchAttributePair(temporal.ENVIRONMENT, str(subject.environment)),
            SearchAttributePair(temporal.DEPLOYMENT, subject.deployment_id),
            SearchAttributePair(temporal.STATUS, str(DeploymentStatus.COMPLETED)),
        ]
    )


def _described(state: MonitorState) -> str:
    """Markdown for the Web UI's details."""
    subject = state.subject
    lines = [
        f"**{subject.plugin} {subject.target.version} in {subject.environment}**, put in place by {subject.deployment_id}",
        f"{state.looks} looks, {state.failing} of {subject.care.failures} failing in a row: {state.last}",
    ]
    if state.window_open and subject.window_ends_at is not None:
        lines.append(f"{subject.previous.version} stays warm until {subject.window_ends_at:%Y-%m-%d %H:%M:%S} UTC")
    return "\n\n".join(lines)
