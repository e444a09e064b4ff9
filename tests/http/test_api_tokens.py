"""Tokens that must not get in, keys that change while api processes run, tokens of machines and of tenants."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.services import identity, trust
from hotswap.adapters.memory.records import MemoryRecords
from hotswap.domain.accounts import KeyPurpose, PublicKey
from hotswap.identity.tokens import DATA_PLANE_AUDIENCE, KeyRing, TenantClaims, TokenRejected
from tests.http.people import bearer, encoded, logged_in, login, me, part_of
from tests.http.site import API, Site, error_of, make_site

STRANGER = Ed25519PrivateKey.generate()


async def own_key(site: Site) -> Any:
    """The private key that signs this site's access tokens, to forge what only a broken rule would let pass."""
    async with site.records.unit_of_work() as uow:
        return await site.container.trust.signer(uow, KeyPurpose.API, await uow.now())


def altered(token: str, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Another header or other claims under the old signature."""
    head, body = {**part_of(token, 0), **(header or {})}, {**part_of(token, 1), **claims}
    return f"{encoded(head)}.{encoded(body)}.{token.split('.')[2]}"


def hmac_signed(token: str, key: bytes, algorithm: str = "HS256") -> str:
    text = f"{encoded({**part_of(token, 0), 'alg': algorithm})}.{encoded(part_of(token, 1))}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


FORGERIES = {
    "no algorithm": lambda token, key: f"{encoded({**part_of(token, 0), 'alg': 'none'})}.{token.split('.')[1]}.",
    "None, in capitals": lambda token, key: f"{encoded({**part_of(token, 0), 'alg': 'NONE'})}.{token.split('.')[1]}.",
    "no algorithm, old signature": lambda token, key: altered(token, {"alg": "none"}),
    "HMAC under the public key": lambda token, key: hmac_signed(token, key.key.public_key().public_bytes_raw()),
    "HMAC under nothing": lambda token, key: hmac_signed(token, b""),
    "more rights": lambda token, key: altered(token, roles=["Admin"]),
    "another user": lambda token, key: altered(token, sub="root"),
    "a later end": lambda token, key: altered(token, exp=int(time.time()) + 10**6),
    "another session": lambda token, key: altered(token, sid="ses_other"),
    "a stranger's signature": lambda token, key: jwt.encode(
        part_of(token, 1), STRANGER, "EdDSA", headers={**part_of(token, 0)}
    ),
    "a key that it brings along": lambda token, key: jwt.encode(
        part_of(token, 1),
        STRANGER,
        "EdDSA",
        headers={
            **part_of(token, 0),
            "jwk": {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(bytes(32)).decode()},
        },
    ),
    "an unknown key": lambda token, key: altered(token, {"kid": "0" * 16}),
    "a key id that is no text": lambda token, key: altered(token, {"kid": ["a"]}),
    "a path as key id": lambda token, key: altered(token, {"kid": "../../dev/null"}),
    "an extension": lambda token, key: jwt.encode(
        part_of(token, 1), key.key, "EdDSA", headers={**part_of(token, 0), "crit": ["exp"]}
    ),
    "another audience": lambda token, key: jwt.encode(
        {**part_of(token, 1), "aud": "hotswap-data-plane"}, key.key, "EdDSA", headers=part_of(token, 0)
    ),
    "several audiences": lambda token, key: jwt.encode(
        {**part_of(token, 1), "aud": ["hotswap-api", "x"]}, key.key, "EdDSA", headers=part_of(token, 0)
    ),
    "another issuer": lambda token, key: jwt.encode(
        {**part_of(token, 1), "iss": "elsewhere"}, key.key, "EdDSA", headers=part_of(token, 0)
    ),
    "no end": lambda token, key: jwt.encode(
        {name: value for name, value in part_of(token, 1).items() if name != "exp"},
        key.key,
        "EdDSA",
        headers=part_of(token, 0),
    ),
    "no session": lambda token, key: jwt.encode(
        {name: value for name, value in part_of(token, 1).items() if name != "sid"},
        key.key,
        "EdDSA",
        headers=part_of(token, 0),
    ),
    "issued tomorrow": lambda token, key: jwt.encode(
        {**part_of(token, 1), "iat": int(time.time()) + 86_400}, key.key, "EdDSA", headers=part_of(token, 0)
    ),
    "another kind of token": lambda token, key: jwt.encode(
        part_of(token, 1), key.key, "EdDSA", headers={**part_of(token, 0), "typ": "JWT"}
    ),
    "a role that is none": lambda token, key: jwt.encode(
        {**part_of(token, 1), "roles": ["Boss"]}, key.key, "EdDSA", headers=part_of(token, 0)
    ),
    "half a token": lambda token, key: token[: len(token) // 2],
    "two dots": lambda token, key: "..",
    "not base64": lambda token, key: "ä.b.c".replace("ä", "%"),
    "deep JSON": lambda token, key: (
        f"{base64.urlsafe_b64encode(b'[' * 5000).decode().rstrip('=')}.{token.split('.')[1]}.x"
    ),
    "a huge token": lambda token, key: f"{token.split('.')[0]}.{'A' * 60_000}.x",
    "a changed signature": lambda token, key: token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "BBBBBB"),
}


async def test_a_forged_token_never_gets_in(site: Site) -> None:
    token = (await logged_in(site, "ada", "Viewer"))["token"]
    key = await own_key(site)
    assert (await me(site, token)).status_code == 200
    resigned = jwt.encode(part_of(token, 1), key.key, "EdDSA", headers=part_of(token, 0))
    assert (await me(site, resigned)).status_code == 200, (
        "the forger's tools work, so that their failures mean something"
    )
    for name, forge in FORGERIES.items():
        answer = await me(site, forge(token, key))
        assert answer.status_code == 401, (name, answer.text)
        error = error_of(answer, 401, "UNAUTHORIZED")
        assert "signature" not in error["message"].lower(), "what was wrong helps forgers only"


async def test_an_expired_token_says_so_and_the_leeway_is_bounded(site: Site) -> None:
    token = (await logged_in(site, "ada", "Viewer"))["token"]
    key = await own_key(site)

    def ended(seconds_ago: int) -> str:
        claims = {**part_of(token, 1), "iat": int(time.time()) - 900, "exp": int(time.time()) - seconds_ago}
        return jwt.encode(claims, key.key, "EdDSA", headers=part_of(token, 0))

    error = error_of(await me(site, ended(60)), 401, "UNAUTHORIZED")
    assert "expired" in error["message"]
    assert (await me(site, ended(0))).status_code == 200, "clocks differ by some seconds"


async def test_a_token_that_is_remembered_as_right_ends_on_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.services.trust.LOOK_SECONDS", 1000.0)
    token = (await logged_in(site, "ada", "Viewer"))["token"]
    key = await own_key(site)
    leeway = int(site.container.settings.auth.clock_skew.total_seconds())
    claims = {**part_of(token, 1), "exp": int(time.time()) - leeway + 2}
    ending = jwt.encode(claims, key.key, "EdDSA", headers=part_of(token, 0))
    assert (await me(site, ending)).status_code == 200
    async with asyncio.timeout(20):
        while (answer := await me(site, ending)).status_code == 200:
            await asyncio.sleep(0.1)
    assert "expired" in error_of(answer, 401, "UNAUTHORIZED")["message"]


async def test_tokens_remembered_as_right_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.services.trust.LOOK_SECONDS", 1000.0)
    monkeypatch.setattr("api.services.trust.MOST_VERIFIED", 3)
    tokens = [(await logged_in(site, name, "Viewer"))["token"] for name in ("ada", "bob", "cem", "dia", "eve")]
    for token in tokens * 2:
        assert (await me(site, token)).status_code == 200
    picture = site.container.trust._picture
    assert picture is not None
    assert 0 < len(picture.verified) <= 3


async def test_a_data_plane_token_is_no_api_token(site: Site) -> None:
    made = (await site.admin.post(f"{API}/tenants/acme/tokens")).json()
    error_of(await me(site, made["token"]), 401, "UNAUTHORIZED")


def client_of(site: Site) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://api.test")


async def test_a_rotation_in_one_api_is_noticed_in_the_other_and_old_tokens_go_on(tmp_path: Path) -> None:
    records = MemoryRecords()
    one, other = make_site(tmp_path, records), make_site(tmp_path, records)
    async with client_of(one) as first, client_of(other) as second:
        one.clients.update(nobody=first, admin=first)
        first.headers.update(bearer("token-of-admin"))
        other.clients["nobody"] = second
        before = (await logged_in(one, "ada", "Viewer"))["token"]
        assert (await me(other, before)).status_code == 200
        rotated = await first.post(f"{API}/authentication/signing-keys/rotate")
        assert rotated.status_code == 201, rotated.text
        after = (await login(one, "ada")).json()["token"]
        assert part_of(after, 0)["kid"] == rotated.json()["items"][0]["kid"] != part_of(before, 0)["kid"]
        for token in (before, after):
            assert (await me(other, token)).status_code == 200
        published = (await second.get("/.well-known/jwks.json")).json()["keys"]
        assert {key["kid"] for key in published} >= {part_of(before, 0)["kid"], part_of(after, 0)["kid"]}
        assert all(key["kty"] == "OKP" and "d" not in key for key in published)
        kept = (await first.get(f"{API}/authentication/signing-keys")).json()["items"]
        assert sum(key["verifyUntil"] is None for key in kept) == 2
        assert "sealed" not in str(kept).lower()


async def test_a_new_key_signs_only_once_verifiers_had_time_to_read_it(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    records = MemoryRecords(lambda: now)
    site = make_site(tmp_path, records, auth={"key_activation": 15})
    async with records.unit_of_work() as uow:
        old = await site.container.trust.signer(uow, KeyPurpose.API, now)
        await uow.commit()
    async with records.unit_of_work() as uow:
        await site.container.trust.rotate(uow, now, revoke=False)
        await uow.commit()
    async with records.unit_of_work() as uow:
        assert (await site.container.trust.signer(uow, KeyPurpose.API, now)).kid == old.kid
        later = now + timedelta(seconds=15)
        assert (await site.container.trust.signer(uow, KeyPurpose.API, later)).kid != old.kid
        now += timedelta(minutes=20)
        assert old.kid not in [key.kid for key in await uow.signing_keys.list(KeyPurpose.API)]


async def test_keys_that_leaked_are_gone_at_once(site: Site) -> None:
    token = (await logged_in(site, "ada", "Viewer"))["token"]
    body = {"revoke": True, "reason": "the backup was stolen"}
    assert (await site.admin.post(f"{API}/authentication/signing-keys/rotate", json=body)).status_code == 201
    error_of(await me(site, token), 401, "UNAUTHORIZED")
    assert (await me(site, (await login(site, "ada")).json()["token"])).status_code == 200


async def test_a_logout_elsewhere_is_known_here_within_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = MemoryRecords()
    one, other = make_site(tmp_path, records), make_site(tmp_path, records)
    async with client_of(one) as first, client_of(other) as second:
        one.clients.update(nobody=first, admin=first)
        first.headers.update(bearer("token-of-admin"))
        other.clients["nobody"] = second
        token = (await logged_in(one, "ada", "Viewer"))["token"]
        assert (await me(other, token)).status_code == 200
        await first.post(f"{API}/authentication/logout", headers=bearer(token))
        monkeypatch.setattr(trust, "LOOK_SECONDS", 0.0)  # two seconds later
        error_of(await me(other, token), 401, "UNAUTHORIZED")


async def test_while_postgres_is_away_what_was_known_holds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await logged_in(site, "ada", "Viewer"))["token"]
    assert (await me(site, token)).status_code == 200
    monkeypatch.setattr(trust, "LOOK_SECONDS", 0.0)
    site.records.away = True
    assert (await me(site, token)).status_code == 200
    site.records.away = False


async def test_of_many_requests_one_looks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await logged_in(site, "ada", "Viewer"))["token"]
    site.container.trust.forget()
    looks = 0
    whole = trust.TrustStore._look

    async def counted(self: trust.TrustStore) -> Any:
        nonlocal looks
        looks += 1
        return await whole(self)

    monkeypatch.setattr(trust.TrustStore, "_look", counted)
    answers = await asyncio.gather(*(me(site, token) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert looks == 1
    for number in range(30):  # whoever invents key ids does not make us read for each
        await me(site, altered(token, {"kid": f"{number:016x}"}))
    assert looks == 2


async def test_keys_under_another_key_encryption_key_say_what_to_do(tmp_path: Path) -> None:
    records = MemoryRecords()
    one = make_site(tmp_path, records)
    other = make_site(tmp_path, records, auth={"key_encryption_key": "x" * 43})
    async with client_of(one) as first, client_of(other) as second:
        one.clients.update(nobody=first, admin=first)
        first.headers.update(bearer("token-of-admin"))
        other.clients["nobody"] = second
        await logged_in(one, "ada", "Viewer")
        error = error_of(await login(other, "ada"), 503, "SERVICE_UNAVAILABLE")
        assert "rotate-keys" in error["message"]
        await second.post(f"{API}/authentication/signing-keys/rotate", headers=bearer("token-of-admin"))
        assert (await login(other, "ada")).status_code == 200


# -- machines ------------------------------------------------------------------------------------------------------


async def make_service_token(site: Site, **more: Any) -> dict[str, Any]:
    body = {"name": "ci", "roles": ["Developer"], **more}
    answer = await site.admin.post(f"{API}/service-tokens", json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_a_service_token_speaks_for_its_machine_and_is_kept_as_a_hash(site: Site) -> None:
    made = await make_service_token(site, environments=["QA"])
    token = made["token"]
    assert len(token) == len("hst_") + 43
    told = (await me(site, token)).json()
    assert (told["user"], told["roles"], told["environments"]) == ("service:ci", ["Developer"], ["QA"])
    kept = str(site.records.committed)
    assert token not in kept
    assert hashlib.sha256(token.encode()).hexdigest() in kept
    listed = (await site.admin.get(f"{API}/service-tokens")).json()
    assert listed["items"][0]["prefix"] == token[:12]
    assert listed["items"][0]["lastUsedAt"] is not None
    assert token not in str(listed)
    assert "digest" not in str(listed)


async def test_a_service_token_reaches_its_environments_only(site: Site) -> None:
    await site.ship("greeter")
    await site.approve()
    made = await make_service_token(site, roles=["Admin"], environments=["QA"])
    machine = client_of(site)
    machine.headers.update(bearer(made["token"]))
    error_of(await site.deploy(environment="Development", client=machine), 403, "FORBIDDEN")
    assert (await site.deploy(environment="QA", client=machine)).status_code == 202
    started = (await site.deploy(environment="Production")).json()["deploymentId"]
    for command in ("approve", "abort"):
        path = f"{API}/deployments/{started}/{command}"
        error_of(await machine.post(path, json={"reason": "why not"}), 403, "FORBIDDEN")
    await machine.aclose()


async def test_a_revoked_and_an_expired_service_token_get_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await make_service_token(site)
    path = f"{API}/service-tokens/{made['serviceToken']['tokenId']}"
    assert (await me(site, made["token"])).status_code == 200
    for _ in range(2):
        assert (await site.admin.delete(path)).status_code == 204
    error_of(await me(site, made["token"]), 401, "UNAUTHORIZED")
    again = await make_service_token(site)  # the name is free again
    monkeypatch.setattr(identity, "datetime", _Later)
    error_of(await me(site, again["token"]), 401, "UNAUTHORIZED")
    error_of(await me(site, "hst_" + "x" * 43), 401, "UNAUTHORIZED")
    error_of(await site.admin.delete(f"{API}/service-tokens/svc_{'0' * 32}"), 404, "NOT_FOUND")


class _Later(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(days=91)


async def test_a_service_token_is_told_once_even_under_an_idempotency_key(site: Site) -> None:
    headers = {"Idempotency-Key": "ci"}
    body = {"name": "ci", "roles": ["Viewer"]}
    made = (await site.admin.post(f"{API}/service-tokens", json=body, headers=headers)).json()
    again = (await site.admin.post(f"{API}/service-tokens", json=body, headers=headers)).json()
    assert again == {**made, "token": None}
    assert made["token"] not in str(site.records.committed.answers)
    error_of(await site.admin.post(f"{API}/service-tokens", json=body), 409, "CONFLICT")


# -- tenants -------------------------------------------------------------------------------------------------------


async def data_plane_ring(site: Site) -> KeyRing:
    async with site.records.unit_of_work() as uow:
        keys: list[PublicKey] = list(await uow.signing_keys.public(KeyPurpose.DATA_PLANE))
    return KeyRing(KeyPurpose.DATA_PLANE, keys)


async def test_a_tenants_token_says_whose_it_is_and_is_kept_nowhere(site: Site) -> None:
    body = {"plugins": ["greeter"], "environments": ["QA"], "lifetime": "PT1H", "description": "their gateway"}
    made = (await site.owner.post(f"{API}/tenants/acme/tokens", json=body)).json()
    ring = await data_plane_ring(site)
    claims = ring.verify(made["token"], TenantClaims, "hotswap", DATA_PLANE_AUDIENCE, timedelta(0))
    assert (claims.sub, claims.env, claims.plugins) == ("acme", ("QA",), ("greeter",))
    assert claims.jti == made["tenantToken"]["tokenId"]
    with pytest.raises(TokenRejected):
        ring.verify(made["token"], TenantClaims, "hotswap", "hotswap-api", timedelta(0))
    assert made["token"] not in str(site.records.committed)
    listed = (await site.owner.get(f"{API}/tenants/acme/tokens")).json()
    assert listed["items"] == [made["tenantToken"]]


async def test_an_owner_reaches_their_own_tenants_and_learns_nothing_of_others(site: Site) -> None:
    theirs = (await site.admin.post(f"{API}/tenants/other/tokens")).json()["tenantToken"]["tokenId"]
    answers = [
        await site.owner.request(method, f"{API}/tenants/{tenant}/tokens{suffix}")
        for tenant in ("other", "nowhere")
        for method, suffix in (("POST", ""), ("GET", ""), ("DELETE", f"/{theirs}"))
    ]
    assert len({error_of(answer, 403, "FORBIDDEN")["message"] for answer in answers}) == 1
    error_of(await site.owner.delete(f"{API}/tenants/acme/tokens/{theirs}"), 404, "NOT_FOUND")
    async with site.records.unit_of_work() as uow:
        assert await uow.tenant_tokens.revoked() == []


async def test_a_revoked_tenant_token_is_on_the_nodes_list(site: Site) -> None:
    made = (await site.owner.post(f"{API}/tenants/acme/tokens")).json()["tenantToken"]
    for _ in range(2):
        gone = await site.owner.delete(f"{API}/tenants/acme/tokens/{made['tokenId']}")
        assert gone.status_code == 204, gone.text
    async with site.records.unit_of_work() as uow:
        assert await uow.tenant_tokens.revoked() == [made["tokenId"]]


async def test_a_repeat_under_a_key_signs_the_same_token_again(site: Site) -> None:
    headers = {"Idempotency-Key": "acme-1"}
    one = (await site.owner.post(f"{API}/tenants/acme/tokens", headers=headers)).json()
    two = (await site.owner.post(f"{API}/tenants/acme/tokens", headers=headers)).json()
    assert one == two
    assert json.dumps(one["token"]) not in str(site.records.committed.answers)


async def test_a_lifetime_over_the_longest_is_refused(site: Site) -> None:
    for lifetime in ("P31D", "PT1S", "-PT1H"):
        answer = await site.owner.post(f"{API}/tenants/acme/tokens", json={"lifetime": lifetime})
        assert "lifetime" in str(error_of(answer, 400, "VALIDATION_ERROR")["details"])
