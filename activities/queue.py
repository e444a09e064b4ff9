"""What a queued deployment asks of the record: who is before it, and that it was handed over to the workflow it started.

The order of the line is here and nowhere else: superseding ones first, then by the time of the request. Temporal's lock
(the workflow id of the place) decides who runs; this only says whose turn it is to try. Neighbour: workflows.queued.
"""

from collections.abc import Sequence

from temporalio import activity

from activities.errors import translated
from hotswap.domain.base import Instant, Model
from hotswap.domain.deployment import DeploymentProgress, Environment, OnConflict
from hotswap.domain.ids import is_queued
from hotswap.ports.records import DeploymentRow, UnitOfWorkFactory


class LookInput(Model):
    """The one that asks. Its own row may be missing."""

    environment: Environment
    plugin: str
    deployment_id: str
    requested_at: Instant
    on_conflict: OnConflict


class InLine(Model):
    """One that is before the one that asks."""

    deployment_id: str
    workflow_id: str
    requested_at: Instant


class Line(Model):
    """`ahead`: those whose turn is sooner, in order. `holder`: the one that has the place, as far as the record knows."""

    ahead: tuple[InLine, ...] = ()
    holder: InLine | None = None


class HandOver(Model):
    deployment_id: str
    workflow_id: str
    run_id: str


class QueueActivities:
    def __init__(self, unit_of_work: UnitOfWorkFactory) -> None:
        self._unit_of_work = unit_of_work

    @activity.defn
    @translated
    async def look_at_line(self, order: LookInput) -> Line:
        async with self._unit_of_work() as uow:
            rows = await uow.deployments.unfinished(order.environment, order.plugin)
        return line_before(order, rows)

    @activity.defn
    @translated
    async def hand_over(self, order: HandOver) -> None:
        """Commands go to the workflow that was started from now on."""
        async with self._unit_of_work() as uow:
            await uow.deployments.hand_over(order.deployment_id, order.workflow_id, order.run_id)
            await uow.commit()


def line_before(order: LookInput, rows: Sequence[DeploymentRow]) -> Line:
    """The line as it stands for the one that asks. Pure."""
    others = [row for row in rows if row.progress.deployment_id != order.deployment_id]
    mine = _turn(order)
    ahead = sorted(
        (row for row in others if is_queued(row.workflow_id) and _turn(row.progress) < mine),
        key=lambda row: _turn(row.progress),
    )
    # A run that was terminated leaves a row that never ends: the latest is the one that runs.
    holders = sorted(
        (row for row in others if not is_queued(row.workflow_id)),
        key=lambda row: row.progress.started_at or row.progress.requested_at,
    )
    return Line(ahead=tuple(_in_line(row) for row in ahead), holder=_in_line(holders[-1]) if holders else None)


def _turn(one: LookInput | DeploymentProgress) -> tuple[bool, Instant, str]:
    return (one.on_conflict is not OnConflict.SUPERSEDE, one.requested_at, one.deployment_id)


def _in_line(row: DeploymentRow) -> InLine:
    progress = row.progress
    return InLine(deployment_id=progress.deployment_id, workflow_id=row.workflow_id, requested_at=progress.requested_at)
