"""Sandbox sessions and their executions on PostgreSQL: hotswap.ports.sandbox_records.

A session's environment row is locked while one is opened: the places of an environment are then counted exactly.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules, sandbox_rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import environments, sandbox_executions, sandbox_sessions
from hotswap.domain.registry import Page
from hotswap.domain.sandbox import (
    FINISHED,
    LISTED_BYTES,
    ExecutionStatus,
    SandboxExecution,
    SandboxSession,
    SessionStatus,
    over_already,
)
from hotswap.ports.sandbox_records import KEPT, LATE, SandboxFilter

_S, _E = sandbox_sessions.c, sandbox_executions.c
_TEXTS = {"output", "logs"}
_FORGET_AT_ONCE = 50
"""Old sessions removed with one `open`: more than are made meanwhile, few enough to take milliseconds."""


class PostgresSandboxStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def open(self, session: SandboxSession, most: int) -> bool:
        data = record_rules.storable(session, sandbox_rules.SESSION_LIMITS)
        # NO KEY UPDATE: openings take turns, and rows elsewhere that only refer to the environment need not wait.
        await self._session.run(
            select(environments.c.name)
            .where(environments.c.name == session.environment)
            .with_for_update(key_share=True)
        )
        if await self._row(session.sandbox_id) is not None:
            return False
        await self._tidy(session.environment)
        live = await self._session.all(
            select(sandbox_sessions)
            .where(_S.environment == session.environment, _S.ended_at.is_(None))
            .order_by(_S.created_at, _S.session_id)
            .limit(most)
        )
        if len(live) >= most:
            raise sandbox_rules.all_taken(session.environment, most, [_session(row) for row in live])
        values = {
            "session_id": session.sandbox_id,
            "plugin_id": session.artifact.plugin,
            "version": session.artifact.version,
            "environment": session.environment,
            "status": session.status,
            "created_by": session.created_by,
            "created_at": session.created_at,
            "expires_at": session.expires_at,
            "ended_at": session.ended_at,
            "session": data,
        }
        await self._session.run_guarded(
            insert(sandbox_sessions).values(values), foreign=sandbox_rules.session_names_unknown(session)
        )
        return True

    async def _tidy(self, environment: str) -> None:
        late = await self._session.all(
            select(sandbox_sessions)
            .where(_S.environment == environment, _S.ended_at.is_(None), _S.expires_at < func.clock_timestamp() - LATE)
            .with_for_update()
        )
        for row in late:
            await self._end(_session(row), SessionStatus.EXPIRED, sandbox_rules.LATE_REASON)
        old = (
            select(_S.session_id)
            .where(_S.environment == environment, _S.ended_at < func.clock_timestamp() - KEPT)
            .limit(_FORGET_AT_ONCE)
        )
        await self._session.run(delete(sandbox_sessions).where(_S.session_id.in_(old)))

    async def started(self, sandbox_id: str, run_id: str) -> None:
        record_rules.check_storable({"runId": run_id}, sandbox_rules.SESSION_LIMITS)
        found = await self._locked(sandbox_id)
        await self._write(found.model_copy(update={"run_id": run_id}))

    async def discard(self, sandbox_id: str) -> None:
        record_rules.check_storable({"sandboxId": sandbox_id})
        await self._session.run(delete(sandbox_sessions).where(_S.session_id == sandbox_id))

    async def get(self, sandbox_id: str) -> SandboxSession:
        row = await self._row(sandbox_id)
        if row is None:
            raise sandbox_rules.session_missing(sandbox_id)
        return _session(row)

    async def list(self, where: SandboxFilter, page: Page) -> tuple[Sequence[SandboxSession], int]:
        record_rules.storable(where)
        query = select(sandbox_sessions).order_by(_S.created_at.desc(), _S.session_id.desc())
        for column, wanted in (
            (_S.plugin_id, where.plugin),
            (_S.environment, where.environment),
            (_S.status, where.status),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        rows, total = await self._session.page(query, page)
        return [_session(row) for row in rows], total

    async def live(self) -> Mapping[str, int]:
        rows = await self._session.all(
            select(_S.environment, func.count().label("live")).where(_S.ended_at.is_(None)).group_by(_S.environment)
        )
        return {row.environment: row.live for row in rows}

    async def close(self, sandbox_id: str, status: SessionStatus, reason: str) -> bool:
        record_rules.check_storable({"sandboxId": sandbox_id, "reason": reason})
        found = await self._locked(sandbox_id)
        if found.status is not SessionStatus.ACTIVE:
            return False
        await self._end(found, status, reason)
        return True

    async def _end(self, session: SandboxSession, status: SessionStatus, reason: str) -> None:
        """The session's row is locked."""
        now = (await self._session.run(select(func.clock_timestamp()))).scalar_one()
        await self._write(session.ended(status, reason, now))
        unfinished = await self._session.all(
            select(sandbox_executions)
            .where(_E.session_id == session.sandbox_id, _E.status.not_in(FINISHED))
            .with_for_update()
        )
        for row in unfinished:
            await self.save(_execution(row).cancelled(reason, now))

    async def queue(self, execution: SandboxExecution, request: str, most: int) -> None:
        values = _values(execution) | {
            "execution_id": execution.execution_id,
            "session_id": execution.sandbox_id,
            "queued_at": execution.queued_at,
            "request": request,
        }
        record_rules.check_storable({"request": request})
        session = await self._locked(execution.sandbox_id)
        known = select(_E.execution_id).where(_E.execution_id == execution.execution_id)
        if await self._session.first(known) is not None:
            return
        if session.status is not SessionStatus.ACTIVE:
            raise over_already(session)
        if sum((await self.counts(execution.sandbox_id)).values()) >= most:
            raise sandbox_rules.full(execution.sandbox_id, most)
        await self._session.run_guarded(insert(sandbox_executions).values(values))

    async def withdraw(self, execution_id: str) -> None:
        record_rules.check_storable({"executionId": execution_id})
        await self._session.run(
            delete(sandbox_executions).where(_E.execution_id == execution_id, _E.status == ExecutionStatus.QUEUED)
        )

    async def claim(self, execution_id: str) -> tuple[SandboxExecution, str]:
        record_rules.check_storable({"executionId": execution_id})
        row = await self._session.first(
            select(sandbox_executions).where(_E.execution_id == execution_id).with_for_update()
        )
        if row is None:
            raise sandbox_rules.execution_missing(execution_id)
        return _execution(row), row.request or ""

    async def save(self, execution: SandboxExecution) -> None:
        values: dict[str, Any] = _values(execution)
        if execution.over:
            values["request"] = None
        done = await self._session.run(
            update(sandbox_executions).where(_E.execution_id == execution.execution_id).values(values)
        )
        if not done.rowcount:
            raise sandbox_rules.execution_missing(execution.execution_id)

    async def execution(self, sandbox_id: str, execution_id: str) -> SandboxExecution:
        record_rules.check_storable({"sandboxId": sandbox_id, "executionId": execution_id})
        row = await self._session.first(
            select(sandbox_executions).where(_E.execution_id == execution_id, _E.session_id == sandbox_id)
        )
        if row is None:
            raise sandbox_rules.execution_missing(execution_id)
        return _execution(row)

    async def executions(self, sandbox_id: str, page: Page) -> tuple[Sequence[SandboxExecution], int]:
        record_rules.check_storable({"sandboxId": sandbox_id})
        large_output, large_logs = (func.octet_length(text) > LISTED_BYTES for text in (_E.output, _E.logs))
        query: Select[Any] = (
            select(
                _E.execution,
                _short(_E.output, large_output, None).label("output"),
                _short(_E.logs, large_logs, "").label("logs"),
                func.coalesce(large_output, False).label("output_omitted"),
                large_logs.label("logs_omitted"),
            )
            .where(_E.session_id == sandbox_id)
            .order_by(_E.queued_at.desc(), _E.execution_id.desc())
        )
        rows, total = await self._session.page(query, page)
        omitted = [{"output_omitted": row.output_omitted, "logs_omitted": row.logs_omitted} for row in rows]
        return [_execution(row).model_copy(update=also) for row, also in zip(rows, omitted, strict=True)], total

    async def counts(self, sandbox_id: str) -> dict[str, int]:
        record_rules.check_storable({"sandboxId": sandbox_id})
        rows = await self._session.all(
            select(_E.status, func.count().label("n")).where(_E.session_id == sandbox_id).group_by(_E.status)
        )
        return {row.status: row.n for row in rows}

    async def _row(self, sandbox_id: str, *, lock: bool = False) -> Row[Any] | None:
        record_rules.check_storable({"sandboxId": sandbox_id})
        query = select(sandbox_sessions).where(_S.session_id == sandbox_id)
        return await self._session.first(query.with_for_update() if lock else query)

    async def _locked(self, sandbox_id: str) -> SandboxSession:
        row = await self._row(sandbox_id, lock=True)
        if row is None:
            raise sandbox_rules.session_missing(sandbox_id)
        return _session(row)

    async def _write(self, session: SandboxSession) -> None:
        data = record_rules.storable(session, sandbox_rules.SESSION_LIMITS)
        await self._session.run(
            update(sandbox_sessions)
            .where(_S.session_id == session.sandbox_id)
            .values(status=session.status, ended_at=session.ended_at, session=data)
        )


def _short(text: ColumnElement[Any], large: ColumnElement[bool], instead: str | None) -> ColumnElement[Any]:
    return case((large, instead), else_=text)


def _session(row: Row[Any]) -> SandboxSession:
    return SandboxSession.model_validate(row.session)


def _values(execution: SandboxExecution) -> dict[str, Any]:
    data = record_rules.storable(execution, sandbox_rules.EXECUTION_LIMITS)
    texts = {name: data.pop(name) for name in _TEXTS}
    return {"status": execution.status, "execution": data, **texts}


def _execution(row: Row[Any]) -> SandboxExecution:
    return SandboxExecution.model_validate({**row.execution, "output": row.output, "logs": row.logs})
