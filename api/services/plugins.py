"""The registry of plugins: register, change, list, delete; each change with its audit entry in one transaction."""

from datetime import datetime
from typing import Any

from api.metrics import ApiMetrics
from api.schemas.common import CommandIn
from api.schemas.plugins import PluginChange, PluginIn, PluginOut
from api.services.actor import Actor, caller_address
from api.services.idempotency import Once, fingerprint
from hotswap.domain.base import bounded
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput
from hotswap.domain.lifecycle import PluginStatus
from hotswap.domain.registry import AuditEntry, Page, Plugin
from hotswap.ports.records import PluginFilter, UnitOfWorkFactory
from hotswap.tracing import SpanName, span


class PluginService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, reading: UnitOfWorkFactory, metrics: ApiMetrics) -> None:
        self._unit_of_work = unit_of_work
        self._reading = reading
        self._metrics = metrics

    async def register(self, wanted: PluginIn, actor: Actor, once: Once) -> PluginOut:
        """Raises Conflict when the name is taken."""
        with span(SpanName.REGISTER, {"plugin": wanted.name}):
            return await self._register(wanted, actor, once)

    async def _register(self, wanted: PluginIn, actor: Actor, once: Once) -> PluginOut:
        request_hash = fingerprint(wanted)
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, PluginOut):
                return known
            now = await uow.now()
            plugin = Plugin(
                **{**wanted.model_dump(by_alias=False), "display_name": wanted.display_name or wanted.name},
                created_at=now,
                updated_at=now,
            )
            await uow.plugins.add(plugin)
            await uow.audit.append(entry("plugin.registered", "plugin", plugin.name, actor, now))
            answer = PluginOut.of(plugin)
            await once.keep(uow, request_hash, 201, answer)
            await uow.commit()
        self._metrics.plugins_registered.inc()
        return answer

    async def get(self, name: str) -> PluginOut:
        """Raises NotFound."""
        async with self._reading() as uow:
            return PluginOut.of(await uow.plugins.get(name))

    async def list(self, where: PluginFilter, page: Page) -> tuple[list[PluginOut], int]:
        async with self._reading() as uow:
            found, total = await uow.plugins.list(where, page)
        return [PluginOut.of(plugin) for plugin in found], total

    async def change(self, name: str, change: PluginChange, actor: Actor) -> PluginOut:
        """Raises NotFound. Fields that were not sent, or sent as null, stay as they are."""
        changes = change.model_dump(by_alias=False, exclude_none=True)
        async with self._unit_of_work() as uow:
            now = await uow.now()
            before = await uow.plugins.get(name)
            plugin = before.model_copy(update={**changes, "updated_at": now})
            await uow.plugins.save(plugin)
            details = {
                "changed": sorted(changes),
                "before": before.model_dump(mode="json", include=set(changes)),
                "after": plugin.model_dump(mode="json", include=set(changes)),
            }
            await uow.audit.append(entry("plugin.changed", "plugin", name, actor, now, details))
            await uow.commit()
        return PluginOut.of(plugin)

    async def advise(self, name: str, body: CommandIn, actor: Actor, once: Once, *, against: bool) -> PluginOut:
        """Deprecate it, or take that back. Raises NotFound, InvalidInput without a reason, Conflict in any other status."""
        verb = "deprecate" if against else "reinstate"
        if not body.reason.strip():
            raise InvalidInput(
                f"reason: is required to {verb} a plugin", [FieldFault("reason", f"is required to {verb}; say why")]
            )
        before, after = PluginStatus.ACTIVE, PluginStatus.DEPRECATED
        if not against:
            before, after = after, before
        request_hash = fingerprint({"plugin": name, "verb": verb, "reason": body.reason})
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, PluginOut):
                return known
            now = await uow.now()
            found = await uow.plugins.get(name)
            if found.status is not before:
                raise Conflict(f"{name} is {found.status}; only what is {before} can be {verb}d")
            reason = body.reason if against else ""
            plugin = found.model_copy(update={"status": after, "deprecation_reason": reason, "updated_at": now})
            await uow.plugins.save(plugin)
            details = {"from": before, "to": after, "reason": bounded(body.reason)}
            await uow.audit.append(entry(f"plugin.{verb}d", "plugin", name, actor, now, details))
            answer = PluginOut.of(plugin)
            await once.keep(uow, request_hash, 200, answer)
            await uow.commit()
        return answer

    async def delete(self, name: str, actor: Actor) -> None:
        """Raises NotFound, or Conflict while a route or a deployment names it."""
        async with self._unit_of_work() as uow:
            now = await uow.now()
            await uow.plugins.delete(name)
            await uow.audit.append(entry("plugin.deleted", "plugin", name, actor, now))
            await uow.commit()


def entry(
    event: str, kind: str, entity_id: str, actor: Actor, at: datetime, details: dict[str, Any] | None = None
) -> AuditEntry:
    """An audit entry of something this person did through the facade."""
    return AuditEntry(
        event_type=event,
        entity_type=kind,
        entity_id=entity_id,
        user=actor.user,
        details=details or {},
        trace_id=actor.trace_id,
        address=caller_address.get(),
        at=at,
    )
