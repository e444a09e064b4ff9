"""Plugins, their versions and the environments' policies on PostgreSQL. Neighbour: unit_of_work builds these stores."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Row, Text, case, cast, func, null, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import record_rules as rules
from hotswap.adapters.postgres.precedence import precedence_key
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import environments, plugin_versions, plugins
from hotswap.domain.ids import artifact_key, derived_id
from hotswap.domain.lifecycle import PluginStatus, VersionStatus
from hotswap.domain.manifest import Manifest
from hotswap.domain.registry import EnvironmentPolicy, Page, Plugin, PluginVersion
from hotswap.domain.signatures import Signature
from hotswap.ports.records import PluginFilter


class PostgresPluginStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, plugin: Plugin) -> None:
        values = _plugin_values(plugin) | {"current_version": plugin.current_version, "created_at": plugin.created_at}
        added = await self._session.first(
            insert(plugins).values(values).on_conflict_do_nothing().returning(plugins.c.plugin_id)
        )
        if added is None:
            raise rules.plugin_taken(plugin.name)

    async def get(self, name: str) -> Plugin:
        rules.check_storable({"name": name})
        row = await self._session.first(select(plugins).where(plugins.c.plugin_id == name))
        if row is None:
            raise rules.plugin_missing(name)
        return _plugin(row)

    async def list(self, where: PluginFilter, page: Page) -> tuple[Sequence[Plugin], int]:
        rules.storable(where)
        query = select(plugins).order_by(plugins.c.name)
        if where.type is not None:
            query = query.where(plugins.c.type == where.type)
        if where.status is not None:
            query = query.where(plugins.c.status == where.status)
        if where.tags:
            query = query.where(plugins.c.tags.contains(list(where.tags)))
        if where.search:
            # strpos, not LIKE: the text is literal, so there is nothing to escape.
            query = query.where(func.strpos(plugins.c.search_text, where.search.casefold()) > 0)
        rows, total = await self._session.page(query, page)
        return [_plugin(row) for row in rows], total

    async def save(self, plugin: Plugin) -> None:
        """`current_version` and `created_at` stay: the first belongs to the versions, the second never changes."""
        values: dict[str, Any] = _plugin_values(plugin)
        values["deprecated_at"] = case(
            (plugins.c.status == PluginStatus.DEPRECATED, func.coalesce(plugins.c.deprecated_at, plugin.updated_at)),
            else_=plugin.updated_at,
        )
        if plugin.status is not PluginStatus.DEPRECATED:
            values["deprecated_at"] = null()
        done = await self._session.run(update(plugins).where(plugins.c.plugin_id == plugin.name).values(values))
        if not done.rowcount:
            raise rules.plugin_missing(plugin.name)

    async def delete(self, name: str) -> None:
        rules.check_storable({"name": name})
        done = await self._session.run_guarded(
            delete_from(plugins).where(plugins.c.plugin_id == name), foreign=rules.plugin_in_use(name)
        )
        if not done.rowcount:
            raise rules.plugin_missing(name)


class PostgresVersionStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, version: PluginVersion) -> None:
        data = rules.storable(version, rules.VERSION_LIMITS)
        # The lock makes two uploads of one plugin take turns, so that the higher version wins current_version.
        holder = await self._session.first(
            select(plugins.c.current_version).where(plugins.c.plugin_id == version.plugin).with_for_update()
        )
        if holder is None:
            raise rules.plugin_missing(version.plugin)
        added = await self._session.first(
            insert(plugin_versions)
            .values(
                version_id=derived_id("ver", version.plugin, version.version),
                plugin_id=version.plugin,
                version=version.version,
                precedence=precedence_key(version.version),
                release_notes=version.release_notes,
                manifest=data["manifest"],
                binary_path=artifact_key(version.plugin, version.digest),
                checksum=version.digest,
                binary_size=version.size_bytes,
                is_breaking_change=version.is_breaking_change,
                breaking_changes=data["breakingChanges"],
                created_by=version.created_by,
                created_at=version.created_at,
                **_movable(version),
            )
            .on_conflict_do_nothing()
            .returning(plugin_versions.c.version_id)
        )
        if added is None:
            raise rules.version_taken(version.plugin, version.version)
        current = holder.current_version
        if current is None or rules.release_order(version.version) > rules.release_order(current):
            await self._session.run(
                update(plugins).where(plugins.c.plugin_id == version.plugin).values(current_version=version.version)
            )

    async def get(self, plugin: str, version: str) -> PluginVersion:
        rules.check_storable({"plugin": plugin, "version": version})
        row = await self._session.first(
            _VERSIONS.where(plugin_versions.c.plugin_id == plugin, plugin_versions.c.version == version)
        )
        if row is None:
            raise rules.version_missing(plugin, version)
        return _version(row)

    async def list(self, plugin: str, page: Page) -> tuple[Sequence[PluginVersion], int]:
        rules.check_storable({"plugin": plugin})
        query = _VERSIONS.where(plugin_versions.c.plugin_id == plugin).order_by(
            plugin_versions.c.precedence.desc(), plugin_versions.c.version.desc()
        )
        rows, total = await self._session.page(query, page)
        if not total and not await self._session.first(select(plugins.c.name).where(plugins.c.plugin_id == plugin)):
            raise rules.plugin_missing(plugin)
        return [_version(row) for row in rows], total

    async def move(self, version: PluginVersion, expected: VersionStatus) -> None:
        rules.storable(version, rules.VERSION_LIMITS)
        columns = plugin_versions.c
        here = (columns.plugin_id == version.plugin, columns.version == version.version)
        done = await self._session.run(
            update(plugin_versions).where(*here, columns.status == expected).values(_movable(version))
        )
        if not done.rowcount:
            found = await self.get(version.plugin, version.version)
            raise rules.version_moved(version.plugin, version.version, found.status)

    async def before(self, plugin: str, version: str) -> PluginVersion | None:
        rules.check_storable({"plugin": plugin, "version": version})
        columns = plugin_versions.c
        row = await self._session.first(
            _VERSIONS.where(columns.plugin_id == plugin, columns.precedence < precedence_key(version))
            # A pre-release's key holds a '-', which no other part of a key does.
            .order_by(func.strpos(columns.precedence, "-") > 0, columns.precedence.desc(), columns.version.desc())
            .limit(1)
        )
        return _version(row) if row is not None else None

    async def archived(self, limit: int) -> Sequence[PluginVersion]:
        columns = plugin_versions.c
        rows = await self._session.all(
            _VERSIONS.where(columns.status == VersionStatus.ARCHIVED, columns.artifact_removed_at.is_(None))
            .order_by(columns.archived_at, columns.plugin_id, columns.version)
            .limit(limit)
        )
        return [_version(row) for row in rows]

    async def signed_by(self, key_id: str, limit: int) -> Sequence[PluginVersion]:
        rules.check_storable({"keyId": key_id})
        columns = plugin_versions.c
        rows = await self._session.all(
            _VERSIONS.where(columns.signing_key_id == key_id)
            .order_by(columns.plugin_id, columns.precedence.desc(), columns.version.desc())
            .limit(limit)
        )
        return [_version(row) for row in rows]


class PostgresEnvironmentStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, name: str) -> EnvironmentPolicy:
        rules.check_storable({"environment": name})
        row = await self._session.first(select(environments).where(environments.c.name == name))
        if row is None:
            raise rules.environment_missing(name)
        return EnvironmentPolicy.model_validate(row._asdict())

    async def list(self) -> Sequence[EnvironmentPolicy]:
        rows = await self._session.all(select(environments).order_by(environments.c.rank))
        return [EnvironmentPolicy.model_validate(row._asdict()) for row in rows]


def _plugin_values(plugin: Plugin) -> dict[str, Any]:
    rules.storable(plugin)
    return {
        "plugin_id": plugin.name,
        "name": plugin.name,
        "display_name": plugin.display_name,
        "description": plugin.description,
        "type": plugin.type,
        "status": plugin.status,
        "author": plugin.author,
        "documentation_url": plugin.documentation_url,
        "tags": list(plugin.tags),
        "deprecation_reason": plugin.deprecation_reason or None,
        "search_text": rules.search_text(plugin),
        "updated_at": plugin.updated_at,
    }


def _plugin(row: Row[Any]) -> Plugin:
    return Plugin(
        name=row.name,
        display_name=row.display_name,
        description=row.description,
        type=row.type,
        status=row.status,
        current_version=row.current_version,
        author=row.author,
        documentation_url=row.documentation_url,
        tags=tuple(row.tags),
        deprecation_reason=row.deprecation_reason or "",
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


_VERSIONS = select(plugin_versions, cast(plugin_versions.c.manifest, Text).label("manifest_text"))


@lru_cache(maxsize=512)
def _manifest(text: str) -> Manifest:
    """Cached: checking the JSON Schemas of one manifest takes milliseconds, and a version's manifest never changes."""
    return Manifest.model_validate_json(text)


def _version(row: Row[Any]) -> PluginVersion:
    return PluginVersion(
        plugin=row.plugin_id,
        version=row.version,
        release_notes=row.release_notes,
        manifest=_manifest(row.manifest_text),
        digest=row.checksum,
        size_bytes=row.binary_size,
        status=row.status,
        is_breaking_change=row.is_breaking_change,
        breaking_changes=tuple(row.breaking_changes),
        signature=Signature(key_id=row.signing_key_id, value=row.signature) if row.signature else None,
        created_by=row.created_by,
        created_at=row.created_at,
        approved_by=row.approved_by,
        approved_at=row.approved_at,
        deprecated_at=row.deprecated_at,
        deprecation_reason=row.deprecation_reason,
        archived_at=row.archived_at,
        artifact_removed_at=row.artifact_removed_at,
    )


def _movable(version: PluginVersion) -> dict[str, Any]:
    """What may change after the upload."""
    return {
        "status": version.status,
        "signature": version.signature.value if version.signature else None,
        "signing_key_id": version.signature.key_id if version.signature else None,
        "approved_by": version.approved_by,
        "approved_at": version.approved_at,
        "deprecated_at": version.deprecated_at,
        "deprecation_reason": version.deprecation_reason,
        "archived_at": version.archived_at,
        "artifact_removed_at": version.artifact_removed_at,
    }
