"""The data keys this process has unwrapped, and what it does with them: seal for the api, open for a node's hosts.

Neighbours: hotswap.ports.keys wraps and unwraps, hotswap.ports.tenants keeps the wrapped ones, hotswap.keys.sealing does
the cryptography. Plain keys are in memory only. A provider that is away stops what is new, not what was opened before.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from hotswap.domain.errors import Unavailable
from hotswap.domain.ids import new_id
from hotswap.domain.tenants import DataKey, SealedSecret
from hotswap.keys.sealing import new_data_key, seal, unseal
from hotswap.ports.keys import KeyProvider, WrappedKey
from hotswap.ports.records import UnitOfWorkFactory

MOST_KEPT = 100_000
"""Plain keys in memory (about 20 MB); all go when it is full. Ten times the tenants of a plugin by specification."""

AT_ONCE = 250
"""Keys unwrapped by one question to the provider."""


class DataKeyRing:
    """Belongs to one event loop."""

    def __init__(self, unit_of_work: UnitOfWorkFactory, provider: KeyProvider) -> None:
        self._unit_of_work = unit_of_work
        self._provider = provider
        self._plain: dict[str, bytes] = {}
        self._loading = asyncio.Lock()

    # -- opening, for nodes -----------------------------------------------------------------------------------------

    async def prepare(self, stored: Iterable[Any]) -> None:
        """Have the keys of these sets of stored secrets at hand. Raises Unavailable when one cannot be had now."""
        await self.load({key_id for secrets in stored for key_id in _key_ids(secrets)})

    def decrypt(self, tenant: str, plugin: str, stored: Mapping[str, Any]) -> dict[str, str]:
        """The secrets by name; their keys were prepared. Raises Unavailable, ValidationError."""
        opened = {}
        for name, document in stored.items():
            secret = SealedSecret.model_validate(document)
            opened[name] = unseal(self._key(secret.key_id), secret.key_id, secret.sealed, tenant, plugin, name)
        return opened

    def _key(self, key_id: str) -> bytes:
        key = self._plain.get(key_id)
        if key is None:
            raise Unavailable(f"data key {key_id} could not be unwrapped here")
        return key

    async def load(self, key_ids: Collection[str]) -> None:
        """Unwrap those that are not at hand. Raises Unavailable naming one that cannot be had."""
        if not (set(key_ids) - self._plain.keys()):
            return
        async with self._loading:
            missing = sorted(set(key_ids) - self._plain.keys())
            if len(self._plain) + len(missing) > MOST_KEPT:
                self._plain.clear()
                missing = sorted(set(key_ids))
            for begin in range(0, len(missing), AT_ONCE):
                await self._load(missing[begin : begin + AT_ONCE])
        if left := [key_id for key_id in missing if key_id not in self._plain]:
            raise Unavailable(
                f"{len(left)} data keys cannot be unwrapped (the first is {left[0]}): "
                "is the key that wrapped them still with the key provider?"
            )

    async def _load(self, key_ids: list[str]) -> None:
        async with self._unit_of_work() as uow:
            keys = await uow.data_keys.find(key_ids)
        if not keys:
            return
        opened = await self._provider.unwrap([wrapped_key(key) for key in keys])
        for key, plain in zip(keys, opened, strict=True):
            if plain is not None:
                self._plain[key.key_id] = plain

    # -- sealing, for the api ---------------------------------------------------------------------------------------

    async def seal(self, tenant: str, plugin: str, name: str, secret: str) -> tuple[str, str]:
        """(id of the data key, sealed). The tenant's first key is made when it is needed. Raises Unavailable."""
        async with self._unit_of_work() as uow:
            key = await uow.data_keys.current(tenant)
        if key is None:
            key = await self.new_key(tenant)
        await self.load([key.key_id])
        return key.key_id, seal(self._key(key.key_id), key.key_id, secret, tenant, plugin, name)

    async def new_key(self, tenant: str) -> DataKey:
        """Another data key, current from now on. Raises Unavailable."""
        plain = new_data_key()
        wrapped = await self._provider.wrap(plain, _context(tenant))
        async with self._unit_of_work() as uow:
            key = DataKey(
                key_id=new_id("dk"),
                tenant=tenant,
                wrapped=wrapped.wrapped,
                wrapped_by=wrapped.wrapped_by,
                created_at=await uow.now(),
            )
            await uow.data_keys.add(key)
            await uow.commit()
        self._plain[key.key_id] = plain
        return key

    def reseal(
        self, tenant: str, plugin: str, secrets: Mapping[str, SealedSecret], key_id: str
    ) -> dict[str, SealedSecret]:
        """The same secrets under this key; every key was loaded before. Raises Unavailable."""
        done = {}
        for name, secret in secrets.items():
            plain = unseal(self._key(secret.key_id), secret.key_id, secret.sealed, tenant, plugin, name)
            sealed = seal(self._key(key_id), key_id, plain, tenant, plugin, name)
            done[name] = secret.model_copy(update={"key_id": key_id, "sealed": sealed})
        return done

    async def rewrap(self, keys: Collection[DataKey]) -> int:
        """Wrap these by the provider's newest key; how many had been wrapped by an older one. Raises Unavailable."""
        await self.load([key.key_id for key in keys])
        done = 0
        for key in keys:
            fresh = await self._provider.wrap(self._plain[key.key_id], _context(key.tenant))
            if fresh.wrapped_by == key.wrapped_by:
                continue
            changed = key.model_copy(update={"wrapped": fresh.wrapped, "wrapped_by": fresh.wrapped_by})
            async with self._unit_of_work() as uow:
                done += await uow.data_keys.rewrap(changed, key.wrapped)
                await uow.commit()
        return done


def _context(tenant: str) -> str:
    return f"data key of tenant {tenant}"


def wrapped_key(key: DataKey) -> WrappedKey:
    return WrappedKey(key.wrapped, key.wrapped_by, _context(key.tenant))


def _key_ids(secrets: Any) -> set[str]:
    """Of one row's stored secrets. What cannot be read is for `decrypt` to complain of."""
    found = set()
    for document in secrets.values() if isinstance(secrets, Mapping) else ():
        try:
            found.add(SealedSecret.model_validate(document).key_id)
        except ValidationError:
            continue
    return found
