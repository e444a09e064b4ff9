"""Sandbox sessions in memory: the twin of hotswap.adapters.postgres.sandbox."""

from collections import Counter
from collections.abc import Mapping, Sequence

from hotswap.adapters import record_rules, sandbox_rules
from hotswap.adapters.memory.record_state import RecordState
from hotswap.adapters.memory.record_stores import _slice, _Store, _stored
from hotswap.domain.registry import Page
from hotswap.domain.sandbox import ExecutionStatus, SandboxExecution, SandboxSession, SessionStatus, over_already
from hotswap.ports.sandbox_records import KEPT, LATE, SandboxFilter


class MemorySandboxStore(_Store):
    async def open(self, session: SandboxSession, most: int) -> bool:
        record_rules.storable(session, sandbox_rules.SESSION_LIMITS)
        state = await self._transaction.writing()
        if session.sandbox_id in state.sandboxes:
            return False
        ref = session.artifact
        if session.environment not in state.environments or (ref.plugin, ref.version) not in state.versions:
            raise sandbox_rules.session_names_unknown(session)
        self._tidy(state, session.environment)
        live = [
            one
            for one in state.sandboxes.values()
            if one.environment == session.environment and one.status is SessionStatus.ACTIVE
        ]
        if len(live) >= most:
            raise sandbox_rules.all_taken(session.environment, most, sorted(live, key=_age))
        state.sandboxes[session.sandbox_id] = _stored(session)
        return True

    def _tidy(self, state: RecordState, environment: str) -> None:
        now = self._transaction.instant()
        for one in [one for one in state.sandboxes.values() if one.environment == environment]:
            if one.status is SessionStatus.ACTIVE and one.expires_at < now - LATE:
                self._end(state, one, SessionStatus.EXPIRED, sandbox_rules.LATE_REASON)
            elif one.ended_at is not None and one.ended_at < now - KEPT:
                _forget(state, one.sandbox_id)

    async def started(self, sandbox_id: str, run_id: str) -> None:
        record_rules.check_storable({"runId": run_id}, sandbox_rules.SESSION_LIMITS)
        state = await self._transaction.writing()
        found = await self.get(sandbox_id)
        state.sandboxes[sandbox_id] = found.model_copy(update={"run_id": run_id})

    async def discard(self, sandbox_id: str) -> None:
        record_rules.check_storable({"sandboxId": sandbox_id})
        _forget(await self._transaction.writing(), sandbox_id)

    async def get(self, sandbox_id: str) -> SandboxSession:
        record_rules.check_storable({"sandboxId": sandbox_id})
        found = (await self._transaction.reading()).sandboxes.get(sandbox_id)
        if found is None:
            raise sandbox_rules.session_missing(sandbox_id)
        return found

    async def list(self, where: SandboxFilter, page: Page) -> tuple[Sequence[SandboxSession], int]:
        record_rules.storable(where)
        found = [
            one
            for one in (await self._transaction.reading()).sandboxes.values()
            if where.plugin in (None, one.artifact.plugin)
            and where.environment in (None, one.environment)
            and where.status in (None, one.status)
        ]
        return _slice(sorted(found, key=_age, reverse=True), page)

    async def live(self) -> Mapping[str, int]:
        sessions = (await self._transaction.reading()).sandboxes.values()
        return Counter(str(one.environment) for one in sessions if one.ended_at is None)

    async def close(self, sandbox_id: str, status: SessionStatus, reason: str) -> bool:
        record_rules.check_storable({"sandboxId": sandbox_id, "reason": reason})
        state = await self._transaction.writing()
        found = await self.get(sandbox_id)
        if found.status is not SessionStatus.ACTIVE:
            return False
        self._end(state, found, status, reason)
        return True

    def _end(self, state: RecordState, session: SandboxSession, status: SessionStatus, reason: str) -> None:
        now = self._transaction.instant()
        state.sandboxes[session.sandbox_id] = session.ended(status, reason, now)
        for one in [one for one in state.executions.values() if one.sandbox_id == session.sandbox_id and not one.over]:
            _keep(state, one.cancelled(reason, now))

    async def queue(self, execution: SandboxExecution, request: str, most: int) -> None:
        record_rules.storable(execution, sandbox_rules.EXECUTION_LIMITS)
        record_rules.check_storable({"request": request})
        state = await self._transaction.writing()
        session = await self.get(execution.sandbox_id)
        if execution.execution_id in state.executions:
            return
        if session.status is not SessionStatus.ACTIVE:
            raise over_already(session)
        if sum(one.sandbox_id == execution.sandbox_id for one in state.executions.values()) >= most:
            raise sandbox_rules.full(execution.sandbox_id, most)
        state.executions[execution.execution_id] = _stored(execution)
        state.requests[execution.execution_id] = request

    async def withdraw(self, execution_id: str) -> None:
        record_rules.check_storable({"executionId": execution_id})
        state = await self._transaction.writing()
        found = state.executions.get(execution_id)
        if found is not None and found.status is ExecutionStatus.QUEUED:
            del state.executions[execution_id]
            state.requests.pop(execution_id, None)

    async def claim(self, execution_id: str) -> tuple[SandboxExecution, str]:
        record_rules.check_storable({"executionId": execution_id})
        state = await self._transaction.writing()
        if execution_id not in state.executions:
            raise sandbox_rules.execution_missing(execution_id)
        return state.executions[execution_id], state.requests.get(execution_id, "")

    async def save(self, execution: SandboxExecution) -> None:
        record_rules.storable(execution, sandbox_rules.EXECUTION_LIMITS)
        state = await self._transaction.writing()
        if execution.execution_id not in state.executions:
            raise sandbox_rules.execution_missing(execution.execution_id)
        _keep(state, _stored(execution))

    async def execution(self, sandbox_id: str, execution_id: str) -> SandboxExecution:
        record_rules.check_storable({"sandboxId": sandbox_id, "executionId": execution_id})
        found = (await self._transaction.reading()).executions.get(execution_id)
        if found is None or found.sandbox_id != sandbox_id:
            raise sandbox_rules.execution_missing(execution_id)
        return found

    async def executions(self, sandbox_id: str, page: Page) -> tuple[Sequence[SandboxExecution], int]:
        record_rules.check_storable({"sandboxId": sandbox_id})
        state = await self._transaction.reading()
        found = [one for one in state.executions.values() if one.sandbox_id == sandbox_id]
        found.sort(key=lambda one: (one.queued_at, one.execution_id), reverse=True)
        rows, total = _slice(found, page)
        return [sandbox_rules.listed(one) for one in rows], total

    async def counts(self, sandbox_id: str) -> dict[str, int]:
        record_rules.check_storable({"sandboxId": sandbox_id})
        state = await self._transaction.reading()
        return dict(Counter(str(one.status) for one in state.executions.values() if one.sandbox_id == sandbox_id))


def _keep(state: RecordState, execution: SandboxExecution) -> None:
    state.executions[execution.execution_id] = execution
    if execution.over:
        state.requests.pop(execution.execution_id, None)


def _forget(state: RecordState, sandbox_id: str) -> None:
    state.sandboxes.pop(sandbox_id, None)
    for one in [one.execution_id for one in state.executions.values() if one.sandbox_id == sandbox_id]:
        del state.executions[one]
        state.requests.pop(one, None)


def _age(session: SandboxSession) -> tuple[object, ...]:
    return session.created_at, session.sandbox_id
