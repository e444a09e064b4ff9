"""Logins: a password for a session, a refresh token for the next access token, and the end of it all.

Access tokens live minutes and are checked without the database; refresh tokens live as long as the session, are used once,
and one that comes a second time ends the session, because somebody has copied it. Neighbours: api.services.trust signs and
knows which sessions have ended, api.services.accounts manages the users.
"""

import hmac
import logging
import re
import secrets
from datetime import datetime, timedelta

from api.schemas.accounts import LoginIn, LoginOut, PasswordIn, RefreshIn, UserOut
from api.services.actor import Actor, Credential
from api.services.identity import digest_of
from api.services.limits import RouteLimits
from api.services.plugins import entry
from api.services.trust import TrustStore
from hotswap.config_access import AuthSettings
from hotswap.domain.accounts import LoginSession, User
from hotswap.domain.errors import Conflict, FieldFault, InvalidInput, NotFound, Unauthorized
from hotswap.domain.ids import new_id
from hotswap.identity.passwords import Passwords, check_password
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory

log = logging.getLogger(__name__)

LOST_ANSWER = timedelta(seconds=10)
"""How long a refresh token that was just used is taken once more: its answer may have been lost on the way."""

_SESSION_ID = re.compile(r"^ses_[0-9a-f]{32}$")

_WRONG = "user or password is wrong"
_OVER = "this login has ended or the refresh token is not known; log in again"


class AuthenticationService:
    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        trust: TrustStore,
        passwords: Passwords,
        limits: RouteLimits,
        settings: AuthSettings,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._trust = trust
        self._passwords = passwords
        self._limits = limits
        self._settings = settings

    async def login(self, body: LoginIn, address: str, trace_id: str) -> LoginOut:
        """Raises Unauthorized, RateLimited after too many wrong passwords. Costs the same for users that do not exist."""
        name, password = body.user, body.password.get_secret_value()
        await self._limits.check_guesses(name, address)
        async with self._unit_of_work() as uow:
            user = await _found(uow, name)
            known = await uow.users.password_hash(name) if user is not None and user.enabled else None
        if not await self._passwords.verify(known, password) or user is None or known is None:
            await self._limits.count_guess(name, address)
            log.info("a login failed", extra={"user": name[:100], "address": address})
            raise Unauthorized(_WRONG)
        again = await self._passwords.hash(password) if self._passwords.outdated(known) else None
        async with self._unit_of_work() as uow:
            # Once more: hashing took a while, in which the password or the user may have been taken away.
            user = await _found(uow, name, hold=True)
            if user is None or not user.enabled or await uow.users.password_hash(name) != known:
                raise Unauthorized(_WRONG)
            now = await uow.now()
            if again is not None:
                await uow.users.set_password(name, again)
            session_id, refresh = new_id("ses"), secrets.token_urlsafe(32)
            session = LoginSession(
                session_id=session_id,
                user=user.name,
                refresh_digest=digest_of(refresh),
                created_at=now,
                refreshed_at=now,
                expires_at=now + self._settings.session_lifetime,
            )
            await uow.sessions.add(session)
            answer = await self._answer(uow, user, session, refresh, now)
            actor = Actor(user=user.name, roles=frozenset(user.roles), trace_id=trace_id)
            await uow.audit.append(entry("user.logged-in", "user", user.name, actor, now, {"address": address}))
            await uow.commit()
        return answer

    async def refresh(self, body: RefreshIn) -> LoginOut:
        """The next access token and refresh token, with the user's roles as they are now. Raises Unauthorized."""
        session_id, _, secret = body.refresh_token.get_secret_value().partition(".")
        presented = digest_of(secret)
        async with self._unit_of_work() as uow:
            session = await uow.sessions.lock(session_id) if _SESSION_ID.match(session_id) else None
            now = await uow.now()
            if session is None or not session.lives(now):
                raise Unauthorized(_OVER)
            current = hmac.compare_digest(presented, session.refresh_digest)
            if not current and not self._was_just_used(session, presented, now):
                if session.previous_digest and hmac.compare_digest(presented, session.previous_digest):
                    await self._copied(uow, session, now)
                raise Unauthorized(_OVER)
            user = await _found(uow, session.user)
            if user is None or not user.enabled:
                raise Unauthorized(_OVER)
            refresh = secrets.token_urlsafe(32)
            changed = {"refresh_digest": digest_of(refresh), "refreshed_at": now}
            if current:
                changed["previous_digest"] = session.refresh_digest
            else:
                changed["refreshed_at"] = session.refreshed_at  # so that the time for a lost answer does not start anew
            await uow.sessions.save(session.model_copy(update=changed))
            answer = await self._answer(uow, user, session, refresh, now)
            await uow.commit()
        return answer

    async def logout(self, actor: Actor) -> None:
        """End the session of the presented token. Raises Conflict for credentials that have none."""
        if actor.credential is not Credential.SESSION:
            raise Conflict(
                f"a {actor.credential.value} token has no login to end; revoke or unset it where it was made"
            )
        async with self._unit_of_work() as uow:
            session = await uow.sessions.lock(actor.session_id)
            now = await uow.now()
            if session is not None and session.ended_at is None:
                await uow.sessions.save(session.model_copy(update={"ended_at": now}))
                await uow.audit.append(entry("user.logged-out", "user", actor.user, actor, now))
                await uow.commit()
        self._trust.forget()

    async def change_password(self, body: PasswordIn, actor: Actor, address: str) -> None:
        """Every login of the user ends, this one too. Raises InvalidInput, Conflict (no user of ours), RateLimited."""
        if actor.credential is not Credential.SESSION:
            raise Conflict("only who has logged in with a password can change it")
        wanted = body.new_password.get_secret_value()
        check_password(wanted, "newPassword")
        await self._limits.check_guesses(actor.user, address)
        async with self._unit_of_work() as uow:
            known = await uow.users.password_hash(actor.user)
        if not await self._passwords.verify(known, body.current_password.get_secret_value()):
            await self._limits.count_guess(actor.user, address)
            fault = FieldFault("currentPassword", "is wrong")
            raise InvalidInput("currentPassword: is wrong", [fault])
        hashed = await self._passwords.hash(wanted)
        async with self._unit_of_work() as uow:
            now = await uow.now()
            await uow.users.set_password(actor.user, hashed)
            await uow.sessions.end_all_of(actor.user, now)
            await uow.audit.append(entry("user.password-changed", "user", actor.user, actor, now))
            await uow.commit()
        self._trust.forget()

    def _was_just_used(self, session: LoginSession, presented: str, now: datetime) -> bool:
        before = session.previous_digest
        return (
            before is not None and hmac.compare_digest(presented, before) and now - session.refreshed_at <= LOST_ANSWER
        )

    async def _copied(self, uow: UnitOfWork, session: LoginSession, now: datetime) -> None:
        log.warning("a used refresh token of %s came again; its login was ended", session.user)
        await uow.sessions.save(session.model_copy(update={"ended_at": now}))
        nobody = Actor(user=session.user, roles=frozenset())
        await uow.audit.append(entry("user.refresh-token-reused", "user", session.user, nobody, now))
        await uow.commit()
        self._trust.forget()

    async def _answer(
        self, uow: UnitOfWork, user: User, session: LoginSession, refresh: str, now: datetime
    ) -> LoginOut:
        expires = min(now + self._settings.token_lifetime, session.expires_at)
        claims = {
            "sub": user.name,
            "roles": [role.value for role in user.roles],
            "tenants": list(user.tenants),
            "sid": session.session_id,
        }
        return LoginOut(
            token=await self._trust.sign_access(uow, claims, now, expires),
            expires_at=expires.replace(microsecond=0),
            user=UserOut.of(user),
            refresh_token=f"{session.session_id}.{refresh}",
            session_expires_at=session.expires_at,
        )


async def _found(uow: UnitOfWork, name: str, *, hold: bool = False) -> User | None:
    try:
        return await uow.users.get(name, hold=hold)
    except (NotFound, InvalidInput):  # nobody, or no name that anybody could have
        return None
