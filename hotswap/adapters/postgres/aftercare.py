"""Held versions and drift reports on PostgreSQL: hotswap.ports.aftercare. Its twin is hotswap.adapters.memory.aftercare."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import drift_reports, held_versions
from hotswap.domain.drift import DriftReport
from hotswap.domain.holds import HeldVersion
from hotswap.domain.registry import Page


class PostgresHeldVersionStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def hold(self, held: HeldVersion) -> None:
        rules.storable(held, rules.HELD_LIMITS)
        values = {
            "environment": held.environment,
            "plugin_id": held.plugin,
            "version": held.version,
            "deployment_id": held.deployment_id,
            "reason": held.reason,
            "held_by": held.held_by,
            "held_at": held.held_at,
        }
        key = ["environment", "plugin_id", "version"]
        changed = {name: value for name, value in values.items() if name not in key}
        await self._session.run_guarded(
            insert(held_versions).values(values).on_conflict_do_update(index_elements=key, set_=changed),
            foreign=rules.version_missing(held.plugin, held.version),
        )

    async def find(self, environment: str, plugin: str, version: str) -> HeldVersion | None:
        rules.check_storable({"environment": environment, "plugin": plugin, "version": version})
        row = await self._session.first(select(held_versions).where(*_one(environment, plugin, version)))
        return _held(row) if row is not None else None

    async def lift(self, environment: str, plugin: str, version: str) -> bool:
        rules.check_storable({"environment": environment, "plugin": plugin, "version": version})
        done = await self._session.run(delete_from(held_versions).where(*_one(environment, plugin, version)))
        return bool(done.rowcount)

    async def list(self, environment: str | None, page: Page) -> tuple[Sequence[HeldVersion], int]:
        rules.check_storable({"environment": environment})
        columns = held_versions.c
        query = select(held_versions).order_by(
            columns.held_at.desc(), columns.environment, columns.plugin_id, columns.version
        )
        if environment is not None:
            query = query.where(columns.environment == environment)
        rows, total = await self._session.page(query, page)
        return [_held(row) for row in rows], total


class PostgresDriftStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def save(self, report: DriftReport) -> None:
        data = rules.storable(report)
        row = insert(drift_reports).values(
            environment=report.environment, taken_at=report.taken_at, total=report.total, report=data
        )
        newer = {name: row.excluded[name] for name in ("taken_at", "total", "report")}
        await self._session.run_guarded(
            row.on_conflict_do_update(
                index_elements=["environment"], set_=newer, where=drift_reports.c.taken_at <= row.excluded.taken_at
            ),
            foreign=rules.environment_missing(report.environment),
        )

    async def last(self, environment: str) -> DriftReport | None:
        rules.check_storable({"environment": environment})
        row = await self._session.first(
            select(drift_reports.c.report).where(drift_reports.c.environment == environment)
        )
        return None if row is None else DriftReport.model_validate(row.report)


def _one(environment: str, plugin: str, version: str) -> tuple[Any, ...]:
    columns = held_versions.c
    return columns.environment == environment, columns.plugin_id == plugin, columns.version == version


def _held(row: Row[Any]) -> HeldVersion:
    return HeldVersion(
        environment=row.environment,
        plugin=row.plugin_id,
        version=row.version,
        deployment_id=row.deployment_id,
        reason=row.reason,
        held_by=row.held_by,
        held_at=row.held_at,
    )
