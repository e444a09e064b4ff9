"""Versions in memory: the twin of hotswap.adapters.postgres.registry's store."""

from collections.abc import Sequence

from hotswap.adapters import record_rules as rules
from hotswap.adapters.memory.record_stores import Transaction
from hotswap.domain.lifecycle import VersionStatus
from hotswap.domain.registry import Page, PluginVersion

_MOVABLE = (
    "status",
    "signature",
    "approved_by",
    "approved_at",
    "deprecated_at",
    "deprecation_reason",
    "archived_at",
    "artifact_removed_at",
)
"""What may change after the upload."""


class MemoryVersionStore:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, version: PluginVersion) -> None:
        rules.storable(version, rules.VERSION_LIMITS)
        state = await self._transaction.writing()
        holder = state.plugins.get(version.plugin)
        if holder is None:
            raise rules.plugin_missing(version.plugin)
        if (version.plugin, version.version) in state.versions:
            raise rules.version_taken(version.plugin, version.version)
        state.versions[(version.plugin, version.version)] = PluginVersion.model_validate_json(version.model_dump_json())
        current = holder.current_version
        if current is None or rules.release_order(version.version) > rules.release_order(current):
            state.plugins[version.plugin] = holder.model_copy(update={"current_version": version.version})

    async def get(self, plugin: str, version: str) -> PluginVersion:
        rules.check_storable({"plugin": plugin, "version": version})
        found = (await self._transaction.reading()).versions.get((plugin, version))
        if found is None:
            raise rules.version_missing(plugin, version)
        return found

    async def list(self, plugin: str, page: Page) -> tuple[Sequence[PluginVersion], int]:
        rules.check_storable({"plugin": plugin})
        state = await self._transaction.reading()
        if plugin not in state.plugins:
            raise rules.plugin_missing(plugin)
        found = [row for (owner, _), row in state.versions.items() if owner == plugin]
        found.sort(key=lambda row: rules.release_order(row.version), reverse=True)
        return found[page.offset : page.offset + page.limit], len(found)

    async def move(self, version: PluginVersion, expected: VersionStatus) -> None:
        rules.storable(version, rules.VERSION_LIMITS)
        held = await self.get(version.plugin, version.version)
        if held.status is not expected:
            raise rules.version_moved(version.plugin, version.version, held.status)
        state = await self._transaction.writing()
        held = state.versions[(version.plugin, version.version)]
        if held.status is not expected:  # another unit committed while this one waited for its turn
            raise rules.version_moved(version.plugin, version.version, held.status)
        moved = {name: getattr(version, name) for name in _MOVABLE}
        state.versions[(version.plugin, version.version)] = held.model_copy(update=moved)

    async def before(self, plugin: str, version: str) -> PluginVersion | None:
        rules.check_storable({"plugin": plugin, "version": version})
        held = (await self._transaction.reading()).versions
        found = rules.release_before(version, [number for owner, number in held if owner == plugin])
        return held[(plugin, found)] if found is not None else None

    async def archived(self, limit: int) -> Sequence[PluginVersion]:
        rows = [
            row
            for row in (await self._transaction.reading()).versions.values()
            if row.status is VersionStatus.ARCHIVED and row.artifact_removed_at is None
        ]
        return sorted(rows, key=lambda row: (row.archived_at or row.created_at, row.plugin, row.version))[:limit]

    async def signed_by(self, key_id: str, limit: int) -> Sequence[PluginVersion]:
        rules.check_storable({"keyId": key_id})
        held = (await self._transaction.reading()).versions.values()
        rows = [row for row in held if row.signature is not None and row.signature.key_id == key_id]
        rows.sort(key=lambda row: rules.release_order(row.version), reverse=True)
        return sorted(rows, key=lambda row: row.plugin)[:limit]
