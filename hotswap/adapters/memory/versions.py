"""Dependencies' facts, publishers' keys and pending uploads in memory. Twin of hotswap.adapters.postgres.versions."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from hotswap.adapters import record_rules as rules
from hotswap.adapters.memory.record_stores import Transaction
from hotswap.dependencies.models import Release
from hotswap.domain.registry import Page, PluginVersion
from hotswap.domain.signatures import PublisherKey
from hotswap.domain.uploads import PendingUpload
from hotswap.ports.dependencies import KnownRelease


class MemoryDependencyStore:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def serving(self, environment: str) -> dict[str, list[Release]]:
        rules.check_storable({"environment": environment})
        state = await self._transaction.reading()
        found: dict[str, list[Release]] = {}
        for name in sorted(state.plugins):
            route = state.latest_route(environment, name)
            if route is None:
                continue
            has_tenants = route.state.candidate_weight > 0 or route.state.switched_nodes
            named = (route.state.stable, route.state.candidate if has_tenants else None)
            versions = dict.fromkeys(ref.version for ref in named if ref is not None)
            releases = [_release(state.versions[(name, version)]) for version in versions]
            if releases:
                found[name] = releases
        return found

    async def releases(self, plugins: Iterable[str]) -> Sequence[KnownRelease]:
        names = set(plugins)
        rules.check_storable({"plugins": sorted(names)})
        rows = [row for (owner, _), row in (await self._transaction.reading()).versions.items() if owner in names]
        rows.sort(key=lambda row: rules.release_order(row.version), reverse=True)
        rows.sort(key=lambda row: row.plugin)
        return [KnownRelease(release=_release(row), status=row.status) for row in rows]

    async def lock(self, environment: str, release: Release) -> None:
        rules.check_storable({"environment": environment})
        await self._transaction.writing()  # one at a time, whatever they write


def _release(row: PluginVersion) -> Release:
    return Release(plugin=row.plugin, version=row.version, dependencies=row.manifest.dependencies)


class MemoryPublisherKeyStore:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, key: PublisherKey) -> None:
        rules.storable(key, rules.KEY_LIMITS)
        state = await self._transaction.writing()
        if key.key_id in state.publisher_keys:
            raise rules.key_taken(key.key_id)
        state.publisher_keys[key.key_id] = key

    async def get(self, key_id: str) -> PublisherKey:
        rules.check_storable({"keyId": key_id})
        found = (await self._transaction.reading()).publisher_keys.get(key_id)
        if found is None:
            raise rules.key_missing(key_id)
        return found

    async def list(self, page: Page) -> tuple[Sequence[PublisherKey], int]:
        rows = sorted(
            (await self._transaction.reading()).publisher_keys.values(),
            key=lambda key: (key.registered_at, key.key_id),
            reverse=True,
        )
        return rows[page.offset : page.offset + page.limit], len(rows)

    async def revoke(self, key_id: str, by: str, reason: str, at: datetime) -> PublisherKey:
        rules.check_storable({"keyId": key_id, "by": by, "reason": reason}, {"by": rules.NAME})
        held = await self.get(key_id)
        if held.revoked_at is None:
            state = await self._transaction.writing()
            held = held.model_copy(update={"revoked_by": by, "revoked_at": at, "revoke_reason": reason})
            state.publisher_keys[key_id] = held
        return held


class MemoryPendingUploadStore:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def open(self, upload: PendingUpload) -> None:
        rules.storable(upload, rules.UPLOAD_LIMITS)
        state = await self._transaction.writing()
        if upload.upload_id in state.uploads:
            raise rules.upload_taken(upload.upload_id)
        state.uploads[upload.upload_id] = upload

    async def get(self, upload_id: str) -> PendingUpload:
        rules.check_storable({"uploadId": upload_id})
        found = (await self._transaction.reading()).uploads.get(upload_id)
        if found is None:
            raise rules.upload_missing(upload_id)
        return found

    async def complete(self, upload_id: str, at: datetime) -> None:
        held = await self.get(upload_id)
        if held.completed_at is None:
            (await self._transaction.writing()).uploads[upload_id] = held.model_copy(update={"completed_at": at})

    async def over(self, before: datetime, limit: int) -> Sequence[PendingUpload]:
        rows = [row for row in (await self._transaction.reading()).uploads.values() if row.expires_at < before]
        return sorted(rows, key=lambda row: (row.expires_at, row.upload_id))[:limit]

    async def remove(self, upload_id: str) -> None:
        rules.check_storable({"uploadId": upload_id})
        (await self._transaction.writing()).uploads.pop(upload_id, None)
