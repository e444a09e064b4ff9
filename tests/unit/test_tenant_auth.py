"""Tenants' tokens on a node: verified offline, remembered within bounds, refused as soon as they should be."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from hotswap.adapters.memory.records import MemoryRecords
from hotswap.domain.accounts import KeyPurpose, PublicKey, TenantToken
from hotswap.domain.deployment import Environment
from hotswap.identity.sealing import Sealer
from hotswap.identity.tokens import DATA_PLANE_AUDIENCE, Signer, new_signing_key, unsealed
from hotswap.node import tenant_auth
from hotswap.node.tenant_auth import Grant, TenantAuth, TenantKeys
from tests.unit.node_fakes import eventually

SEALER = Sealer(b"k" * 32)
NOW = datetime.now(UTC)


class Mint:
    """A signing key, its public half, and tokens by it."""

    def __init__(self, purpose: KeyPurpose = KeyPurpose.DATA_PLANE) -> None:
        self.key = new_signing_key(purpose, SEALER, NOW, NOW)
        self.signer: Signer = unsealed(self.key, SEALER)
        self.public = PublicKey(kid=self.key.kid, public=self.key.public)

    def token(
        self,
        tenant: str = "acme",
        lasts: timedelta = timedelta(hours=1),
        audience: str = DATA_PLANE_AUDIENCE,
        **more: Any,
    ) -> bytes:
        claims = {"sub": tenant, "jti": "tnt_1", **more}
        return b"Bearer " + self.signer.sign("hotswap", audience, NOW, datetime.now(UTC) + lasts, claims).encode()


@pytest.fixture
def mint() -> Mint:
    return Mint()


def auth_of(mint: Mint, platform: str = "") -> TenantAuth:
    auth = TenantAuth(Environment.QA, platform)
    auth.learn([mint.public], [])
    return auth


def test_a_token_opens_its_own_tenants_plugins_only(mint: Mint) -> None:
    auth = auth_of(mint)
    grant = auth.known(mint.token())
    assert grant is not None
    assert grant.allows("acme", "invoice")
    assert not grant.allows("other", "invoice")
    assert not grant.allows("", "invoice")
    narrow = auth.known(mint.token(plugins=["invoice"]))
    assert narrow is not None
    assert narrow.allows("acme", "invoice")
    assert not narrow.allows("acme", "export")


def test_a_token_for_other_environments_opens_nothing(mint: Mint) -> None:
    auth = auth_of(mint)
    here, elsewhere = auth.known(mint.token(env=["Staging", "QA"])), auth.known(mint.token(env=["Production"]))
    assert here is not None
    assert here.allows("acme", "invoice")
    assert elsewhere is not None
    assert not elsewhere.allows("acme", "invoice")


def test_the_platforms_token_opens_everything_and_is_no_prefix_game(mint: Mint) -> None:
    auth = auth_of(mint, "gateway-secret")
    for header in (b"Bearer gateway-secret", b"bearer  gateway-secret ", b"Bearer gateway-secret"):
        grant = auth.known(header)
        assert grant is not None
        assert grant.allows("anybody", "anything")
    for header in (b"", b"Bearer", b"Bearer ", b"Bearer gateway-secre", b"Bearer gateway-secrets", b"gateway-secret"):
        assert auth.known(header) is None
    assert auth_of(mint).known(b"Bearer ") is None, "without a platform token the empty one is none"
    assert auth_of(mint).known(b"") is None


@pytest.mark.parametrize(
    "header", [b"Bearer a.b.c", b"Bearer \xff.\xff.\xff", b"Bearer " + b"x" * 16_000, b"Basic YTpi"]
)
def test_what_is_no_token_is_refused(mint: Mint, header: bytes) -> None:
    assert auth_of(mint).known(header) is None


def test_forged_tokens_are_refused(mint: Mint) -> None:
    auth = auth_of(mint)
    good = mint.token()
    claims = jwt.decode(good[7:], options={"verify_signature": False})
    header = jwt.get_unverified_header(good[7:].decode())
    key = mint.signer.key
    stranger = Mint()
    forged = {
        "none": jwt.encode(claims, "", "none", headers={**header, "alg": "none"}),
        "HMAC": jwt.encode(claims, b"k" * 32, "HS256", headers={**header, "alg": "HS256"}),
        "a stranger's key under our id": jwt.encode(claims, stranger.signer.key, "EdDSA", headers=header),
        "an api token": jwt.encode(claims, key, "EdDSA", headers={**header, "typ": "at+jwt"}),
        "another audience": jwt.encode({**claims, "aud": "hotswap-api"}, key, "EdDSA", headers=header),
        "another issuer": jwt.encode({**claims, "iss": "other"}, key, "EdDSA", headers=header),
        "a tenant that is none": jwt.encode({**claims, "sub": "../x"}, key, "EdDSA", headers=header),
        "nobody": jwt.encode({**claims, "sub": ""}, key, "EdDSA", headers=header),
        "no id": jwt.encode({n: v for n, v in claims.items() if n != "jti"}, key, "EdDSA", headers=header),
        "garbage in the signature": (good[7:-4] + b"!!" + good[-4:]).decode(),
    }
    assert auth.known(good) is not None
    for name, token in forged.items():
        assert auth.known(f"Bearer {token}".encode()) is None, name
    assert auth.known(stranger.token()) is None
    assert auth.known(Mint(KeyPurpose.API).token()) is None


def test_a_remembered_token_ends_when_it_expires(mint: Mint) -> None:
    auth = auth_of(mint)
    late = mint.token(lasts=timedelta(seconds=-4))  # within the leeway for clocks that differ
    assert auth.known(late) is not None
    assert auth._remembered[late].expires <= time.time() + 1.1, "and not longer for being remembered"
    ended = mint.token(lasts=timedelta(seconds=-60))
    assert auth.known(ended) is None
    auth._remembered[ended] = Grant("acme", expires=time.time() - 55)  # seen while it held
    assert auth.known(ended) is None
    assert ended not in auth._remembered


def test_a_revoked_token_and_a_retired_key_are_refused_though_remembered(mint: Mint) -> None:
    auth, token = auth_of(mint, "gateway-secret"), mint.token()
    assert auth.known(token) is not None
    auth.learn([mint.public], ["tnt_1"])
    assert auth.known(token) is None
    auth.learn([mint.public], [])
    assert auth.known(token) is not None
    auth.learn([Mint().public], [])
    assert auth.known(token) is None
    assert auth.known(b"Bearer gateway-secret") is not None


def test_a_seen_token_is_not_verified_again(mint: Mint, monkeypatch: pytest.MonkeyPatch) -> None:
    auth, token, verified = auth_of(mint), mint.token(), 0
    whole = TenantAuth._verified

    def counted(self: TenantAuth, presented: bytes) -> Any:
        nonlocal verified
        verified += 1
        return whole(self, presented)

    monkeypatch.setattr(TenantAuth, "_verified", counted)
    for _ in range(100):
        assert auth.known(token) is not None
    assert verified == 1
    auth.learn([mint.public], [])  # nothing has changed: nothing is forgotten
    auth.known(token)
    assert verified == 1


def test_what_is_remembered_is_bounded(mint: Mint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_auth, "MOST_REMEMBERED", 10)
    auth, token = auth_of(mint), mint.token()
    for number in range(35):
        assert auth.known(mint.token(jti=f"tnt_{number}")) is not None
        assert auth.known(b"Bearer x%d.y.z" % number) is None
        # One token in many spellings would be many entries.
        spelled = token.replace(b" ", b" " * (number + 2))
        assert auth.known(spelled) is not None
        assert spelled not in auth._remembered
    assert len(auth._remembered) <= 10


async def test_keys_are_read_on_the_beat_and_kept_while_postgres_is_away(mint: Mint) -> None:
    records, auth = MemoryRecords(), TenantAuth(Environment.QA)
    keys = TenantKeys(auth, records.unit_of_work, timedelta(seconds=0.05))
    following = asyncio.create_task(keys.run())
    token = mint.token()
    try:
        assert auth.known(token) is None
        async with records.unit_of_work() as uow:
            await uow.signing_keys.add(mint.key)
            await uow.signing_keys.add(Mint(KeyPurpose.API).key)
            await uow.commit()
        await eventually(lambda: auth.known(token) is not None)
        assert [key.kid for key in auth._keys] == [mint.key.kid], "an api key never verifies here"
        records.away = True
        await asyncio.sleep(0.2)
        assert auth.known(token) is not None
        records.away = False
        async with records.unit_of_work() as uow:
            until = datetime.now(UTC) + timedelta(hours=1)
            await uow.tenant_tokens.add(
                TenantToken(token_id="tnt_1", tenant="acme", created_by="a", created_at=NOW, expires_at=until)
            )
            await uow.tenant_tokens.revoke("acme", "tnt_1", "ada", NOW)
            await uow.commit()
        await eventually(lambda: auth.known(token) is None)
    finally:
        following.cancel()
        await asyncio.wait({following})


async def test_a_token_by_a_new_key_makes_the_node_look_before_its_beat(
    mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_auth, "EXTRA_LOOK_SECONDS", 0.01)
    records, auth = MemoryRecords(), TenantAuth(Environment.QA)
    async with records.unit_of_work() as uow:
        await uow.signing_keys.add(mint.key)
        await uow.commit()
    following = asyncio.create_task(TenantKeys(auth, records.unit_of_work, timedelta(hours=1)).run())
    try:
        await eventually(lambda: auth.known(mint.token()) is not None)
    finally:
        following.cancel()
        await asyncio.wait({following})
