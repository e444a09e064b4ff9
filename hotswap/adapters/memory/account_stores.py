"""Users, sessions, tokens and signing keys in memory: the twins of postgres.accounts and postgres.credentials."""

from collections.abc import Sequence
from datetime import datetime

from hotswap.adapters import account_rules as rules
from hotswap.adapters.memory.record_stores import _slice, _Store, _stored
from hotswap.adapters.record_rules import check_storable, storable
from hotswap.domain.accounts import KeyPurpose, LoginSession, PublicKey, ServiceToken, SigningKey, TenantToken, User
from hotswap.domain.deployment import Role
from hotswap.domain.errors import Conflict
from hotswap.domain.registry import Page


class MemoryUserStore(_Store):
    async def add(self, user: User, password_hash: str) -> None:
        storable(user, rules.USER_LIMITS)
        state = await self._transaction.writing()
        if user.name in state.users:
            raise rules.user_taken(user.name)
        state.users[user.name] = _stored(user)
        state.passwords[user.name] = password_hash

    async def add_first_admin(self, user: User, password_hash: str) -> bool:
        if await self.enabled_admins():
            return False
        await self.add(user, password_hash)
        return True

    async def get(self, name: str, *, hold: bool = False) -> User:
        check_storable({"user": name})
        state = await (self._transaction.writing() if hold else self._transaction.reading())
        found = state.users.get(name)
        if found is None:
            raise rules.user_missing(name)
        return found

    async def password_hash(self, name: str) -> str | None:
        check_storable({"user": name})
        return (await self._transaction.reading()).passwords.get(name)

    async def list(self, page: Page) -> tuple[Sequence[User], int]:
        state = await self._transaction.reading()
        return _slice([user for _, user in sorted(state.users.items())], page)

    async def save(self, user: User) -> None:
        storable(user, rules.USER_LIMITS)
        state = await self._transaction.writing()
        known = await self.get(user.name)
        state.users[user.name] = _stored(user.model_copy(update={"created_at": known.created_at}))

    async def set_password(self, name: str, password_hash: str) -> None:
        state = await self._transaction.writing()
        user = await self.get(name)
        state.passwords[name] = password_hash
        state.users[name] = user.model_copy(update={"updated_at": self._transaction.instant()})

    async def enabled_admins(self) -> Sequence[str]:
        state = await self._transaction.writing()
        return sorted(name for name, user in state.users.items() if user.enabled and Role.ADMIN in user.roles)


class MemorySessionStore(_Store):
    async def add(self, session: LoginSession) -> None:
        storable(session, rules.SESSION_LIMITS)
        state = await self._transaction.writing()
        if session.user not in state.users:
            raise rules.user_missing(session.user)
        oldest = self._transaction.instant() - rules.SESSION_KEPT
        for session_id in [one.session_id for one in state.sessions.values() if one.expires_at < oldest]:
            del state.sessions[session_id]
        state.sessions[session.session_id] = _stored(session)

    async def lock(self, session_id: str) -> LoginSession | None:
        check_storable({"sessionId": session_id})
        return (await self._transaction.writing()).sessions.get(session_id)

    async def save(self, session: LoginSession) -> None:
        state = await self._transaction.writing()
        if session.session_id in state.sessions:
            state.sessions[session.session_id] = _stored(session)

    async def end_all_of(self, user: str, at: datetime) -> None:
        check_storable({"user": user})
        state = await self._transaction.writing()
        for session in list(state.sessions.values()):
            if session.user == user and session.ended_at is None:
                state.sessions[session.session_id] = session.model_copy(update={"ended_at": at})

    async def ended_since(self, since: datetime) -> Sequence[str]:
        state = await self._transaction.reading()
        return [one.session_id for one in state.sessions.values() if one.ended_at is not None and one.ended_at > since]


class MemoryServiceTokenStore(_Store):
    async def add(self, token: ServiceToken) -> None:
        storable(token, rules.SERVICE_LIMITS)
        state = await self._transaction.writing()
        for other in state.service_tokens.values():
            if other.digest == token.digest or (other.name == token.name and other.revoked_at is None):
                raise rules.service_token_taken(token.name)
        state.service_tokens[token.token_id] = _stored(token)

    async def find(self, digest: str) -> ServiceToken | None:
        check_storable({"digest": digest})
        state = await self._transaction.reading()
        return next((token for token in state.service_tokens.values() if token.digest == digest), None)

    async def get(self, token_id: str) -> ServiceToken:
        check_storable({"tokenId": token_id})
        found = (await self._transaction.reading()).service_tokens.get(token_id)
        if found is None:
            raise rules.service_token_missing(token_id)
        return found

    async def list(self, page: Page) -> tuple[Sequence[ServiceToken], int]:
        state = await self._transaction.reading()
        newest = sorted(state.service_tokens.values(), key=lambda one: (one.created_at, one.token_id), reverse=True)
        return _slice(newest, page)

    async def revoke(self, token_id: str, by: str, at: datetime) -> ServiceToken:
        check_storable({"tokenId": token_id, "by": by})
        state = await self._transaction.writing()
        token = await self.get(token_id)
        if token.revoked_at is None:
            state.service_tokens[token_id] = token.model_copy(update={"revoked_at": at, "revoked_by": by})
        return state.service_tokens[token_id]

    async def used(self, token_id: str, at: datetime) -> None:
        check_storable({"tokenId": token_id})
        state = await self._transaction.writing()
        token = state.service_tokens.get(token_id)
        if token is not None and (token.last_used_at is None or token.last_used_at < at):
            state.service_tokens[token_id] = token.model_copy(update={"last_used_at": at})


class MemoryTenantTokenStore(_Store):
    async def add(self, token: TenantToken) -> None:
        storable(token, rules.TENANT_LIMITS)
        state = await self._transaction.writing()
        if token.token_id in state.tenant_tokens:
            raise Conflict(f"it is there already: {token.token_id}")
        state.tenant_tokens[token.token_id] = _stored(token)

    async def get(self, tenant: str, token_id: str) -> TenantToken:
        check_storable({"tenant": tenant, "tokenId": token_id})
        found = (await self._transaction.reading()).tenant_tokens.get(token_id)
        if found is None or found.tenant != tenant:
            raise rules.tenant_token_missing(token_id)
        return found

    async def list(self, tenant: str, page: Page) -> tuple[Sequence[TenantToken], int]:
        check_storable({"tenant": tenant})
        state = await self._transaction.reading()
        found = [token for token in state.tenant_tokens.values() if token.tenant == tenant]
        return _slice(sorted(found, key=lambda one: (one.created_at, one.token_id), reverse=True), page)

    async def revoke(self, tenant: str, token_id: str, by: str, at: datetime) -> TenantToken:
        state = await self._transaction.writing()
        token = await self.get(tenant, token_id)
        if token.revoked_at is None:
            state.tenant_tokens[token_id] = token.model_copy(update={"revoked_at": at, "revoked_by": by})
        return state.tenant_tokens[token_id]

    async def revoked(self) -> Sequence[str]:
        now, state = self._transaction.instant(), await self._transaction.reading()
        return sorted(
            token.token_id
            for token in state.tenant_tokens.values()
            if token.revoked_at is not None and token.expires_at > now
        )


class MemorySigningKeyStore(_Store):
    async def lock(self) -> None:
        await self._transaction.writing()

    async def list(self, purpose: KeyPurpose | None = None) -> Sequence[SigningKey]:
        now, state = self._transaction.instant(), await self._transaction.reading()
        found = [key for key in state.keys.values() if purpose in (None, key.purpose) and key.verifies(now)]
        return sorted(found, key=lambda key: (key.created_at, key.kid))

    async def public(self, purpose: KeyPurpose) -> Sequence[PublicKey]:
        return [PublicKey(kid=key.kid, public=key.public) for key in await self.list(purpose)]

    async def add(self, key: SigningKey) -> None:
        storable(key, rules.KEY_LIMITS)
        state = await self._transaction.writing()
        if key.kid in state.keys:
            raise Conflict(f"it is there already: {key.kid}")
        state.keys[key.kid] = _stored(key)

    async def retire(self, kids: Sequence[str], verify_until: datetime) -> None:
        state = await self._transaction.writing()
        for kid in kids:
            key = state.keys.get(kid)
            if key is not None and (key.verify_until is None or key.verify_until > verify_until):
                state.keys[kid] = key.model_copy(update={"verify_until": verify_until})
