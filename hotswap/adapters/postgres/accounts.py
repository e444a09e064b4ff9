"""Users and their sessions on PostgreSQL: hotswap.ports.accounts. Tokens and keys: postgres.credentials."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, exists, func, select, text, update
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert

from hotswap.adapters import account_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import login_sessions, users
from hotswap.adapters.record_rules import check_storable, storable
from hotswap.domain.accounts import LoginSession, User
from hotswap.domain.deployment import Role
from hotswap.domain.registry import Page

_IS_ENABLED_ADMIN = users.c.disabled_at.is_(None) & users.c.roles.contains([Role.ADMIN.value])


class PostgresUserStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, user: User, password_hash: str) -> None:
        values = _user_values(user) | {
            "user_id": user.name,
            "created_at": user.created_at,
            "password_hash": password_hash.encode(),
        }
        await self._session.run_guarded(insert(users).values(values), unique=rules.user_taken(user.name))

    async def add_first_admin(self, user: User, password_hash: str) -> bool:
        # Against itself only: readers and ordinary writers go on.
        await self._session.run(text("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"))
        if (await self._session.run(select(exists().where(_IS_ENABLED_ADMIN)))).scalar_one():
            return False
        await self.add(user, password_hash)
        return True

    async def get(self, name: str, *, hold: bool = False) -> User:
        check_storable({"user": name})
        query = select(users).where(users.c.user_id == name)
        row = await self._session.first(query.with_for_update(read=True) if hold else query)
        if row is None:
            raise rules.user_missing(name)
        return _user(row)

    async def password_hash(self, name: str) -> str | None:
        check_storable({"user": name})
        row = await self._session.first(select(users.c.password_hash).where(users.c.user_id == name))
        return row.password_hash.decode() if row is not None and row.password_hash is not None else None

    async def list(self, page: Page) -> tuple[Sequence[User], int]:
        rows, total = await self._session.page(select(users).order_by(users.c.user_id), page)
        return [_user(row) for row in rows], total

    async def save(self, user: User) -> None:
        done = await self._session.run(update(users).where(users.c.user_id == user.name).values(_user_values(user)))
        if not done.rowcount:
            raise rules.user_missing(user.name)

    async def set_password(self, name: str, password_hash: str) -> None:
        check_storable({"user": name})
        changed = {"password_hash": password_hash.encode(), "updated_at": func.clock_timestamp()}
        if not (await self._session.run(update(users).where(users.c.user_id == name).values(changed))).rowcount:
            raise rules.user_missing(name)

    async def enabled_admins(self) -> Sequence[str]:
        query = select(users.c.user_id).where(_IS_ENABLED_ADMIN).order_by(users.c.user_id).with_for_update()
        return [row.user_id for row in await self._session.all(query)]


class PostgresSessionStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, session: LoginSession) -> None:
        storable(session, rules.SESSION_LIMITS)
        await self._session.run_guarded(
            insert(login_sessions).values(_session_values(session)), foreign=rules.user_missing(session.user)
        )
        expired = (
            select(login_sessions.c.session_id)
            .where(login_sessions.c.expires_at < func.clock_timestamp() - rules.SESSION_KEPT)
            .limit(rules.SESSION_SWEEP)
            .with_for_update(skip_locked=True)
        )
        await self._session.run(delete_from(login_sessions).where(login_sessions.c.session_id.in_(expired)))

    async def lock(self, session_id: str) -> LoginSession | None:
        check_storable({"sessionId": session_id})
        row = await self._session.first(
            select(login_sessions).where(login_sessions.c.session_id == session_id).with_for_update()
        )
        if row is None:
            return None
        values = row._asdict()
        values["user"] = values.pop("user_id")
        return LoginSession.model_validate(values)

    async def save(self, session: LoginSession) -> None:
        await self._session.run(
            update(login_sessions)
            .where(login_sessions.c.session_id == session.session_id)
            .values(_session_values(session))
        )

    async def end_all_of(self, user: str, at: datetime) -> None:
        check_storable({"user": user})
        await self._session.run(
            update(login_sessions)
            .where(login_sessions.c.user_id == user, login_sessions.c.ended_at.is_(None))
            .values(ended_at=at)
        )

    async def ended_since(self, since: datetime) -> Sequence[str]:
        query = select(login_sessions.c.session_id).where(login_sessions.c.ended_at > since)
        return [row.session_id for row in await self._session.all(query)]


def _user_values(user: User) -> dict[str, Any]:
    data = storable(user, rules.USER_LIMITS)
    return {
        "display_name": user.display_name,
        "roles": data["roles"],
        "tenants": data["tenants"],
        "disabled_at": user.disabled_at,
        "updated_at": user.updated_at,
    }


def _user(row: Row[Any]) -> User:
    return User(
        name=row.user_id,
        display_name=row.display_name,
        roles=row.roles,
        tenants=row.tenants,
        disabled_at=row.disabled_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _session_values(session: LoginSession) -> dict[str, Any]:
    values = dict(session)
    values["user_id"] = values.pop("user")
    return values
