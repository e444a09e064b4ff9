"""What is kept of users, sessions, tokens and signing keys: stores of `UnitOfWork` (hotswap.ports.records)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from hotswap.domain.accounts import KeyPurpose, LoginSession, PublicKey, ServiceToken, SigningKey, TenantToken, User
from hotswap.domain.registry import Page


class UserStore(Protocol):
    async def add(self, user: User, password_hash: str) -> None:
        """Raises Conflict when the name is taken."""
        ...

    async def add_first_admin(self, user: User, password_hash: str) -> bool:
        """Insert unless an enabled Admin is there; of many callers at once one gets True. Raises Conflict (name taken)."""
        ...

    async def get(self, name: str, *, hold: bool = False) -> User:
        """With `hold` nobody changes the user until the transaction ends. Raises NotFound."""
        ...

    async def password_hash(self, name: str) -> str | None:
        """None for a user without a password, and for nobody."""
        ...

    async def list(self, page: Page) -> tuple[Sequence[User], int]:
        """A slice ordered by name, and the total."""
        ...

    async def save(self, user: User) -> None:
        """Replace everything but the password. Raises NotFound."""
        ...

    async def set_password(self, name: str, password_hash: str) -> None:
        """Raises NotFound."""
        ...

    async def enabled_admins(self) -> Sequence[str]:
        """Names, locked until the transaction ends: two admins who disable each other take turns."""
        ...


class SessionStore(Protocol):
    async def add(self, session: LoginSession) -> None:
        """Also sweeps some that expired. Raises NotFound (user)."""
        ...

    async def lock(self, session_id: str) -> LoginSession | None:
        """The session, locked until the transaction ends: two refreshes of one token take turns."""
        ...

    async def save(self, session: LoginSession) -> None: ...

    async def end_all_of(self, user: str, at: datetime) -> None:
        """End every living session of the user."""
        ...

    async def ended_since(self, since: datetime) -> Sequence[str]:
        """Ids of sessions ended after `since`: access tokens that name them may not have expired yet."""
        ...


class ServiceTokenStore(Protocol):
    async def add(self, token: ServiceToken) -> None:
        """Raises Conflict while a token of the same name lives."""
        ...

    async def find(self, digest: str) -> ServiceToken | None: ...

    async def get(self, token_id: str) -> ServiceToken:
        """Raises NotFound."""
        ...

    async def list(self, page: Page) -> tuple[Sequence[ServiceToken], int]:
        """Newest first, and the total."""
        ...

    async def revoke(self, token_id: str, by: str, at: datetime) -> ServiceToken:
        """Revoke once; a repeat changes nothing. Raises NotFound."""
        ...

    async def used(self, token_id: str, at: datetime) -> None:
        """Note the last use. An older instant changes nothing."""
        ...


class TenantTokenStore(Protocol):
    async def add(self, token: TenantToken) -> None: ...

    async def get(self, tenant: str, token_id: str) -> TenantToken:
        """Raises NotFound, also for another tenant's."""
        ...

    async def list(self, tenant: str, page: Page) -> tuple[Sequence[TenantToken], int]:
        """Newest first, and the total."""
        ...

    async def revoke(self, tenant: str, token_id: str, by: str, at: datetime) -> TenantToken:
        """Revoke once; a repeat changes nothing. Raises NotFound, also for another tenant's."""
        ...

    async def revoked(self) -> Sequence[str]:
        """Ids of revoked tokens that have not expired: the list every node reads."""
        ...


class SigningKeyStore(Protocol):
    async def lock(self) -> None:
        """Take turns with whoever else makes keys, until the transaction ends."""
        ...

    async def list(self, purpose: KeyPurpose | None = None) -> Sequence[SigningKey]:
        """Keys that still verify, oldest first. By the server's clock."""
        ...

    async def public(self, purpose: KeyPurpose) -> Sequence[PublicKey]:
        """What a verifier needs of `list`: no private half leaves PostgreSQL for a node."""
        ...

    async def add(self, key: SigningKey) -> None: ...

    async def retire(self, kids: Sequence[str], verify_until: datetime) -> None:
        """Let these verify until then and no longer. An earlier end stays."""
        ...
