"""Versions: judge an upload, store the artifact, then register it; and hand it out again, digest checked.

Neighbours: api.services.uploads brought the file to disk, hotswap.runtime.bundle judges it, the ports store it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from api.metrics import ApiMetrics
from api.schemas.plugins import VersionOut
from api.services.actor import Actor
from api.services.idempotency import Once, fingerprint
from api.services.plugins import entry
from api.services.store_patience import store_patience
from api.services.uploads import DOWNLOADS, Upload, scratch
from hotswap.config import SandboxSettings
from hotswap.dependencies.check import declared_faults
from hotswap.dependencies.models import Release
from hotswap.dependencies.packages import package_faults
from hotswap.domain.compatibility import breaking_changes
from hotswap.domain.errors import (
    ArtifactMissing,
    BundleRejected,
    Conflict,
    FieldFault,
    HotSwapError,
    InvalidInput,
    ManifestInvalid,
    NotFound,
    SignatureRefused,
    Unavailable,
)
from hotswap.domain.ids import artifact_key
from hotswap.domain.lifecycle import PluginStatus, VersionStatus
from hotswap.domain.manifest import Manifest, SemVer, parse_manifest
from hotswap.domain.registry import Page, PluginVersion
from hotswap.domain.routes import ArtifactRef
from hotswap.domain.signatures import Signature
from hotswap.ports.artifacts import ArtifactStore
from hotswap.ports.records import UnitOfWorkFactory
from hotswap.runtime.bundle import validate_bundle, vendored_versions
from hotswap.runtime.caps import above
from hotswap.runtime.signature_guard import RegistrySignatureGuard, Vouching, key_of
from hotswap.tracing import SpanName, span

log = logging.getLogger(__name__)

MAX_NOTES = 20_000
_SEMVER: TypeAdapter[str] = TypeAdapter(SemVer)


class VersionService:
    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        reading: UnitOfWorkFactory,
        artifacts: ArtifactStore,
        metrics: ApiMetrics,
        work_dir: Path,
        max_bytes: int,
        caps: SandboxSettings,
        guard: RegistrySignatureGuard,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._reading = reading
        self._artifacts = artifacts
        self._metrics = metrics
        self._work_dir = work_dir
        self._max_bytes = max_bytes
        self._caps = caps
        self._guard = guard

    async def expect_open(self, plugin: str) -> None:
        """Asked before a byte of an upload is read. Raises NotFound, or Conflict for an archived plugin."""
        async with self._unit_of_work() as uow:
            found = await uow.plugins.get(plugin)
        if found.status == PluginStatus.ARCHIVED:
            raise Conflict(f"{plugin} is Archived and takes no new versions")

    async def upload(self, plugin: str, upload: Upload, actor: Actor, once: Once) -> VersionOut:
        """Judge, store, register. Whatever is raised, no row and no audit entry is left.

        Raises InvalidInput, BundleRejected or ManifestInvalid naming the field; Conflict when the version is there;
        Unavailable (a repeat helps).
        """
        try:
            with span(SpanName.UPLOAD, {"plugin": plugin}) as running:
                answer = await self._upload(plugin, upload, actor, once)
                running.set_attribute("hotswap.version", answer.version)
        except HotSwapError as fault:
            self._metrics.versions_uploaded.labels(type(fault).__name__).inc()
            raise
        self._metrics.versions_uploaded.labels("stored").inc()
        return answer

    async def _upload(self, plugin: str, upload: Upload, actor: Actor, once: Once) -> VersionOut:
        _check_fields(upload)
        request_hash = fingerprint({"plugin": plugin, "digest": upload.digest, **upload.fields})
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, VersionOut):
                return known
        with span(SpanName.VALIDATE, {"plugin": plugin, "check": "bundle"}):
            manifest = await _judged(upload)
        _check_agreement(plugin, upload, manifest)
        if over := above(manifest.resources, self._caps):
            named = "; ".join(f"{fault.field} {fault.message}" for fault in over)
            raise ManifestInvalid(f"the manifest asks for more than there is: {named}", _under_manifest(tuple(over)))
        await self.expect_new(plugin, manifest.version)
        signature = signature_in(upload.fields)
        await self._check_signature(plugin, manifest.version, upload, signature)
        key = artifact_key(plugin, upload.digest)
        async with store_patience(f"take {plugin} {manifest.version}", upload.size_bytes):
            await self._artifacts.put(key, upload.path, upload.digest)
        try:
            return await self._register(plugin, upload, manifest, signature, actor, once, request_hash)
        except Unavailable:
            raise  # the row may have been committed all the same, and an orphan harms nobody
        except HotSwapError:
            await self._remove_unless_registered(plugin, manifest.version, upload.digest)
            raise

    async def expect_new(self, plugin: str, version: str) -> None:
        """Raises Conflict when the version is there, whatever its bytes."""
        async with self._unit_of_work() as uow:
            try:
                there = await uow.versions.get(plugin, version)
            except NotFound:
                return
        raise Conflict(
            f"{plugin} {version} is there already (sha256 {there.digest}); versions are immutable: raise the version"
        )

    async def _check_signature(self, plugin: str, version: str, upload: Upload, signature: Signature | None) -> None:
        """A signature that comes must count, wherever the version may go later. Raises SignatureRefused."""
        if signature is None:
            return
        ref = ArtifactRef(plugin=plugin, version=version, digest=upload.digest, size_bytes=upload.size_bytes)
        async with self._unit_of_work() as uow:
            vouching = Vouching(signature, await key_of(uow, signature))
        self._guard.judge(ref, vouching, None)
        if why := self._guard.why_not(plugin, vouching):
            raise SignatureRefused(f"the upload {why}", [FieldFault("keyId", why)])

    async def _register(
        self,
        plugin: str,
        upload: Upload,
        manifest: Manifest,
        signature: Signature | None,
        actor: Actor,
        once: Once,
        request_hash: str,
    ) -> VersionOut:
        async with self._unit_of_work() as uow:
            now = await uow.now()
            before = await uow.versions.before(plugin, manifest.version)
            breaks = await asyncio.to_thread(breaking_changes, before.manifest, manifest) if before else ()
            version = PluginVersion(
                plugin=plugin,
                version=manifest.version,
                release_notes=upload.fields.get("releaseNotes", ""),
                manifest=manifest,
                digest=upload.digest,
                size_bytes=upload.size_bytes,
                status=VersionStatus.DRAFT if upload.fields.get("draft") == "true" else VersionStatus.PENDING_APPROVAL,
                is_breaking_change=bool(breaks),
                breaking_changes=breaks,
                signature=signature,
                created_by=actor.user,
                created_at=now,
            )
            await uow.versions.add(version)
            owner = await uow.plugins.get(plugin)
            if owner.status == PluginStatus.DRAFT:
                await uow.plugins.save(owner.model_copy(update={"status": PluginStatus.ACTIVE, "updated_at": now}))
            details = {
                "version": version.version,
                "digest": version.digest,
                "sizeBytes": version.size_bytes,
                **({"signedWith": signature.key_id} if signature else {}),
                **({"breaking": True} if breaks else {}),
            }
            await uow.audit.append(entry("version.uploaded", "plugin", plugin, actor, now, details))
            answer = VersionOut.of(version)
            await once.keep(uow, request_hash, 201, answer)
            await uow.commit()
        return answer

    async def _remove_unless_registered(self, plugin: str, version: str, digest: str) -> None:
        """After a definite refusal. The same bytes may belong to a twin upload that won: then they stay."""
        async with self._unit_of_work() as uow:
            try:
                if (await uow.versions.get(plugin, version)).digest == digest:
                    return
            except NotFound:
                pass  # nothing refers to the object
        await self._artifacts.delete(artifact_key(plugin, digest))

    async def get(self, plugin: str, version: str) -> VersionOut:
        """Raises NotFound."""
        async with self._reading() as uow:
            return VersionOut.of(await uow.versions.get(plugin, version))

    async def list(self, plugin: str, page: Page) -> tuple[list[VersionOut], int]:
        """Newest first. Raises NotFound without the plugin."""
        async with self._reading() as uow:
            found, total = await uow.versions.list(plugin, page)
        return [VersionOut.of(version) for version in found], total

    @asynccontextmanager
    async def fetched(self, version: VersionOut) -> AsyncIterator[Path]:
        """The artifact on disk, its digest checked, until the block is left. Raises ArtifactMissing, ArtifactCorrupt."""
        with scratch(self._work_dir / DOWNLOADS) as directory:
            if version.artifact_removed_at is not None:
                raise ArtifactMissing(
                    f"{version.plugin} {version.version} was archived, and its artifact removed at "
                    f"{version.artifact_removed_at.isoformat(timespec='seconds')}"
                )
            target = directory / "binary.zip"
            key = artifact_key(version.plugin, version.digest)
            async with store_patience(f"give {version.plugin} {version.version}", version.size_bytes):
                await self._artifacts.fetch(key, target, version.digest, max(version.size_bytes, self._max_bytes))
            yield target


def _check_fields(upload: Upload) -> None:
    faults = []
    version = upload.fields.get("version", "")
    if not version:
        faults.append(FieldFault("version", "is required"))
    else:
        try:
            _SEMVER.validate_python(version)
        except ValidationError as fault:
            faults.append(FieldFault("version", fault.errors()[0]["msg"].removeprefix("Value error, ")))
    if len(upload.fields.get("releaseNotes", "")) > MAX_NOTES:
        faults.append(FieldFault("releaseNotes", f"is longer than {MAX_NOTES} characters"))
    told = upload.fields.get("digest", "").removeprefix("sha256:").lower()
    if told and told != upload.digest:
        faults.append(
            FieldFault(
                "digest", f"says {told[:64]}, but the binary that came has SHA-256 {upload.digest}; send it again"
            )
        )
    if upload.fields.get("draft", "false") not in ("true", "false"):
        faults.append(FieldFault("draft", "must be true or false"))
    if faults:
        named = "; ".join(f"{fault.field}: {fault.message}" for fault in faults)
        raise InvalidInput(f"the upload is wrong: {named}", faults)


def signature_in(fields: Mapping[str, str]) -> Signature | None:
    """The signature of an upload's text fields, or None without one. Raises InvalidInput naming what is wrong."""
    value, key_id = fields.get("signature", ""), fields.get("keyId", "")
    if not value and not key_id:
        return None
    if not value or not key_id:
        missing = "keyId" if value else "signature"
        raise InvalidInput(f"{missing}: is required", [FieldFault(missing, "signature and keyId come together")])
    try:
        return Signature(key_id=key_id, value=value)
    except ValidationError as fault:
        wrong = {str(item["loc"][0]) for item in fault.errors()}
        faults = [FieldFault(name, remedy) for name, remedy in _SIGNATURE_REMEDIES.items() if name in wrong]
        faults = [FieldFault("signature" if one.field == "value" else "keyId", one.message) for one in faults]
        raise InvalidInput(f"the signature is wrong: {faults[0].field}: {faults[0].message}", faults) from None


_SIGNATURE_REMEDIES = {
    "keyId": "must be the SHA-256 of the public key, 64 lower-case hex digits",
    "value": "must be the base64 of an Ed25519 signature, 88 characters",
}


async def _judged(upload: Upload) -> Manifest:
    try:
        manifest = await asyncio.to_thread(validate_bundle, upload.path)
        vendored = await asyncio.to_thread(vendored_versions, upload.path)
    except ManifestInvalid as fault:
        raise ManifestInvalid(fault.message, _under_manifest(fault.faults)) from None
    except BundleRejected as fault:
        raise BundleRejected(fault.message, fault.faults or [FieldFault("binary", fault.message)]) from None
    release = Release(plugin=manifest.name, version=manifest.version, dependencies=manifest.dependencies)
    faults = [*declared_faults(release), *package_faults(manifest.dependencies, vendored)]
    if faults:
        named = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:5])
        raise ManifestInvalid(f"the manifest's dependencies are wrong: {named}", _under_manifest(tuple(faults)))
    return manifest


def _under_manifest(faults: tuple[FieldFault, ...]) -> list[FieldFault]:
    return [FieldFault(f"manifest.{fault.field}", fault.message) for fault in faults]


def _check_agreement(plugin: str, upload: Upload, manifest: Manifest) -> None:
    """URL, fields and the manifest in the zip must say the same. Raises InvalidInput naming what differs."""
    faults = []
    if manifest.name != plugin:
        faults.append(FieldFault("manifest.name", f"is '{manifest.name}' in the zip, but the upload is for '{plugin}'"))
    if manifest.version != upload.fields["version"]:
        said = upload.fields["version"]
        faults.append(FieldFault("version", f"is '{said}', but the manifest in the zip says '{manifest.version}'"))
    if text := upload.fields.get("manifest", "").strip():
        try:
            told = parse_manifest(text.encode(), "manifest.json")
        except ManifestInvalid as fault:
            raise ManifestInvalid(fault.message, _under_manifest(fault.faults)) from None
        ours, theirs = manifest.model_dump(by_alias=True), told.model_dump(by_alias=True)
        faults += [
            FieldFault(f"manifest.{name}", "differs from the manifest in the zip; leave the field out or send the same")
            for name in ours
            if ours[name] != theirs[name]
        ]
    if faults:
        named = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:5])
        raise InvalidInput(f"the upload contradicts itself: {named}", faults)
