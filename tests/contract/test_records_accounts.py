"""One contract for users, sessions, tokens and signing keys on record: PostgreSQL and its in-memory twin."""

import asyncio
import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hotswap.domain.accounts import KeyPurpose, LoginSession, PublicKey, ServiceToken, SigningKey, TenantToken, User
from hotswap.domain.deployment import Environment, Role
from hotswap.domain.errors import Conflict, NotFound
from hotswap.domain.registry import Page
from hotswap.ports.records import UnitOfWorkFactory
from tests.contract.factories import EPOCH

HOUR = timedelta(hours=1)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_user(name: str = "ada", **changes: Any) -> User:
    given = {"display_name": "Ada 🚀", "roles": (Role.ADMIN,), "created_at": EPOCH, "updated_at": EPOCH}
    return User(name=name, **{**given, **changes})


def make_session(session_id: str = "ses_1", user: str = "ada", **changes: Any) -> LoginSession:
    now = datetime.now(UTC)
    given = {"refresh_digest": digest(session_id), "created_at": now, "refreshed_at": now, "expires_at": now + HOUR}
    return LoginSession(session_id=session_id, user=user, **{**given, **changes})


def make_service_token(name: str = "ci", **changes: Any) -> ServiceToken:
    token_id = f"hst_{uuid.uuid4().hex}"
    given = {
        "prefix": "hst_abcd",
        "digest": digest(token_id),
        "roles": (Role.DEVELOPER,),
        "environments": (Environment.QA,),
        "created_by": "ada",
        "created_at": EPOCH,
        "expires_at": datetime.now(UTC) + HOUR,
    }
    return ServiceToken(token_id=token_id, name=name, **{**given, **changes})


def make_tenant_token(tenant: str = "acme", **changes: Any) -> TenantToken:
    given = {
        "environments": (Environment.STAGING,),
        "plugins": ("greeter",),
        "created_by": "ada",
        "created_at": EPOCH,
        "expires_at": datetime.now(UTC) + HOUR,
    }
    return TenantToken(token_id=f"tnt_{uuid.uuid4().hex}", tenant=tenant, **{**given, **changes})


def make_key(purpose: KeyPurpose = KeyPurpose.API, **changes: Any) -> SigningKey:
    given = {"public": "p" * 43, "sealed_private": "s", "sealed_by": "k", "created_at": EPOCH, "active_from": EPOCH}
    return SigningKey(kid=uuid.uuid4().hex, purpose=purpose, **{**given, **changes})


async def test_a_user_comes_back_as_made_without_a_password_in_it(unit_of_work: UnitOfWorkFactory) -> None:
    owner = make_user("eve", roles=(Role.TENANT_OWNER, Role.VIEWER), tenants=("acme", "Blue.Corp"))
    async with unit_of_work() as uow:
        await uow.users.add(owner, "hash-of-eve")
        await uow.users.add(make_user(), "hash-of-ada")
        await uow.commit()
    async with unit_of_work() as uow:
        assert await uow.users.get("eve") == owner
        assert await uow.users.password_hash("eve") == "hash-of-eve"
        assert await uow.users.password_hash("nobody") is None
        assert await uow.users.list(Page(limit=1, offset=1)) == ([owner], 2)
        with pytest.raises(Conflict, match="eve"):
            await uow.users.add(make_user("eve"), "other")
        with pytest.raises(NotFound):
            await uow.users.get("nobody")


async def test_a_changed_user_keeps_the_password_and_a_changed_password_keeps_the_user(
    unit_of_work: UnitOfWorkFactory,
) -> None:
    async with unit_of_work() as uow:
        await uow.users.add(make_user(), "first")
        changed = make_user(roles=(Role.VIEWER,), disabled_at=EPOCH + HOUR, updated_at=EPOCH + HOUR)
        await uow.users.save(changed)
        assert await uow.users.password_hash("ada") == "first"
        await uow.users.set_password("ada", "second")
        found = await uow.users.get("ada")
        assert found.model_copy(update={"updated_at": changed.updated_at}) == changed
        assert await uow.users.password_hash("ada") == "second"
        for missing in (uow.users.save(make_user("nobody")), uow.users.set_password("nobody", "x")):
            with pytest.raises(NotFound):
                await missing


async def test_of_many_first_admins_at_once_there_is_one(unit_of_work: UnitOfWorkFactory) -> None:
    async def bootstrap(number: int) -> bool:
        async with unit_of_work() as uow:
            made = await uow.users.add_first_admin(make_user(f"admin-{number}"), "hash")
            await uow.commit()
            return made

    assert sorted(await asyncio.gather(*(bootstrap(number) for number in range(8)))) == [False] * 7 + [True]


async def test_disabled_admins_and_others_do_not_count_as_admins(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.users.add(make_user("ada", disabled_at=EPOCH), "h")
        await uow.users.add(make_user("dev", roles=(Role.DEVELOPER,)), "h")
        assert await uow.users.enabled_admins() == []
        assert await uow.users.add_first_admin(make_user("root"), "h")
        assert await uow.users.enabled_admins() == ["root"]


async def test_two_admins_who_disable_each_other_take_turns(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        for name in ("ada", "bob"):
            await uow.users.add(make_user(name), "h")
        await uow.commit()

    async def disable(name: str) -> bool:
        async with unit_of_work() as uow:
            if set(await uow.users.enabled_admins()) <= {name}:
                return False
            await uow.users.save(make_user(name, disabled_at=EPOCH))
            await uow.commit()
            return True

    assert sorted(await asyncio.gather(disable("ada"), disable("bob"))) == [False, True]


async def test_a_session_is_ended_for_everybody_who_looks(unit_of_work: UnitOfWorkFactory) -> None:
    began = datetime.now(UTC)
    async with unit_of_work() as uow:
        await uow.users.add(make_user(), "h")
        await uow.users.add(make_user("bob"), "h")
        for session_id, user in (("ses_1", "ada"), ("ses_2", "ada"), ("ses_3", "bob")):
            await uow.sessions.add(make_session(session_id, user))
        await uow.commit()
    async with unit_of_work() as uow:
        one = await uow.sessions.lock("ses_1")
        assert one is not None
        turned = one.model_copy(update={"previous_digest": one.refresh_digest, "refresh_digest": digest("new")})
        await uow.sessions.save(turned)
        assert await uow.sessions.lock("ses_1") == turned
        assert await uow.sessions.lock("nothing") is None
        assert await uow.sessions.ended_since(began) == []
        await uow.sessions.end_all_of("ada", began + HOUR)
        await uow.sessions.end_all_of("ada", began + 2 * HOUR)  # an end stays where it was
        assert sorted(await uow.sessions.ended_since(began)) == ["ses_1", "ses_2"]
        assert await uow.sessions.ended_since(began + HOUR) == []
        with pytest.raises(NotFound):
            await uow.sessions.add(make_session("ses_4", "nobody"))


async def test_expired_sessions_are_swept_by_the_next_login(unit_of_work: UnitOfWorkFactory) -> None:
    async with unit_of_work() as uow:
        await uow.users.add(make_user(), "h")
        await uow.sessions.add(make_session("old", expires_at=datetime.now(UTC) - timedelta(days=2)))
        await uow.sessions.add(make_session("young", expires_at=datetime.now(UTC) - HOUR))
        await uow.sessions.add(make_session("new"))
        assert await uow.sessions.lock("old") is None
        assert await uow.sessions.lock("young") is not None


async def test_a_service_token_is_found_by_its_digest_alone(unit_of_work: UnitOfWorkFactory) -> None:
    token = make_service_token(tenants=("acme",))
    async with unit_of_work() as uow:
        await uow.service_tokens.add(token)
        assert await uow.service_tokens.find(token.digest) == token
        assert await uow.service_tokens.find(digest("other")) is None
        with pytest.raises(Conflict, match="revoke it first"):
            await uow.service_tokens.add(make_service_token())
        await uow.service_tokens.used(token.token_id, EPOCH + HOUR)
        await uow.service_tokens.used(token.token_id, EPOCH)
        assert (await uow.service_tokens.get(token.token_id)).last_used_at == EPOCH + HOUR


async def test_a_revoked_service_token_frees_its_name_and_stays_on_record(unit_of_work: UnitOfWorkFactory) -> None:
    token = make_service_token()
    async with unit_of_work() as uow:
        await uow.service_tokens.add(token)
        revoked = await uow.service_tokens.revoke(token.token_id, "bob", EPOCH + HOUR)
        assert (revoked.revoked_at, revoked.revoked_by) == (EPOCH + HOUR, "bob")
        assert await uow.service_tokens.revoke(token.token_id, "eve", EPOCH + 2 * HOUR) == revoked
        again = make_service_token(created_at=EPOCH + HOUR)
        await uow.service_tokens.add(again)
        assert await uow.service_tokens.list(Page()) == ([again, revoked], 2)
        with pytest.raises(NotFound):
            await uow.service_tokens.revoke("hst_nothing", "bob", EPOCH)


async def test_a_tenants_tokens_are_its_own(unit_of_work: UnitOfWorkFactory) -> None:
    mine, theirs = make_tenant_token(), make_tenant_token("other")
    async with unit_of_work() as uow:
        for token in (mine, theirs):
            await uow.tenant_tokens.add(token)
        assert await uow.tenant_tokens.get("acme", mine.token_id) == mine
        assert await uow.tenant_tokens.list("acme", Page()) == ([mine], 1)
        with pytest.raises(NotFound, match="of this tenant is not known"):
            await uow.tenant_tokens.get("acme", theirs.token_id)
        with pytest.raises(NotFound, match="of this tenant is not known"):
            await uow.tenant_tokens.revoke("acme", theirs.token_id, "ada", EPOCH)
        assert await uow.tenant_tokens.revoked() == []


async def test_the_revocation_list_forgets_what_has_expired_anyway(unit_of_work: UnitOfWorkFactory) -> None:
    living, expired = make_tenant_token(), make_tenant_token(expires_at=datetime.now(UTC) - HOUR)
    async with unit_of_work() as uow:
        for token in (living, expired):
            await uow.tenant_tokens.add(token)
            await uow.tenant_tokens.revoke("acme", token.token_id, "ada", EPOCH)
        assert await uow.tenant_tokens.revoked() == [living.token_id]


async def test_keys_are_listed_while_they_verify_and_nodes_get_public_halves(unit_of_work: UnitOfWorkFactory) -> None:
    now = datetime.now(UTC)
    old, new, other = make_key(), make_key(created_at=EPOCH + HOUR), make_key(KeyPurpose.DATA_PLANE)
    async with unit_of_work() as uow:
        await uow.signing_keys.lock()
        for key in (new, old, other):
            await uow.signing_keys.add(key)
        assert await uow.signing_keys.list(KeyPurpose.API) == [old, new]
        assert len(await uow.signing_keys.list()) == 3
        assert await uow.signing_keys.public(KeyPurpose.DATA_PLANE) == [PublicKey(kid=other.kid, public=other.public)]
        await uow.signing_keys.retire([old.kid], now + HOUR)
        await uow.signing_keys.retire([old.kid], now + 2 * HOUR)  # an earlier end stays
        assert (await uow.signing_keys.list(KeyPurpose.API))[0].verify_until == now + HOUR
        await uow.signing_keys.retire([old.kid], now - HOUR)
        assert await uow.signing_keys.list(KeyPurpose.API) == [new]
