"""What people do to versions: submit, approve, deprecate, reinstate, archive, sign; and who uses a version.

Every move goes through the one table (hotswap.domain.lifecycle) and leaves its audit entry in the same transaction.
Neighbours: api.services.versions uploads, activities.retention knows what still needs a version.
"""

from typing import Any

from activities.retention import needed_by
from api.schemas.plugins import VersionOut
from api.schemas.versions import MoveIn, SignIn
from api.services.actor import Actor
from api.services.idempotency import Once, fingerprint
from api.services.plugins import entry
from hotswap.domain.base import bounded
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, FieldFault, Forbidden, InvalidInput, SignatureRefused
from hotswap.domain.lifecycle import VersionEvent, advance_version
from hotswap.domain.notices import VersionDeprecated, of_deprecation
from hotswap.domain.registry import AuditEntry, PluginVersion
from hotswap.domain.signatures import Signature
from hotswap.ports.notices import Notices
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from hotswap.routing.adoption import Adoption, adoption_of
from hotswap.runtime.signature_guard import RegistrySignatureGuard, Vouching, key_of

NEED_A_REASON = frozenset({VersionEvent.DEPRECATE, VersionEvent.REINSTATE, VersionEvent.ARCHIVE})

LISTED_TENANTS = 100
"""Names in an answer about adoption."""

TOLD_TENANTS = 1_000
"""Audit entries for tenants of one deprecation: more is written down as a number, and GET .../adoption counts them."""

_PAST = {
    VersionEvent.SUBMIT: "submitted",
    VersionEvent.APPROVE: "approved",
    VersionEvent.DEPRECATE: "deprecated",
    VersionEvent.REINSTATE: "reinstated",
    VersionEvent.ARCHIVE: "archived",
}


class AuditedNotices:
    """Tells by an audit entry for each tenant on record, and announces it to whom notification rules name."""

    async def version_deprecated(self, uow: UnitOfWork, notice: VersionDeprecated) -> None:
        await uow.notifications.announce(of_deprecation(notice))
        for tenant in notice.tenants[:TOLD_TENANTS]:
            await uow.audit.append(
                AuditEntry(
                    event_type="tenant.version-deprecated",
                    entity_type="tenant",
                    entity_id=tenant,
                    user=notice.by,
                    details={"plugin": notice.plugin, "version": notice.version, "reason": notice.reason},
                    trace_id=notice.trace_id,
                    at=notice.at,
                )
            )


class ReleaseService:
    def __init__(
        self, unit_of_work: UnitOfWorkFactory, guard: RegistrySignatureGuard, notices: Notices | None = None
    ) -> None:
        self._unit_of_work = unit_of_work
        self._guard = guard
        self._notices = notices or AuditedNotices()

    async def move(
        self, plugin: str, version: str, event: VersionEvent, body: MoveIn, actor: Actor, once: Once
    ) -> VersionOut:
        """Raises NotFound; InvalidInput without a needed reason; Forbidden for one's own upload; Conflict when the table
        has no such move, somebody else moved first, or (archive) something still needs the version.
        """
        if event in NEED_A_REASON and not body.reason.strip():
            raise InvalidInput(
                f"reason: is required to {event} a version", [FieldFault("reason", "is required; say why")]
            )
        request_hash = fingerprint({"plugin": plugin, "version": version, "event": event, "reason": body.reason})
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, VersionOut):
                return known
            found = await uow.versions.get(plugin, version)
            now = await uow.now()
            status = advance_version(found.status, event)
            changes: dict[str, Any] = {"status": status}
            match event:
                case VersionEvent.APPROVE:
                    _refuse_own(found, actor)
                    changes |= {"approved_by": actor.user, "approved_at": now}
                case VersionEvent.DEPRECATE:
                    changes |= {"deprecated_at": now, "deprecation_reason": body.reason}
                case VersionEvent.REINSTATE:
                    changes |= {"deprecated_at": None, "deprecation_reason": "", "approved_by": None}
                    changes |= {"approved_at": None}
                case VersionEvent.ARCHIVE:
                    await _refuse_needed(uow, found)
                    changes |= {"archived_at": now}
                case VersionEvent.SUBMIT:
                    pass
            moved = found.model_copy(update=changes)
            await uow.versions.move(moved, expected=found.status)
            details: dict[str, Any] = {"version": version, "from": found.status, "to": status}
            if body.reason:
                details["reason"] = bounded(body.reason)
            if event is VersionEvent.DEPRECATE:
                details["tenants"] = await self._tell(uow, moved, actor)
            await uow.audit.append(entry(f"version.{_PAST[event]}", "plugin", plugin, actor, now, details))
            answer = VersionOut.of(moved)
            await once.keep(uow, request_hash, 200, answer)
            await uow.commit()
        return answer

    async def _tell(self, uow: UnitOfWork, version: PluginVersion, actor: Actor) -> int:
        """Tell the tenants on record; returns how many there are."""
        adoption = await _adoption(uow, version, most=10**6)
        assert version.deprecated_at is not None
        notice = VersionDeprecated(
            plugin=version.plugin,
            version=version.version,
            reason=version.deprecation_reason,
            by=actor.user,
            at=version.deprecated_at,
            environments=tuple(place.environment for place in adoption.environments),
            tenants=adoption.tenants,
            trace_id=actor.trace_id,
        )
        await self._notices.version_deprecated(uow, notice)
        return adoption.tenant_count

    async def sign(self, plugin: str, version: str, body: SignIn, actor: Actor) -> VersionOut:
        """Add a signature after the upload, or replace one. Raises NotFound, SignatureRefused, Conflict."""
        signature = Signature(key_id=body.key_id, value=body.signature)
        async with self._unit_of_work() as uow:
            found = await uow.versions.get(plugin, version)
            vouching = Vouching(signature, await key_of(uow, signature))
            self._guard.judge(found.ref, vouching, None)
            if why := self._guard.why_not(plugin, vouching):
                raise SignatureRefused(f"{plugin} {version} {why}", [FieldFault("keyId", why)])
            signed = found.model_copy(update={"signature": signature})
            await uow.versions.move(signed, expected=found.status)
            details = {"version": version, "keyId": signature.key_id, "digest": found.digest}
            await uow.audit.append(entry("version.signed", "plugin", plugin, actor, await uow.now(), details))
            await uow.commit()
        return VersionOut.of(signed)

    async def adoption(self, plugin: str, version: str) -> Adoption:
        """Raises NotFound."""
        async with self._unit_of_work() as uow:
            return await _adoption(uow, await uow.versions.get(plugin, version), LISTED_TENANTS)


async def _adoption(uow: UnitOfWork, version: PluginVersion, most: int) -> Adoption:
    routes = [await uow.routes.current(environment, version.plugin) for environment in Environment]
    pins = await uow.pins.pins(version.plugin)
    tenants = await uow.pins.tenants(version.plugin)
    return adoption_of(version.plugin, version.version, filter(None, routes), pins, tenants, most)


def _refuse_own(version: PluginVersion, actor: Actor) -> None:
    if version.created_by == actor.user:
        raise Forbidden(
            f"{actor.user} uploaded {version.plugin} {version.version} and cannot approve it; another Admin must"
        )


async def _refuse_needed(uow: UnitOfWork, version: PluginVersion) -> None:
    if reasons := await needed_by(uow, version.plugin, version.version):
        raise Conflict(
            f"{version.plugin} {version.version} is still needed and cannot be archived: {'; '.join(reasons[:5])}"
        )
