"""Secrets of tenants: set, delete, and the rotation of the keys that seal them. None is ever answered, logged or audited.

Neighbours: hotswap.keys.ring seals, api.services.tenants keeps the row's history. A rotation goes on where it stopped:
what is sealed under an old data key stays readable until it is sealed anew, and a day longer.
"""

import json
from datetime import timedelta

from pydantic import SecretStr

from api.schemas.tenants import RewrapIn, RewrapOut, RotateOut
from api.services.actor import Actor
from api.services.plugins import entry
from api.services.tenants import Edit, Facts, change, no_keys
from hotswap.domain.base import bounded
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput, NotFound
from hotswap.domain.tenants import MAX_SECRETS, ChangeKind, SealedSecret, TenantPlugin
from hotswap.keys.ring import DataKeyRing
from hotswap.ports.records import UnitOfWorkFactory
from hotswap.ports.tenant_settings import MAX_SETTINGS_BYTES

A_PART = 50
"""Plugins of a tenant resealed by one call: well under a second, so that a call never runs into a timeout."""

RETIRED_KEPT = timedelta(days=1)
"""How long a retired data key stays: far longer than any node takes to read what was sealed anew."""


class TenantSecretService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, ring: DataKeyRing | None) -> None:
        """Without a `ring` (no key provider) every call raises Unavailable."""
        self._unit_of_work = unit_of_work
        self._ring = ring

    async def set(self, tenant: str, plugin: str, name: str, value: SecretStr, actor: Actor) -> None:
        """Raises Forbidden, NotFound, InvalidInput, Unavailable (no provider, or it is away)."""
        actor.require_tenant(tenant)
        ring = self._needed()
        async with self._unit_of_work() as uow:
            await uow.plugins.get(plugin)
        plain = value.get_secret_value()
        key_id, sealed = await ring.seal(tenant, plugin, name, plain)
        async with self._unit_of_work() as uow:
            secret = SealedSecret(
                key_id=key_id,
                sealed=sealed,
                updated_at=await uow.now(),
                json_bytes=len(json.dumps({name: plain})),
            )
            await change(uow, tenant, plugin, ChangeKind.SECRET_SET, _with(name, secret), "", actor)
            await uow.commit()

    async def delete(self, tenant: str, plugin: str, name: str, actor: Actor) -> None:
        """Raises Forbidden, NotFound."""
        actor.require_tenant(tenant)
        async with self._unit_of_work() as uow:
            await change(uow, tenant, plugin, ChangeKind.SECRET_DELETED, _without(name), "", actor)
            await uow.commit()

    async def rotate(self, tenant: str, reason: str, actor: Actor) -> RotateOut:
        """A part of the rotation of the tenant's data key, the first or the next. Raises Unavailable."""
        ring = self._needed()
        async with self._unit_of_work() as uow:
            keys = await uow.data_keys.of_tenant(tenant)
            current = await uow.data_keys.current(tenant)
            goes_on = current is not None and await uow.tenants.sealed_otherwise(tenant, current.key_id, 1)
        if current is None:
            raise Conflict("this tenant has no data key: its first secret makes one")
        if not goes_on:
            current = await ring.new_key(tenant)
        rewrapped = await ring.rewrap(keys)
        await ring.load([current.key_id])
        resealed = await self._reseal(ring, tenant, current.key_id)
        async with self._unit_of_work() as uow:
            done = not await uow.tenants.sealed_otherwise(tenant, current.key_id, 1)
            if done:
                await uow.data_keys.lock(tenant)
                now = await uow.now()
                await uow.data_keys.retire([key.key_id for key in keys if key.key_id != current.key_id], now)
                await uow.data_keys.delete_retired(tenant, now - RETIRED_KEPT)
            details = {"keyId": current.key_id, "resealed": resealed, "done": done, "reason": bounded(reason)}
            await uow.audit.append(entry("tenant.keys-rotated", "tenant", tenant, actor, await uow.now(), details))
            await uow.commit()
        return RotateOut(key_id=current.key_id, rewrapped=rewrapped, resealed=resealed, done=done)

    async def _reseal(self, ring: DataKeyRing, tenant: str, key_id: str) -> int:
        async with self._unit_of_work() as uow:
            plugins = await uow.tenants.sealed_otherwise(tenant, key_id, A_PART)
            rows = await uow.tenants.of_tenant(tenant, plugins)
        await ring.load({secret.key_id for row in rows for secret in row.secrets.values()})
        for row in rows:
            async with self._unit_of_work() as uow:
                held = await uow.tenants.hold(tenant, row.plugin, "")
                secrets = ring.reseal(tenant, row.plugin, held.secrets, key_id)
                await uow.tenants.save(held.model_copy(update={"secrets": secrets}))
                await uow.commit()
        return len(rows)

    async def rewrap(self, wanted: RewrapIn, actor: Actor) -> RewrapOut:
        """Wrap a part of all tenants' data keys by the provider's newest key. Raises Unavailable."""
        ring = self._needed()
        async with self._unit_of_work() as uow:
            keys = await uow.data_keys.page(wanted.after, wanted.limit)
        rewrapped = await ring.rewrap(keys)
        if rewrapped:
            async with self._unit_of_work() as uow:
                details = {"rewrapped": rewrapped}
                await uow.audit.append(entry("keys.rewrapped", "keys", "tenants", actor, await uow.now(), details))
                await uow.commit()
        more = len(keys) == wanted.limit
        return RewrapOut(looked_at=len(keys), rewrapped=rewrapped, next=keys[-1].key_id if more else None)

    def _needed(self) -> DataKeyRing:
        if self._ring is None:
            raise no_keys()
        return self._ring


def _with(name: str, secret: SealedSecret) -> Edit:
    def edit(row: TenantPlugin) -> tuple[TenantPlugin, Facts, Facts]:
        secrets = {**row.secrets, name: secret}
        if len(secrets) > MAX_SECRETS:
            _refuse(f"would be one more than {MAX_SECRETS}; delete one first")
        if sum(one.json_bytes for one in secrets.values()) > MAX_SETTINGS_BYTES:
            _refuse(f"would make this tenant's secrets larger than {MAX_SETTINGS_BYTES} bytes together")
        return row.model_copy(update={"secrets": secrets}), _told(name, row.secrets.get(name)), _told(name, secret)

    return edit


def _without(name: str) -> Edit:
    def edit(row: TenantPlugin) -> tuple[TenantPlugin, Facts, Facts]:
        if name not in row.secrets:
            raise NotFound(f"this tenant has no secret {name} for {row.plugin}")
        secrets = {key: one for key, one in row.secrets.items() if key != name}
        return row.model_copy(update={"secrets": secrets}), _told(name, row.secrets[name]), _told(name, None)

    return edit


def _refuse(why: str) -> None:
    raise InvalidInput(f"the secret {why}", [FieldFault("value", why)])


def _told(name: str, secret: SealedSecret | None) -> Facts:
    """Which and when, never what."""
    return {"secret": name, "updatedAt": secret.updated_at.isoformat() if secret is not None else None}
