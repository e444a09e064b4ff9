"""Service tokens for machines, tenants' tokens for the data plane, and the rotation of the keys that sign."""

import secrets
from datetime import timedelta

from api.schemas.accounts import (
    RotateIn,
    ServiceTokenIn,
    ServiceTokenMade,
    ServiceTokenOut,
    SigningKeyOut,
    TenantTokenIn,
    TenantTokenMade,
)
from api.services.actor import Actor
from api.services.idempotency import Once, fingerprint
from api.services.identity import SERVICE_PREFIX, ServiceTokens, digest_of
from api.services.plugins import entry
from api.services.trust import TrustStore
from hotswap.config_access import AuthSettings
from hotswap.domain.accounts import ServiceToken, TenantToken
from hotswap.domain.errors import FieldFault, InvalidInput
from hotswap.domain.ids import new_id
from hotswap.domain.registry import Page
from hotswap.identity.tokens import DATA_PLANE_AUDIENCE
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory

SHOWN_CHARACTERS = 8
"""Of the 43 behind the prefix: enough to find a token again, and 208 bits stay secret."""


class TokenService:
    def __init__(
        self, unit_of_work: UnitOfWorkFactory, trust: TrustStore, known: ServiceTokens, settings: AuthSettings
    ) -> None:
        self._unit_of_work = unit_of_work
        self._trust = trust
        self._known = known
        self._settings = settings

    # -- machines ------------------------------------------------------------------------------------------------

    async def make(self, wanted: ServiceTokenIn, actor: Actor, once: Once) -> ServiceTokenMade:
        """Raises Conflict while a token of the same name is not revoked."""
        request_hash = fingerprint(wanted)
        token = SERVICE_PREFIX + secrets.token_urlsafe(32)
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, ServiceTokenMade):
                return known
            now = await uow.now()
            made = ServiceToken(
                token_id=new_id("svc"),
                name=wanted.name,
                prefix=token[: len(SERVICE_PREFIX) + SHOWN_CHARACTERS],
                digest=digest_of(token),
                roles=wanted.roles,
                tenants=wanted.tenants,
                environments=wanted.environments,
                created_by=actor.user,
                created_at=now,
                expires_at=now + wanted.lifetime,
            )
            await uow.service_tokens.add(made)
            out = ServiceTokenOut.of(made)
            details = out.model_dump(mode="json", include={"name", "roles", "tenants", "environments", "expires_at"})
            await uow.audit.append(entry("service-token.created", "service-token", made.token_id, actor, now, details))
            await once.keep(uow, request_hash, 201, ServiceTokenMade(token=None, service_token=out))
            await uow.commit()
        return ServiceTokenMade(token=token, service_token=out)

    async def list_all(self, page: Page) -> tuple[list[ServiceTokenOut], int]:
        async with self._unit_of_work() as uow:
            found, total = await uow.service_tokens.list(page)
        return [ServiceTokenOut.of(token) for token in found], total

    async def revoke(self, token_id: str, actor: Actor) -> None:
        """Raises NotFound. A repeat changes nothing."""
        async with self._unit_of_work() as uow:
            now = await uow.now()
            if (await uow.service_tokens.get(token_id)).revoked_at is None:
                token = await uow.service_tokens.revoke(token_id, actor.user, now)
                details = {"name": token.name}
                await uow.audit.append(entry("service-token.revoked", "service-token", token_id, actor, now, details))
                await uow.commit()
        self._known.forget()

    # -- tenants -------------------------------------------------------------------------------------------------

    async def make_for_tenant(self, tenant: str, wanted: TenantTokenIn, actor: Actor, once: Once) -> TenantTokenMade:
        """Raises Forbidden, InvalidInput (lifetime), Conflict. Kept is what the token says; a repeat signs it again."""
        actor.require_tenant(tenant)
        for environment in wanted.environments:
            actor.require_reach(environment)
        longest = self._settings.tenant_token_lifetime
        lifetime = wanted.lifetime or longest
        if lifetime > longest:
            fault = FieldFault("lifetime", f"is over {_days(longest)}, the longest that is allowed here")
            raise InvalidInput(f"lifetime: {fault.message}", [fault])
        environments = wanted.environments or tuple(sorted(actor.environments))
        request_hash = fingerprint({"tenant": tenant, **wanted.model_dump(mode="json")})
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, TenantToken):
                return TenantTokenMade(token=await self._signed(uow, known), tenant_token=known)
            now = await uow.now()
            made = TenantToken(
                token_id=new_id("tnt"),
                tenant=tenant,
                environments=environments,
                plugins=wanted.plugins,
                description=wanted.description,
                created_by=actor.user,
                created_at=now,
                expires_at=(now + lifetime).replace(microsecond=0),
            )
            await uow.tenant_tokens.add(made)
            token = await self._signed(uow, made)
            details = made.model_dump(mode="json", include={"environments", "plugins", "expires_at", "token_id"})
            await uow.audit.append(entry("tenant-token.created", "tenant", tenant, actor, now, details))
            await once.keep(uow, request_hash, 201, made)
            await uow.commit()
        return TenantTokenMade(token=token, tenant_token=made)

    async def list_of_tenant(self, tenant: str, actor: Actor, page: Page) -> tuple[list[TenantToken], int]:
        """Raises Forbidden."""
        actor.require_tenant(tenant)
        async with self._unit_of_work() as uow:
            found, total = await uow.tenant_tokens.list(tenant, page)
        return list(found), total

    async def revoke_of_tenant(self, tenant: str, token_id: str, actor: Actor) -> None:
        """Raises Forbidden, NotFound. Nodes know within their reconcile beat. A repeat changes nothing."""
        actor.require_tenant(tenant)
        async with self._unit_of_work() as uow:
            now = await uow.now()
            if (await uow.tenant_tokens.get(tenant, token_id)).revoked_at is None:
                await uow.tenant_tokens.revoke(tenant, token_id, actor.user, now)
                details = {"tokenId": token_id}
                await uow.audit.append(entry("tenant-token.revoked", "tenant", tenant, actor, now, details))
                await uow.commit()

    async def _signed(self, uow: UnitOfWork, token: TenantToken) -> str:
        claims: dict[str, object] = {"sub": token.tenant, "jti": token.token_id}
        if token.environments:
            claims["env"] = [environment.value for environment in token.environments]
        if token.plugins:
            claims["plugins"] = list(token.plugins)
        return await self._trust.sign_tenant(uow, DATA_PLANE_AUDIENCE, claims, token.created_at, token.expires_at)

    # -- keys ----------------------------------------------------------------------------------------------------

    async def keys(self) -> list[SigningKeyOut]:
        async with self._unit_of_work() as uow:
            return [SigningKeyOut.of(key) for key in await uow.signing_keys.list()]

    async def rotate(self, body: RotateIn, actor: Actor) -> list[SigningKeyOut]:
        """The new keys. Raises Unavailable without a key-encryption key."""
        async with self._unit_of_work() as uow:
            now = await uow.now()
            made = await self._trust.rotate(uow, now, revoke=body.revoke)
            details = {"revoked": body.revoke, "reason": body.reason}
            for key in made:
                await uow.audit.append(entry("signing-key.rotated", "signing-key", key.kid, actor, now, details))
            await uow.commit()
        self._trust.forget()
        return [SigningKeyOut.of(key) for key in made]


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span >= timedelta(days=2) else f"{span.total_seconds() / 3600:g} h"
