"""What the doctor and the backup ask of PostgreSQL and no workflow ever does: read-only, in one transaction.

Made by hotswap.adapters.postgres.database; neighbours: hotswap.doctor, hotswap.backup.
"""

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Text, cast, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncEngine

from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import plugin_deployments, plugin_versions, routes, tenant_plugin_configs
from hotswap.domain.base import Model
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus


class StoredArtifact(Model):
    """A registered version's zip, as the registry has it. `used_by` says what would miss it, "" = nothing at present."""

    plugin: str
    version: str
    digest: str
    key: str
    size_bytes: int
    status: str
    used_by: str = ""


class OpenDeployment(Model):
    """A deployment as the record knows it."""

    deployment_id: str
    plugin: str
    version: str
    environment: str
    status: str
    error: str = ""
    workflow_id: str
    run_id: str
    requested_at: datetime


class PostgresInspection:
    """Use as an async context manager. Raises Unavailable as a unit of work does."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._session = Session(engine)

    async def __aenter__(self) -> Self:
        await self._session.begin()
        await self._session.run(text("SET TRANSACTION READ ONLY"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.end()

    async def now(self) -> datetime:
        instant: datetime = (await self._session.run(select(func.clock_timestamp()))).scalar_one()
        return instant

    async def server_version(self) -> int:
        """The major version."""
        number = (await self._session.run(text("SHOW server_version_num"))).scalar_one()
        return int(number) // 10_000

    async def schema_revision(self) -> str | None:
        """What the migrations left; None for a database without a schema of ours."""
        there = (await self._session.run(text("SELECT to_regclass('alembic_version')"))).scalar_one()
        if there is None:
            return None
        row = await self._session.first(text("SELECT version_num FROM alembic_version"))
        return str(row[0]) if row is not None else None

    async def artifacts(self) -> list[StoredArtifact]:
        """Every artifact that retention has not taken away, by plugin and version."""
        used = await self._used()
        rows = await self._session.all(
            select(
                plugin_versions.c.plugin_id,
                plugin_versions.c.version,
                plugin_versions.c.checksum,
                plugin_versions.c.binary_path,
                plugin_versions.c.binary_size,
                plugin_versions.c.status,
            )
            .where(plugin_versions.c.artifact_removed_at.is_(None))
            .order_by(plugin_versions.c.plugin_id, plugin_versions.c.precedence, plugin_versions.c.version)
        )
        return [
            StoredArtifact(
                plugin=row.plugin_id,
                version=row.version,
                digest=row.checksum,
                key=row.binary_path,
                size_bytes=row.binary_size,
                status=row.status,
                used_by=used.get((row.plugin_id, row.version), ""),
            )
            for row in rows
        ]

    async def _used(self) -> dict[tuple[str, str], str]:
        """(plugin, version) -> the route or pin that needs it now."""
        latest = (
            select(routes.c.environment, routes.c.plugin_id, routes.c.stable_version, routes.c.candidate_version)
            .ext(distinct_on(routes.c.environment, routes.c.plugin_id))
            .order_by(routes.c.environment, routes.c.plugin_id, routes.c.generation.desc())
        )
        used: dict[tuple[str, str], str] = {}
        pinned = select(tenant_plugin_configs.c.plugin_id, tenant_plugin_configs.c.pinned_version).where(
            tenant_plugin_configs.c.pinned_version.is_not(None)
        )
        for row in await self._session.all(pinned.distinct()):
            used[row.plugin_id, row.pinned_version] = "a pinned tenant"
        for row in await self._session.all(latest):
            for version in (row.stable_version, row.candidate_version):
                if version is not None:
                    used[row.plugin_id, version] = f"the route in {row.environment}"
        return used

    async def failed_last(self) -> list[OpenDeployment]:
        """Places (environment, plugin) whose newest ended deployment is Failed."""
        ended = (
            select(plugin_deployments)
            .where(plugin_deployments.c.status.in_(sorted(TERMINAL)))
            .ext(distinct_on(plugin_deployments.c.environment, plugin_deployments.c.plugin_id))
            .order_by(
                plugin_deployments.c.environment, plugin_deployments.c.plugin_id, plugin_deployments.c.created_at.desc()
            )
            .subquery()
        )
        rows = await self._session.all(select(ended).where(ended.c.status == DeploymentStatus.FAILED))
        return _deployments(rows)

    async def unfinished(self, limit: int) -> list[OpenDeployment]:
        """Deployments that have not ended by the record, oldest first."""
        rows = await self._session.all(
            select(plugin_deployments)
            .where(plugin_deployments.c.status.not_in(sorted(TERMINAL)))
            .order_by(plugin_deployments.c.created_at)
            .limit(limit)
        )
        return _deployments(rows)

    async def known_deployments(self, ids: Sequence[str]) -> set[str]:
        rows = await self._session.all(
            select(plugin_deployments.c.deployment_id).where(plugin_deployments.c.deployment_id.in_(ids))
        )
        return {row.deployment_id for row in rows}

    async def secrets_exist(self) -> bool:
        """Whether any tenant has a stored secret."""
        stored = cast(tenant_plugin_configs.c.secrets, Text)
        row = await self._session.first(
            select(tenant_plugin_configs.c.config_id).where(stored.not_in(("null", "{}"))).limit(1)
        )
        return row is not None


def _deployments(rows: Sequence[Any]) -> list[OpenDeployment]:
    return [
        OpenDeployment(
            deployment_id=row.deployment_id,
            plugin=row.plugin_id,
            version=row.version,
            environment=row.environment,
            status=row.status,
            error=row.error_message or "",
            workflow_id=row.workflow_id,
            run_id=row.run_id,
            requested_at=row.created_at,
        )
        for row in rows
    ]
