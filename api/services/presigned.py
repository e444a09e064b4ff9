"""Uploads past the facade: promise a place in the object store, then judge what came there as any other upload.

Nothing is trusted that the object store held meanwhile: size, digest, manifest and every byte of the zip are checked on
our own disk, and only then does it become an artifact. Neighbours: api.services.versions judges, activities.retention
sweeps what nobody completed.
"""

import logging
from pathlib import Path

from api.schemas.plugins import VersionOut
from api.schemas.versions import CompleteIn, PresignIn, PresignOut
from api.services.actor import Actor
from api.services.idempotency import Once
from api.services.plugins import entry
from api.services.store_patience import store_patience
from api.services.uploads import UPLOADS, Upload, scratch
from api.services.versions import VersionService
from hotswap.config import Settings
from hotswap.domain.errors import ArtifactTooLarge, Conflict, Forbidden, HotSwapError, NotFound, Unavailable
from hotswap.domain.ids import new_id, upload_key
from hotswap.domain.uploads import PendingUpload
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.records import UnitOfWorkFactory

log = logging.getLogger(__name__)


class PresignedService:
    def __init__(
        self, unit_of_work: UnitOfWorkFactory, artifacts: ArtifactStore, versions: VersionService, settings: Settings
    ) -> None:
        self._unit_of_work = unit_of_work
        self._artifacts = artifacts
        self._versions = versions
        self._settings = settings

    @property
    def _scratch(self) -> Path:
        return self._settings.work_dir / UPLOADS

    async def begin(self, plugin: str, wanted: PresignIn, actor: Actor) -> PresignOut:
        """Raises NotFound, Conflict (archived plugin, version there), ArtifactTooLarge, Unavailable."""
        most = self._settings.max_presigned_bytes
        if wanted.size_bytes > most:
            raise ArtifactTooLarge(f"{wanted.size_bytes} bytes are over {most}, the limit of this platform")
        await self._versions.expect_open(plugin)
        await self._versions.expect_new(plugin, wanted.version)
        upload_id = new_id("upl")
        key = upload_key(plugin, upload_id)
        async with self._unit_of_work() as uow:
            now = await uow.now()
            upload = PendingUpload(
                upload_id=upload_id,
                plugin=plugin,
                version=wanted.version,
                digest=wanted.digest,
                size_bytes=wanted.size_bytes,
                created_by=actor.user,
                created_at=now,
                expires_at=now + self._settings.presigned_for,
            )
            # The row first: a url without a row would let in what no sweep finds.
            await uow.uploads.open(upload)
            details = {"version": wanted.version, "digest": wanted.digest, "sizeBytes": wanted.size_bytes}
            await uow.audit.append(entry("version.upload-begun", "plugin", plugin, actor, now, details))
            await uow.commit()
        place = await self._artifacts.presign(key, wanted.size_bytes, self._settings.presigned_for)
        return PresignOut(
            upload_id=upload_id,
            url=place.url,
            fields=place.fields,
            size_bytes=wanted.size_bytes,
            expires_at=upload.expires_at,
        )

    async def complete(self, plugin: str, body: CompleteIn, actor: Actor, once: Once) -> VersionOut:
        """Judge what came. Whatever is raised but Unavailable, the uploaded object is gone afterwards.

        Raises NotFound, Forbidden (another's upload), Conflict (over, or the version is there), ArtifactMissing when
        nothing came yet (it may still), and what VersionService.upload raises.
        """
        await self._versions.expect_open(plugin)
        upload = await self._pending(plugin, body.upload_id, actor)
        if upload.completed_at is not None:
            return await self._versions.get(plugin, upload.version)
        key = upload_key(plugin, upload.upload_id)
        with scratch(self._scratch) as directory:
            brought = Upload(directory / "binary.zip", _fields(upload, body), upload.digest, upload.size_bytes)
            try:
                async with store_patience(f"give upload {upload.upload_id}", upload.size_bytes):
                    await self._artifacts.take(key, brought.path, upload.digest, upload.size_bytes)
                version = await self._versions.upload(plugin, brought, actor, once)
            except (Unavailable, NotFound):
                raise
            except HotSwapError:
                await self._discard(upload)
                raise
        await self._note(upload)
        return version

    async def _pending(self, plugin: str, upload_id: str, actor: Actor) -> PendingUpload:
        async with self._unit_of_work() as uow:
            upload = await uow.uploads.get(upload_id)
            now = await uow.now()
        if upload.plugin != plugin:
            raise NotFound(f"upload '{upload_id}' is not one of plugin '{plugin}'")
        if upload.created_by != actor.user:
            raise Forbidden(f"{upload_id} was begun by {upload.created_by}, who alone may complete it")
        if upload.completed_at is None and now > upload.expires_at:
            raise Conflict(f"{upload_id} expired at {upload.expires_at.isoformat(timespec='seconds')}; begin a new one")
        return upload

    async def _discard(self, upload: PendingUpload) -> None:
        """The refusal counts, not the cleaning: what stays is swept when the url has expired."""
        try:
            await self._artifacts.purge(upload_key(upload.plugin, upload.upload_id))
        except Unavailable as fault:
            log.warning("upload %s was refused and is still there until the sweep: %s", upload.upload_id, fault.message)

    async def _note(self, upload: PendingUpload) -> None:
        """The version is registered: to refuse now would be a lie. The row stays until its url has expired."""
        try:
            async with self._unit_of_work() as uow:
                await uow.uploads.complete(upload.upload_id, await uow.now())
                await uow.commit()
        except (Unavailable, NotFound) as fault:
            log.warning("upload %s is registered, but not noted as complete: %s", upload.upload_id, fault.message)
        await self._discard(upload)


def _fields(upload: PendingUpload, body: CompleteIn) -> dict[str, str]:
    told = {
        "version": upload.version,
        "releaseNotes": body.release_notes,
        "manifest": body.manifest,
        "signature": body.signature,
        "keyId": body.key_id,
        "draft": "true" if body.draft else "",
    }
    return {name: text for name, text in told.items() if text}
