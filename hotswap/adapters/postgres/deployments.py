"""Deployments as the record knows them (projection and events) and the approvals given to them, on PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import approvals, deployment_events, plugin_deployments
from hotswap.domain.deployment import DeploymentProgress, TimelineEvent
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus
from hotswap.domain.registry import Approval, Page
from hotswap.ports.records import DeploymentFilter, DeploymentRow

_COLUMNS = (
    plugin_deployments.c.progress,
    plugin_deployments.c.config,
    plugin_deployments.c.workflow_id,
    plugin_deployments.c.run_id,
)
_EVENTS_AT_ONCE = 1000


class PostgresDeploymentStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def open(self, row: DeploymentRow) -> None:
        values = _projected(row.progress) | {
            "deployment_id": row.progress.deployment_id,
            "plugin_id": row.progress.plugin,
            "created_at": row.progress.requested_at,
            "config": rules.storable(row, {"workflowId": rules.NAME, "runId": rules.NAME})["config"],
            "workflow_id": row.workflow_id,
            "run_id": row.run_id,
        }
        await self._session.run_guarded(
            insert(plugin_deployments).values(values).on_conflict_do_nothing(index_elements=["deployment_id"]),
            foreign=rules.deployment_names_unknown(row.progress.plugin, row.progress.environment),
        )

    async def project(self, progress: DeploymentProgress, events: Sequence[TimelineEvent]) -> None:
        """Raises NotFound for a deployment that was never opened."""
        values = _projected(progress)
        rows = _event_rows(progress.deployment_id, events)
        # An equal sequence is written again: a repeated projection is the same projection.
        done = await self._session.run(
            update(plugin_deployments)
            .where(
                plugin_deployments.c.deployment_id == progress.deployment_id,
                plugin_deployments.c.sequence <= progress.sequence,
            )
            .values(values)
        )
        if not done.rowcount:
            await self.get(progress.deployment_id)
        for start in range(0, len(rows), _EVENTS_AT_ONCE):
            chunk = rows[start : start + _EVENTS_AT_ONCE]
            await self._session.run(insert(deployment_events).values(chunk).on_conflict_do_nothing())

    async def get(self, deployment_id: str) -> DeploymentRow:
        rules.check_storable({"deploymentId": deployment_id})
        row = await self._session.first(select(*_COLUMNS).where(plugin_deployments.c.deployment_id == deployment_id))
        if row is None:
            raise rules.deployment_missing(deployment_id)
        return _deployment(row)

    async def list(self, where: DeploymentFilter, page: Page) -> tuple[Sequence[DeploymentRow], int]:
        rules.storable(where)
        query = select(*_COLUMNS).order_by(
            plugin_deployments.c.created_at.desc(), plugin_deployments.c.deployment_id.desc()
        )
        if where.plugin is not None:
            query = query.where(plugin_deployments.c.plugin_id == where.plugin)
        if where.environment is not None:
            query = query.where(plugin_deployments.c.environment == where.environment)
        if where.status is not None:
            query = query.where(plugin_deployments.c.status == where.status)
        rows, total = await self._session.page(query, page)
        return [_deployment(row) for row in rows], total

    async def unfinished(self, environment: str, plugin: str) -> Sequence[DeploymentRow]:
        rules.check_storable({"environment": environment, "plugin": plugin})
        rows = await self._session.all(
            select(*_COLUMNS)
            .where(
                plugin_deployments.c.plugin_id == plugin,
                plugin_deployments.c.environment == environment,
                plugin_deployments.c.status.not_in(sorted(TERMINAL)),
            )
            .order_by(plugin_deployments.c.created_at, plugin_deployments.c.deployment_id)
        )
        return [_deployment(row) for row in rows]

    async def standing(self) -> Mapping[tuple[str, str], int]:
        rows = await self._session.all(
            select(plugin_deployments.c.environment, plugin_deployments.c.status, func.count().label("standing"))
            .where(plugin_deployments.c.status.in_(sorted(set(DeploymentStatus) - TERMINAL)))  # by the index
            .group_by(plugin_deployments.c.environment, plugin_deployments.c.status)
        )
        return {(row.environment, row.status): row.standing for row in rows}

    async def hand_over(self, deployment_id: str, workflow_id: str, run_id: str) -> None:
        rules.check_storable({"deploymentId": deployment_id})
        rules.check_storable(
            {"workflowId": workflow_id, "runId": run_id}, {"workflowId": rules.NAME, "runId": rules.NAME}
        )
        done = await self._session.run(
            update(plugin_deployments)
            .where(plugin_deployments.c.deployment_id == deployment_id)
            .values(workflow_id=workflow_id, run_id=run_id)
        )
        if not done.rowcount:
            raise rules.deployment_missing(deployment_id)

    async def events(self, deployment_id: str, after: int = 0, limit: int = 500) -> Sequence[TimelineEvent]:
        rules.check_storable({"deploymentId": deployment_id})
        rows = await self._session.all(
            select(
                deployment_events.c.sequence,
                deployment_events.c.at,
                deployment_events.c.kind,
                deployment_events.c.message,
                deployment_events.c.data,
            )
            .where(deployment_events.c.deployment_id == deployment_id, deployment_events.c.sequence > after)
            .order_by(deployment_events.c.sequence)
            .limit(limit)
        )
        return [TimelineEvent.model_validate(row._asdict()) for row in rows]


class PostgresApprovalStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def record(self, approval: Approval) -> None:
        """Raises NotFound for an unknown deployment, InvalidInput for a decision that is none."""
        data = rules.storable(approval, rules.APPROVAL_LIMITS)
        rules.check_decision(approval.decision)
        await self._session.run_guarded(
            insert(approvals)
            .values(
                deployment_id=approval.deployment_id,
                approver=approval.approver,
                roles=data["roles"],
                decision=approval.decision,
                comment=approval.comment,
                digest=approval.digest,
                plan_hash=approval.plan_hash,
                decided_at=approval.decided_at,
            )
            .on_conflict_do_nothing(index_elements=["deployment_id", "approver", "plan_hash"]),
            foreign=rules.deployment_missing(approval.deployment_id),
        )

    async def list(self, deployment_id: str) -> Sequence[Approval]:
        """In the order they were given."""
        rules.check_storable({"deploymentId": deployment_id})
        columns = [column for column in approvals.c if column.name != "id"]
        rows = await self._session.all(
            select(*columns).where(approvals.c.deployment_id == deployment_id).order_by(approvals.c.id)
        )
        return [Approval.model_validate(row._asdict()) for row in rows]


def _projected(progress: DeploymentProgress) -> dict[str, Any]:
    """The columns that follow from the progress: what lists filter by, and what the seed guide asks for."""
    data = rules.storable(progress, rules.PROGRESS_LIMITS)
    return {
        "version": progress.to_version,
        "environment": progress.environment,
        "strategy": progress.strategy,
        "status": progress.status,
        "progress_percentage": min(100, progress.progress_percent),
        "initiated_by": progress.initiated_by,
        "started_at": progress.started_at,
        "completed_at": progress.finished_at,
        "previous_version": progress.from_version,
        "rolled_back_at": progress.rolled_back_at,
        "rollback_reason": progress.outcome_reason if progress.rolled_back_at else None,
        "error_message": progress.outcome_reason if progress.status is DeploymentStatus.FAILED else None,
        "progress": data,
        "sequence": progress.sequence,
        "digest": progress.digest,
        "plan_hash": progress.plan_hash,
    }


def _event_rows(deployment_id: str, events: Sequence[TimelineEvent]) -> list[dict[str, Any]]:
    return [
        {
            "deployment_id": deployment_id,
            "sequence": event.sequence,
            "at": event.at,
            "kind": event.kind,
            "message": event.message,
            "data": rules.storable(event, rules.EVENT_LIMITS)["data"],
        }
        for event in events
    ]


def _deployment(row: Row[Any]) -> DeploymentRow:
    return DeploymentRow(
        progress=DeploymentProgress.model_validate(row.progress),
        config=row.config,
        workflow_id=row.workflow_id,
        run_id=row.run_id,
    )
