"""Logins and users: what a password gets, how guessing is stopped, and how rights that are taken away end."""

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.services.limits import GUESSES
from hotswap.adapters.memory.records import MemoryRecords
from hotswap.identity.passwords import Passwords
from tests.http.people import PASSWORD, bearer, logged_in, login, make_user, me
from tests.http.site import API, Site, error_of, fields_of, make_site


async def test_a_password_gets_a_token_that_speaks_for_its_user(site: Site) -> None:
    answer = await logged_in(site, "eve", "TenantOwner", "Viewer", tenants=["acme"], displayName="Eve")
    assert answer["user"]["name"] == "eve"
    expires = datetime.fromisoformat(answer["expiresAt"])
    assert timedelta(minutes=14) < expires - datetime.now(UTC) <= timedelta(minutes=15)
    told = (await me(site, answer["token"])).json()
    assert told == {
        "user": "eve",
        "roles": ["TenantOwner", "Viewer"],
        "tenants": ["acme"],
        "environments": [],
        "credential": "session",
    }
    error_of(await site.nobody.get(f"{API}/users", headers=bearer(answer["token"])), 403, "FORBIDDEN")


async def test_a_wrong_password_and_a_user_who_is_not_there_get_one_answer(site: Site) -> None:
    await make_user(site, "ada", "Admin")
    await make_user(site, "gone", "Admin")
    assert (await site.admin.put(f"{API}/users/gone", json={"disabled": True})).status_code == 200
    answers = [
        await login(site, name, password)
        for name, password in (("ada", "wrong"), ("nobody", PASSWORD), ("gone", PASSWORD), ("NOT\u2028a name", "x"))
    ]
    messages = {error_of(answer, 401, "UNAUTHORIZED")["message"] for answer in answers}
    assert messages == {"user or password is wrong"}
    error_of(await login(site, "a\0b"), 400, "VALIDATION_ERROR")


async def test_a_user_who_is_not_there_costs_a_hash_like_any_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: a machine's noise is longer than a hash."""
    await make_user(site, "ada", "Admin")
    verified: list[bool] = []
    whole = Passwords._verify

    def counting(self: Passwords, known: str | None, password: str) -> bool:
        verified.append(known is not None)
        return whole(self, known, password)

    monkeypatch.setattr(Passwords, "_verify", counting)
    for name in ("ada", "nobody"):
        await login(site, name, "wrong")
    assert verified == [True, False]


def test_nobodys_password_is_verified_against_a_hash_of_the_same_cost() -> None:
    passwords = Passwords()
    known = passwords._hasher.hash(PASSWORD)
    assert passwords._nobodys.rsplit("$", 2)[0] == known.rsplit("$", 2)[0], "the same algorithm, memory and rounds"
    assert passwords._verify(known, PASSWORD)
    assert not passwords._verify(None, PASSWORD)
    assert not passwords._verify("not a hash", PASSWORD)


async def test_guessing_is_stopped_for_the_user_and_nobody_else(site: Site) -> None:
    for name in ("ada", "bob"):
        await make_user(site, name, "Viewer")
    for _ in range(GUESSES):
        error_of(await login(site, "ada", "wrong"), 401, "UNAUTHORIZED")
    answer = await login(site, "ada")  # even the right one: otherwise the limit would tell which it is
    error_of(answer, 429, "RATE_LIMIT_EXCEEDED")
    assert int(answer.headers["Retry-After"]) > 60
    assert (await login(site, "bob")).status_code == 200
    for _ in range(GUESSES):
        error_of(await login(site, "nobody", "wrong"), 401, "UNAUTHORIZED")
    error_of(await login(site, "nobody", "wrong"), 429, "RATE_LIMIT_EXCEEDED")


async def test_logins_from_one_address_are_limited(tmp_path: Path) -> None:
    site = make_site(tmp_path, api={"rate_limit_factor": 1})
    transport = httpx.ASGITransport(site.app, client=("198.51.100.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        body = {"user": "nobody", "password": "x"}
        found = []
        for number in range(12):
            answer = await client.post(f"{API}/authentication/login", json={**body, "user": f"user{number}"})
            found.append(answer.status_code)
    assert found == [401] * 10 + [429] * 2


async def test_no_password_is_in_a_log_an_answer_or_the_audit(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = await logged_in(site, "ada", "Admin")
        wrong = await login(site, "ada", "not the password but near")
        audit = (await site.admin.get(f"{API}/audit-logs")).text
    told = " ".join([*(record.getMessage() for record in caplog.records), str(answer), wrong.text, audit])
    assert PASSWORD not in told
    assert "not the password" not in told
    assert answer["token"] not in audit
    assert "argon2" not in told


async def test_a_made_password_is_told_once_and_works(site: Site) -> None:
    headers = {"Idempotency-Key": "make-zoe"}
    made = (await site.admin.post(f"{API}/users", json={"name": "zoe"}, headers=headers)).json()
    assert re.fullmatch(r"[\w-]{24}", made["password"])
    assert (await login(site, "zoe", made["password"])).status_code == 200
    again = await site.admin.post(f"{API}/users", json={"name": "zoe"}, headers=headers)
    assert (again.status_code, again.json()) == (201, {**made, "password": None})


@pytest.mark.parametrize("password", ["hunter2", "a" * 40, "x" * 1025])
async def test_a_weak_password_is_refused_without_repeating_it(site: Site, password: str) -> None:
    error = error_of(
        await site.admin.post(f"{API}/users", json={"name": "zoe", "password": password}), 400, "VALIDATION_ERROR"
    )
    assert "password" in fields_of(error)
    assert password not in str(error)


async def test_a_refresh_token_is_used_once_and_gives_the_rights_of_now(site: Site) -> None:
    first = await logged_in(site, "ada", "Viewer")
    refresh = {"refreshToken": first["refreshToken"]}
    second = (await site.nobody.post(f"{API}/authentication/refresh", json=refresh)).json()
    assert (await me(site, second["token"])).json()["user"] == "ada"
    assert second["sessionExpiresAt"] == first["sessionExpiresAt"], "refreshing does not make a login last for ever"
    assert second["refreshToken"] != first["refreshToken"]


async def test_a_refresh_token_that_comes_again_later_ends_the_login(
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)
    records = MemoryRecords(lambda: now)
    site = make_site(tmp_path, records)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://api.test") as client:
        site.clients["nobody"] = client
        site.clients["admin"] = httpx.AsyncClient(
            transport=httpx.ASGITransport(site.app), base_url="http://api.test", headers=bearer("token-of-admin")
        )
        first = await logged_in(site, "ada", "Viewer")

        async def refresh(token: str) -> httpx.Response:
            return await client.post(f"{API}/authentication/refresh", json={"refreshToken": token})

        second = (await refresh(first["refreshToken"])).json()
        now += timedelta(seconds=5)
        lost = (await refresh(first["refreshToken"])).json()  # its answer was lost on the way: once more is fine
        assert (await me(site, lost["token"])).status_code == 200
        error_of(await refresh(second["refreshToken"]), 401, "UNAUTHORIZED")
        assert (await me(site, lost["token"])).status_code == 200, "an unknown token ends nothing"
        now += timedelta(seconds=60)
        error_of(await refresh(first["refreshToken"]), 401, "UNAUTHORIZED")  # whoever has it copied it
        error_of(await refresh(lost["refreshToken"]), 401, "UNAUTHORIZED")
        error_of(await me(site, lost["token"]), 401, "UNAUTHORIZED")
        audit = (await site.admin.get(f"{API}/audit-logs", params={"entity": "ada"})).json()["items"]
        assert audit[0]["eventType"] == "user.refresh-token-reused"
        await site.admin.aclose()


@pytest.mark.parametrize(
    "token", ["", "x", "ses_0.x", "ses_" + "0" * 32, "ses_" + "0" * 32 + ".x", "ses_\u0000.x", "." * 1999]
)
async def test_a_refresh_token_of_nobody_is_refused(site: Site, token: str) -> None:
    answer = await site.nobody.post(f"{API}/authentication/refresh", json={"refreshToken": token})
    error_of(answer, 401, "UNAUTHORIZED")


async def test_of_twenty_refreshes_at_once_the_session_stays_one(site: Site) -> None:
    first = await logged_in(site, "ada", "Viewer")
    refresh = {"refreshToken": first["refreshToken"]}
    answers = await asyncio.gather(
        *(site.nobody.post(f"{API}/authentication/refresh", json=refresh) for _ in range(20))
    )
    # All within the time for a lost answer: each is answered, only the last one's refresh token goes on.
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(good) == 20
    alive = [
        one
        for one in good
        if (
            await site.nobody.post(f"{API}/authentication/refresh", json={"refreshToken": one["refreshToken"]})
        ).is_success
    ]
    assert len(alive) == 1


async def test_a_logout_ends_the_login_and_its_refresh_token(site: Site) -> None:
    answer = await logged_in(site, "ada", "Viewer")
    other = (await login(site, "ada")).json()
    out = await site.nobody.post(f"{API}/authentication/logout", headers=bearer(answer["token"]))
    assert out.status_code == 204
    error_of(await me(site, answer["token"]), 401, "UNAUTHORIZED")
    refresh = {"refreshToken": answer["refreshToken"]}
    error_of(await site.nobody.post(f"{API}/authentication/refresh", json=refresh), 401, "UNAUTHORIZED")
    assert (await me(site, other["token"])).status_code == 200, "the other login of the same user goes on"
    error_of(await site.viewer.post(f"{API}/authentication/logout"), 409, "CONFLICT")


@pytest.mark.parametrize("change", [{"disabled": True}, {"roles": ["Viewer"]}, {"tenants": ["acme"]}])
async def test_changed_rights_end_every_login(site: Site, change: dict[str, Any]) -> None:
    answer = await logged_in(site, "ada", "Admin")
    await make_user(site, "other", "Admin")
    changed = await site.admin.put(f"{API}/users/ada", json=change)
    assert changed.status_code == 200, changed.text
    error_of(await me(site, answer["token"]), 401, "UNAUTHORIZED")
    refresh = {"refreshToken": answer["refreshToken"]}
    error_of(await site.nobody.post(f"{API}/authentication/refresh", json=refresh), 401, "UNAUTHORIZED")
    audit = (await site.admin.get(f"{API}/audit-logs", params={"entity": "ada"})).json()["items"]
    assert audit[0]["details"].keys() <= {"roles", "tenants", "disabledAt"}


async def test_a_new_name_ends_no_login(site: Site) -> None:
    answer = await logged_in(site, "ada", "Viewer")
    assert (await site.admin.put(f"{API}/users/ada", json={"displayName": "Ada L."})).status_code == 200
    assert (await me(site, answer["token"])).status_code == 200


async def test_ones_own_password_is_changed_with_the_old_one(site: Site) -> None:
    answer = await logged_in(site, "ada", "Viewer")
    path, headers = f"{API}/authentication/password", bearer(answer["token"])
    wrong = {"currentPassword": "wrong", "newPassword": "another long password"}
    error = error_of(await site.nobody.post(path, json=wrong, headers=headers), 400, "VALIDATION_ERROR")
    assert fields_of(error) == {"currentPassword": "is wrong"}
    right = {**wrong, "currentPassword": PASSWORD}
    assert (await site.nobody.post(path, json=right, headers=headers)).status_code == 204
    error_of(await me(site, answer["token"]), 401, "UNAUTHORIZED")
    error_of(await login(site, "ada"), 401, "UNAUTHORIZED")
    assert (await login(site, "ada", "another long password")).status_code == 200
    error_of(await site.viewer.post(path, json=right), 409, "CONFLICT")


async def test_the_last_admin_stays(site: Site) -> None:
    await make_user(site, "ada", "Admin")
    for change in ({"disabled": True}, {"roles": ["Developer"]}):
        error = error_of(await site.admin.put(f"{API}/users/ada", json=change), 409, "CONFLICT")
        assert "only Admin" in error["message"]
    await make_user(site, "bob", "Admin")
    assert (await site.admin.put(f"{API}/users/ada", json={"disabled": True})).status_code == 200
    assert (await site.admin.get(f"{API}/users/ada")).json()["disabled"] is True
    assert (await site.admin.put(f"{API}/users/ada", json={"disabled": False})).json()["disabled"] is False
    assert (await login(site, "ada")).status_code == 200


async def test_users_are_listed_by_name_without_secrets(site: Site) -> None:
    for name in ("bob", "ada", "zoe"):
        await make_user(site, name, "Viewer")
    page = (await site.admin.get(f"{API}/users", params={"limit": 2})).json()
    assert [user["name"] for user in page["items"]] == ["ada", "bob"]
    assert (page["total"], page["hasMore"], page["nextOffset"]) == (3, True, 2)
    assert "password" not in str(page).lower()
    error_of(await site.admin.post(f"{API}/users", json={"name": "ada"}), 409, "CONFLICT")
    for wrong in ("service:ci", "Ada", "../ada", "a" * 64, "admin\n"):
        error_of(await site.admin.post(f"{API}/users", json={"name": wrong}), 400, "VALIDATION_ERROR")


async def test_without_a_key_encryption_key_logins_say_what_is_missing(tmp_path: Path) -> None:
    site = make_site(tmp_path, auth={"key_encryption_key": None})
    transport = httpx.ASGITransport(site.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        site.clients["nobody"] = client
        made = await client.post(
            f"{API}/users", json={"name": "ada", "password": PASSWORD}, headers=bearer("token-of-admin")
        )
        assert made.status_code == 201
        error = error_of(await login(site, "ada"), 503, "SERVICE_UNAVAILABLE")
        assert "HOTSWAP_AUTH__KEY_ENCRYPTION_KEY" in error["message"]
