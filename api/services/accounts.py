"""Users, as an Admin manages them. Whatever takes rights away ends the user's logins, everywhere, within seconds."""

from api.schemas.accounts import NewPasswordIn, UserChange, UserIn, UserMade, UserOut
from api.services.actor import Actor
from api.services.idempotency import Once, fingerprint
from api.services.plugins import entry
from api.services.trust import TrustStore
from hotswap.domain.accounts import User
from hotswap.domain.deployment import Role
from hotswap.domain.errors import Conflict
from hotswap.domain.registry import Page
from hotswap.identity.passwords import Passwords, check_password, new_password
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory


class AccountService:
    def __init__(self, unit_of_work: UnitOfWorkFactory, trust: TrustStore, passwords: Passwords) -> None:
        self._unit_of_work = unit_of_work
        self._trust = trust
        self._passwords = passwords

    async def make(self, wanted: UserIn, actor: Actor, once: Once) -> UserMade:
        """Raises Conflict (name taken), InvalidInput (password). A made password is in this answer and nowhere else."""
        told, password = self._chosen(wanted.password.get_secret_value() if wanted.password else None)
        # Not the password: what is kept for a repeat must not help whoever reads it to guess.
        request_hash = fingerprint(wanted.model_dump(mode="json", exclude={"password"}))
        hashed = await self._passwords.hash(password)
        async with self._unit_of_work() as uow:
            if known := await once.first_answer(uow, request_hash, UserMade):
                return known
            now = await uow.now()
            user = User(
                name=wanted.name,
                display_name=wanted.display_name,
                roles=_ordered(wanted.roles),
                tenants=tuple(sorted(set(wanted.tenants))),
                created_at=now,
                updated_at=now,
            )
            await uow.users.add(user, hashed)
            details = {"roles": [role.value for role in user.roles], "tenants": list(user.tenants)}
            await uow.audit.append(entry("user.created", "user", user.name, actor, now, details))
            await once.keep(uow, request_hash, 201, UserMade(user=UserOut.of(user)))
            await uow.commit()
        return UserMade(user=UserOut.of(user), password=told)

    async def get(self, name: str) -> UserOut:
        """Raises NotFound."""
        async with self._unit_of_work() as uow:
            return UserOut.of(await uow.users.get(name))

    async def list(self, page: Page) -> tuple[list[UserOut], int]:
        async with self._unit_of_work() as uow:
            found, total = await uow.users.list(page)
        return [UserOut.of(user) for user in found], total

    async def change(self, name: str, change: UserChange, actor: Actor) -> UserOut:
        """Raises NotFound, Conflict when it would leave no enabled Admin. Logins end when roles, tenants or the
        right to log in changed: the tokens in use would say what holds no more.
        """
        async with self._unit_of_work() as uow:
            admins = await uow.users.enabled_admins()
            before = await uow.users.get(name)
            now = await uow.now()
            changes: dict[str, object] = {"updated_at": now}
            if change.display_name is not None:
                changes["display_name"] = change.display_name
            if change.roles is not None:
                changes["roles"] = _ordered(change.roles)
            if change.tenants is not None:
                changes["tenants"] = tuple(sorted(set(change.tenants)))
            if change.disabled is not None and change.disabled == before.enabled:
                changes["disabled_at"] = now if change.disabled else None
            after = before.model_copy(update=changes)
            if admins == [name] and not (after.enabled and Role.ADMIN in after.roles):
                raise Conflict(f"'{name}' is the only Admin who can log in; make another one first")
            await uow.users.save(after)
            if (before.roles, before.tenants, before.enabled) != (after.roles, after.tenants, after.enabled):
                await uow.sessions.end_all_of(name, now)
            await uow.audit.append(entry("user.changed", "user", name, actor, now, _difference(before, after)))
            await uow.commit()
        self._trust.forget()
        return UserOut.of(after)

    async def set_password(self, name: str, body: NewPasswordIn, actor: Actor) -> UserMade:
        """Raises NotFound, InvalidInput. Every login of the user ends."""
        told, password = self._chosen(body.password.get_secret_value() if body.password else None)
        hashed = await self._passwords.hash(password)
        async with self._unit_of_work() as uow:
            now = await uow.now()
            await uow.users.set_password(name, hashed)
            await uow.sessions.end_all_of(name, now)
            await uow.audit.append(entry("user.password-set", "user", name, actor, now))
            user = await uow.users.get(name)
            await uow.commit()
        self._trust.forget()
        return UserMade(user=UserOut.of(user), password=told)

    def _chosen(self, given: str | None) -> tuple[str | None, str]:
        """What to tell, and the password: a chosen one is never sent back."""
        if given is None:
            made = new_password()
            return made, made
        check_password(given)
        return None, given


async def make_first_admin(
    uow: UnitOfWork, trust: TrustStore | None, passwords: Passwords, name: str, password: str
) -> bool:
    """The Admin of a fresh installation, and the first signing keys; False when there is an Admin already. Commits."""
    now = await uow.now()
    user = User(name=name, roles=(Role.ADMIN,), created_at=now, updated_at=now)
    made = not await uow.users.enabled_admins() and await uow.users.add_first_admin(
        user, await passwords.hash(password)
    )
    if made:
        actor = Actor(user="bootstrap", roles=frozenset())
        await uow.audit.append(entry("user.created", "user", name, actor, now, {"roles": [Role.ADMIN.value]}))
    if trust is not None:
        await trust.ensure_keys(uow)
    await uow.commit()
    return made


def _ordered(roles: tuple[Role, ...]) -> tuple[Role, ...]:
    return tuple(role for role in Role if role in roles)


def _difference(before: User, after: User) -> dict[str, object]:
    shown = {"display_name", "roles", "tenants", "disabled_at"}
    old, new = (user.model_dump(mode="json", include=shown) for user in (before, after))
    return {key: {"before": old[key], "after": new[key]} for key in old if old[key] != new[key]}
