"""Publishers' keys: who may vouch for artifacts. Register and revoke; a key that was revoked never comes back."""

from collections.abc import Sequence

from api.schemas.versions import PublisherKeyIn, PublisherKeyOut, RevokeIn
from api.services.actor import Actor
from api.services.plugins import entry
from hotswap.config import SignatureSettings
from hotswap.domain.base import bounded
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput
from hotswap.domain.registry import Page
from hotswap.domain.signatures import PublisherKey
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory
from hotswap.runtime.signing import key_id_of

SIGNED_LOOKED_AT = 1_000
"""Versions of one key that a revocation is weighed by."""


class PublisherService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, settings: SignatureSettings) -> None:
        self._unit_of_work = unit_of_work
        self._settings = settings

    async def register(self, body: PublisherKeyIn, actor: Actor) -> PublisherKeyOut:
        """Raises InvalidInput (no Ed25519 key), NotFound (a plugin), Conflict (there already, or revoked)."""
        key_id = key_id_of(body.public_key)
        async with self._unit_of_work() as uow:
            for plugin in body.plugins:
                await uow.plugins.get(plugin)
            key = PublisherKey(
                key_id=key_id,
                publisher=body.publisher,
                public_key=body.public_key,
                plugins=body.plugins,
                registered_by=actor.user,
                registered_at=await uow.now(),
            )
            await uow.publisher_keys.add(key)
            details = {"publisher": key.publisher, "plugins": list(key.plugins)}
            await uow.audit.append(
                entry("publisher-key.registered", "publisher-key", key_id, actor, key.registered_at, details)
            )
            await uow.commit()
        return self._out(key)

    async def revoke(self, key_id: str, body: RevokeIn, actor: Actor) -> PublisherKeyOut:
        """Raises InvalidInput without a reason, NotFound; Conflict, unless forced, while a node that restarts would
        refuse what serves where signatures are required.
        """
        if not body.reason.strip():
            raise InvalidInput("reason: is required to revoke a key", [FieldFault("reason", "is required; say why")])
        async with self._unit_of_work() as uow:
            await uow.publisher_keys.get(key_id)
            serving = await _serving(uow, key_id, self._settings.required_in)
            if serving and not body.force:
                raise Conflict(
                    f"nodes could not load these any more once they restart: {', '.join(serving[:5])}. Deploy versions "
                    "that another key signed first, sign these anew (hotswap plugin sign), or revoke with force"
                )
            now = await uow.now()
            key = await uow.publisher_keys.revoke(key_id, actor.user, bounded(body.reason), now)
            details = {"reason": bounded(body.reason), "serving": serving[:20], "forced": body.force}
            await uow.audit.append(entry("publisher-key.revoked", "publisher-key", key_id, actor, now, details))
            await uow.commit()
        return self._out(key)

    async def list(self, page: Page) -> tuple[list[PublisherKeyOut], int]:
        async with self._unit_of_work() as uow:
            found, total = await uow.publisher_keys.list(page)
        return [self._out(key) for key in found], total

    def _out(self, key: PublisherKey) -> PublisherKeyOut:
        trusted = not self._settings.trusted_keys or key.key_id in self._settings.trusted_keys
        return PublisherKeyOut(**key.model_dump(by_alias=False), trusted=trusted)


async def _serving(uow: UnitOfWork, key_id: str, required_in: Sequence[Environment]) -> list[str]:
    """Versions signed with the key that are loaded where a signature is required."""
    signed: dict[str, set[str]] = {}
    for version in await uow.versions.signed_by(key_id, SIGNED_LOOKED_AT):
        signed.setdefault(version.plugin, set()).add(version.version)
    found: list[str] = []
    for plugin, versions in signed.items():
        for environment in required_in:
            route = await uow.routes.current(environment, plugin)
            loaded = {ref.version for ref in route.state.versions()} if route else set()
            found += [f"{plugin} {version} in {environment}" for version in sorted(versions & loaded)]
    return found
