"""Service tokens, tenants' tokens and signing keys on PostgreSQL: hotswap.ports.accounts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import account_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import service_tokens, signing_keys, tenant_tokens
from hotswap.adapters.record_rules import check_storable, storable
from hotswap.domain.accounts import KeyPurpose, PublicKey, ServiceToken, SigningKey, TenantToken
from hotswap.domain.registry import Page

_KEY_LOCK = 0x686F742D6B657973
"""Advisory lock ("hot-keys" in ASCII) of whoever makes signing keys."""


class PostgresServiceTokenStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, token: ServiceToken) -> None:
        data = storable(token, rules.SERVICE_LIMITS)
        lists = {name: data[name] for name in ("roles", "tenants", "environments")}
        await self._session.run_guarded(
            insert(service_tokens).values({**dict(token), **lists}), unique=rules.service_token_taken(token.name)
        )

    async def find(self, digest: str) -> ServiceToken | None:
        check_storable({"digest": digest})
        row = await self._session.first(select(service_tokens).where(service_tokens.c.digest == digest))
        return None if row is None else _service(row)

    async def get(self, token_id: str) -> ServiceToken:
        check_storable({"tokenId": token_id})
        row = await self._session.first(select(service_tokens).where(service_tokens.c.token_id == token_id))
        if row is None:
            raise rules.service_token_missing(token_id)
        return _service(row)

    async def list(self, page: Page) -> tuple[Sequence[ServiceToken], int]:
        columns = service_tokens.c
        query = select(service_tokens).order_by(columns.created_at.desc(), columns.token_id.desc())
        rows, total = await self._session.page(query, page)
        return [_service(row) for row in rows], total

    async def revoke(self, token_id: str, by: str, at: datetime) -> ServiceToken:
        check_storable({"tokenId": token_id, "by": by})
        await self._session.run(
            update(service_tokens)
            .where(service_tokens.c.token_id == token_id, service_tokens.c.revoked_at.is_(None))
            .values(revoked_at=at, revoked_by=by)
        )
        return await self.get(token_id)

    async def used(self, token_id: str, at: datetime) -> None:
        check_storable({"tokenId": token_id})
        columns = service_tokens.c
        older = or_(columns.last_used_at.is_(None), columns.last_used_at < at)
        await self._session.run(
            update(service_tokens).where(columns.token_id == token_id, older).values(last_used_at=at)
        )


class PostgresTenantTokenStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, token: TenantToken) -> None:
        data = storable(token, rules.TENANT_LIMITS)
        values = {**dict(token), "environments": data["environments"], "plugins": data["plugins"]}
        values["tenant_id"] = values.pop("tenant")
        await self._session.run_guarded(insert(tenant_tokens).values(values))

    async def get(self, tenant: str, token_id: str) -> TenantToken:
        check_storable({"tenant": tenant, "tokenId": token_id})
        row = await self._session.first(_tenants_tokens(tenant).where(tenant_tokens.c.token_id == token_id))
        if row is None:
            raise rules.tenant_token_missing(token_id)
        return _tenant(row)

    async def list(self, tenant: str, page: Page) -> tuple[Sequence[TenantToken], int]:
        check_storable({"tenant": tenant})
        query = _tenants_tokens(tenant).order_by(tenant_tokens.c.created_at.desc(), tenant_tokens.c.token_id.desc())
        rows, total = await self._session.page(query, page)
        return [_tenant(row) for row in rows], total

    async def revoke(self, tenant: str, token_id: str, by: str, at: datetime) -> TenantToken:
        check_storable({"tenant": tenant, "tokenId": token_id, "by": by})
        columns = tenant_tokens.c
        await self._session.run(
            update(tenant_tokens)
            .where(columns.tenant_id == tenant, columns.token_id == token_id, columns.revoked_at.is_(None))
            .values(revoked_at=at, revoked_by=by)
        )
        return await self.get(tenant, token_id)

    async def revoked(self) -> Sequence[str]:
        columns = tenant_tokens.c
        query = select(columns.token_id).where(
            columns.revoked_at.is_not(None), columns.expires_at > func.clock_timestamp()
        )
        return [row.token_id for row in await self._session.all(query.order_by(columns.token_id))]


class PostgresSigningKeyStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def lock(self) -> None:
        await self._session.run(text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=_KEY_LOCK))

    async def list(self, purpose: KeyPurpose | None = None) -> Sequence[SigningKey]:
        rows = await self._session.all(_verifying(select(signing_keys), purpose))
        return [SigningKey.model_validate(row._asdict()) for row in rows]

    async def public(self, purpose: KeyPurpose) -> Sequence[PublicKey]:
        rows = await self._session.all(_verifying(select(signing_keys.c.kid, signing_keys.c.public), purpose))
        return [PublicKey(kid=row.kid, public=row.public) for row in rows]

    async def add(self, key: SigningKey) -> None:
        storable(key, rules.KEY_LIMITS)
        await self._session.run_guarded(insert(signing_keys).values(dict(key)))

    async def retire(self, kids: Sequence[str], verify_until: datetime) -> None:
        columns = signing_keys.c
        later = or_(columns.verify_until.is_(None), columns.verify_until > verify_until)
        await self._session.run(
            update(signing_keys).where(columns.kid.in_(kids), later).values(verify_until=verify_until)
        )


def _verifying(query: Select[Any], purpose: KeyPurpose | None) -> Select[Any]:
    columns = signing_keys.c
    query = query.where(or_(columns.verify_until.is_(None), columns.verify_until > func.clock_timestamp()))
    if purpose is not None:
        query = query.where(columns.purpose == purpose)
    return query.order_by(columns.created_at, columns.kid)


def _tenants_tokens(tenant: str) -> Select[Any]:
    return select(tenant_tokens).where(tenant_tokens.c.tenant_id == tenant)


def _service(row: Row[Any]) -> ServiceToken:
    return ServiceToken.model_validate(row._asdict())


def _tenant(row: Row[Any]) -> TenantToken:
    values = row._asdict()
    values["tenant"] = values.pop("tenant_id")
    return TenantToken.model_validate(values)
