"""Dependencies' facts, publishers' keys and pending uploads on PostgreSQL. Twin: hotswap.adapters.memory.versions."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, case, func, or_, select, true, update
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import pending_uploads, plugin_versions, plugins, publisher_keys, routes
from hotswap.dependencies.models import Release
from hotswap.dependencies.resolve import named_by
from hotswap.domain.manifest import Dependency
from hotswap.domain.registry import Page
from hotswap.domain.signatures import PublisherKey
from hotswap.domain.uploads import PendingUpload
from hotswap.ports.dependencies import KnownRelease

_DEPENDENCIES = plugin_versions.c.manifest["dependencies"].label("dependencies")
"""Not the whole manifest: 1,000 of them are megabytes, and their schemas take seconds to check."""


class PostgresDependencyStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def serving(self, environment: str) -> dict[str, list[Release]]:
        rules.check_storable({"environment": environment})
        latest = (
            select(routes.c.state, routes.c.stable_version, routes.c.candidate_version, routes.c.candidate_weight)
            .where(routes.c.environment == environment, routes.c.plugin_id == plugins.c.plugin_id)
            .order_by(routes.c.generation.desc())
            .limit(1)
            .lateral("latest")
        )
        version = plugin_versions.c.version
        has_tenants = or_(latest.c.candidate_weight > 0, func.jsonb_exists(latest.c.state, "switchedNodes"))
        rows = await self._session.all(
            select(plugin_versions.c.plugin_id, version, _DEPENDENCIES)
            .select_from(plugins.join(latest, true()).join(plugin_versions, true()))
            .where(
                plugin_versions.c.plugin_id == plugins.c.plugin_id,
                or_(version == latest.c.stable_version, and_(version == latest.c.candidate_version, has_tenants)),
            )
            .order_by(plugin_versions.c.plugin_id, case((version == latest.c.stable_version, 0), else_=1))
        )
        found: dict[str, list[Release]] = {}
        for row in rows:
            found.setdefault(row.plugin_id, []).append(_release(row))
        return found

    async def releases(self, plugins: Iterable[str]) -> Sequence[KnownRelease]:
        names = sorted(set(plugins))
        rules.check_storable({"plugins": names})
        columns = plugin_versions.c
        rows = await self._session.all(
            select(columns.plugin_id, columns.version, columns.status, _DEPENDENCIES)
            .where(columns.plugin_id.in_(names))
            .order_by(columns.plugin_id, columns.precedence.desc(), columns.version.desc())
        )
        return [KnownRelease(release=_release(row), status=row.status) for row in rows]

    async def lock(self, environment: str, release: Release) -> None:
        """Its own name for itself alone, the names it speaks of beside others that do: so two that are tied, and only those,
        meet at a name. All take names in one order, so that none waits for another in a circle."""
        rules.check_storable({"environment": environment})
        for name in sorted({release.plugin, *named_by(release)}):
            take = func.pg_advisory_xact_lock if name == release.plugin else func.pg_advisory_xact_lock_shared
            await self._session.run(select(take(func.hashtextextended(f"first tenant {environment} {name}", 0))))


def _release(row: Row[Any]) -> Release:
    needed = tuple(Dependency.model_validate(one) for one in row.dependencies or ())
    return Release(plugin=row.plugin_id, version=row.version, dependencies=needed)


class PostgresPublisherKeyStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, key: PublisherKey) -> None:
        rules.storable(key, rules.KEY_LIMITS)
        values = key.model_dump(by_alias=False) | {"plugins": list(key.plugins)}
        added = await self._session.first(
            insert(publisher_keys).values(values).on_conflict_do_nothing().returning(publisher_keys.c.key_id)
        )
        if added is None:
            raise rules.key_taken(key.key_id)

    async def get(self, key_id: str) -> PublisherKey:
        rules.check_storable({"keyId": key_id})
        row = await self._session.first(select(publisher_keys).where(publisher_keys.c.key_id == key_id))
        if row is None:
            raise rules.key_missing(key_id)
        return _key(row)

    async def list(self, page: Page) -> tuple[Sequence[PublisherKey], int]:
        columns = publisher_keys.c
        query = select(publisher_keys).order_by(columns.registered_at.desc(), columns.key_id.desc())
        rows, total = await self._session.page(query, page)
        return [_key(row) for row in rows], total

    async def revoke(self, key_id: str, by: str, reason: str, at: datetime) -> PublisherKey:
        rules.check_storable({"keyId": key_id, "by": by, "reason": reason}, {"by": rules.NAME})
        columns = publisher_keys.c
        await self._session.run(
            update(publisher_keys)
            .where(columns.key_id == key_id, columns.revoked_at.is_(None))
            .values(revoked_by=by, revoked_at=at, revoke_reason=reason)
        )
        return await self.get(key_id)


def _key(row: Row[Any]) -> PublisherKey:
    return PublisherKey.model_validate(row._asdict())


class PostgresPendingUploadStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def open(self, upload: PendingUpload) -> None:
        rules.storable(upload, rules.UPLOAD_LIMITS)
        values = upload.model_dump(by_alias=False)
        values["plugin_id"] = values.pop("plugin")
        added = await self._session.first(
            insert(pending_uploads).values(values).on_conflict_do_nothing().returning(pending_uploads.c.upload_id)
        )
        if added is None:
            raise rules.upload_taken(upload.upload_id)

    async def get(self, upload_id: str) -> PendingUpload:
        rules.check_storable({"uploadId": upload_id})
        row = await self._session.first(select(pending_uploads).where(pending_uploads.c.upload_id == upload_id))
        if row is None:
            raise rules.upload_missing(upload_id)
        return _upload(row)

    async def complete(self, upload_id: str, at: datetime) -> None:
        rules.check_storable({"uploadId": upload_id})
        columns = pending_uploads.c
        done = await self._session.run(
            update(pending_uploads)
            .where(columns.upload_id == upload_id)
            .values(completed_at=func.coalesce(columns.completed_at, at))
        )
        if not done.rowcount:
            raise rules.upload_missing(upload_id)

    async def over(self, before: datetime, limit: int) -> Sequence[PendingUpload]:
        columns = pending_uploads.c
        rows = await self._session.all(
            select(pending_uploads)
            .where(columns.expires_at < before)
            .order_by(columns.expires_at, columns.upload_id)
            .limit(limit)
        )
        return [_upload(row) for row in rows]

    async def remove(self, upload_id: str) -> None:
        rules.check_storable({"uploadId": upload_id})
        await self._session.run(delete_from(pending_uploads).where(pending_uploads.c.upload_id == upload_id))


def _upload(row: Row[Any]) -> PendingUpload:
    values = row._asdict()
    values["plugin"] = values.pop("plugin_id")
    return PendingUpload.model_validate(values)
