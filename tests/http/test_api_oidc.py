"""Tokens of an identity provider: its keys, its claims, and everything that pretends to be one of them."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from api.services.oidc import REFRESH_SECONDS, UNKNOWN_KEY_SECONDS, OidcVerifier
from hotswap.adapters.oidc_keys import HttpKeySet
from hotswap.config_access import OidcSettings
from hotswap.domain.errors import Unauthorized, Unavailable
from tests.http.people import encoded, me
from tests.http.site import Site, error_of, make_site

ISSUER = "https://login.example"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, algorithm: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
    return {**{name: value for name, value in made.items() if name != "key_ops"}, "kid": kid, "use": "sig", **more}


RSA_JWK, EC_JWK = jwk(RSA, "rsa-1", "RS256", alg="RS256"), jwk(EC, "ec-1", "ES256")


class Provider:
    """Stands for the provider's key set; can be away."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys, self.fetched, self.away = list(keys), 0, False

    async def fetch(self) -> list[dict[str, Any]]:
        self.fetched += 1
        if self.away:
            raise Unavailable("the provider is away")
        return self.keys

    async def close(self) -> None:
        """Nothing to close."""


def settings(**more: Any) -> OidcSettings:
    return OidcSettings(issuer=ISSUER, audience="hotswap", jwks_url="https://login.example/keys", **more)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {"iss": ISSUER, "aud": "hotswap", "sub": "ada", "iat": now, "exp": now + 300, "roles": ["Developer"]}
    return {name: value for name, value in {**given, **changes}.items() if value is not None}


def signed(key: Any = RSA, kid: str = "rsa-1", algorithm: str = "RS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid})


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = make_site(tmp_path, api={"development_users": ()})
    made.container.authenticator._oidc = OidcVerifier(settings(), Provider(RSA_JWK, EC_JWK))
    async with AsyncExitStack() as stack:
        transport = httpx.ASGITransport(made.app)
        client = httpx.AsyncClient(transport=transport, base_url="http://api.test")
        made.clients["nobody"] = await stack.enter_async_context(client)
        yield made


async def test_a_provider_s_token_is_a_user_with_mapped_roles(site: Site) -> None:
    told = (await me(site, signed(roles=["Approver", "Unheard-of"], tenants=["acme", "no tenant!", 5]))).json()
    assert (told["user"], told["roles"], told["credential"]) == ("oidc:ada", ["Approver"], "oidc")
    assert told["tenants"] == ["acme"]
    assert (await me(site, signed(EC, "ec-1", "ES256", aud=["other", "hotswap"]))).status_code == 200


async def test_nothing_that_pretends_gets_in(site: Site) -> None:
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def confused(key: bytes) -> str:
        text = f"{encoded({'alg': 'HS256', 'kid': 'rsa-1', 'typ': 'JWT'})}.{encoded(claims(roles=['Admin']))}"
        mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
        return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    good = signed()
    forged = {
        "no algorithm": f"{encoded({'alg': 'none', 'kid': 'rsa-1'})}.{encoded(claims())}.",
        "HMAC under the public key": confused(public),
        "HMAC under the modulus": confused(RSA_JWK["n"].encode()),
        "a stranger's key": signed(OTHER_RSA),
        "a key that is not published": signed(OTHER_RSA, "rsa-2"),
        "no key id": jwt.encode(claims(), RSA, "RS256"),
        "an algorithm that the key does not declare": signed(algorithm="PS256"),
        "another key's algorithm": signed(EC, "rsa-1", "ES256"),
        "another audience": signed(aud="elsewhere"),
        "no audience": signed(aud=None),
        "no end": signed(exp=None),
        "no subject": signed(sub=None),
        "a subject that is no text": signed(sub=5),
        "issued tomorrow": signed(iat=int(time.time()) + 86_400),
        "not yet valid": signed(nbf=int(time.time()) + 600),
        "an extension": jwt.encode(claims(), RSA, "RS256", headers={"kid": "rsa-1", "crit": ["b64"], "b64": False}),
        "other claims": f"{good.split('.')[0]}.{encoded(claims(roles=['Admin']))}.{good.split('.')[2]}",
        "an unprintable user": signed(sub="ada\n2026 INFO all is well"),
        "another issuer": signed(iss="https://evil.example"),
        "our issuer, their key": signed(iss="hotswap", aud="hotswap-api"),
    }
    assert (await me(site, good)).status_code == 200
    for name, token in forged.items():
        answer = await me(site, token)
        assert answer.status_code == 401, (name, answer.text)
    assert "expired" in error_of(await me(site, signed(exp=int(time.time()) - 60)), 401, "UNAUTHORIZED")["message"]


async def test_symmetric_weak_and_encryption_keys_are_not_used() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    secret = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    provider = Provider(
        {"kty": "oct", "kid": "oct", "k": secret},
        jwk(weak, "weak", "RS256"),
        {**jwk(RSA, "enc", "RS256"), "use": "enc"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "OKP", "crv": "X25519", "kid": "x", "x": secret},
        RSA_JWK,
    )
    verifier = OidcVerifier(settings(), provider)
    assert (await verifier.identify(signed(), "")).user == "oidc:ada"
    assert set(verifier._keys) == {"rsa-1"}
    with pytest.raises(Unauthorized):
        await verifier.identify(jwt.encode(claims(), b"s" * 32, "HS256", headers={"kid": "oct"}), "")


async def test_claims_are_mapped_as_the_settings_say() -> None:
    mapping = ({"claim": "platform-admins", "role": "Admin"}, {"claim": "devs", "role": "Developer"})
    given = settings(
        roles_claim="realm_access.roles",
        role_mapping=mapping,
        user_claim="email",
        user_prefix="sso:",
        tenants_claim="t",
    )
    verifier = OidcVerifier(given, Provider(RSA_JWK))
    token = signed(email="ada@example.com", realm_access={"roles": ["devs", "Admin"]}, t="not a list")
    actor = await verifier.identify(token, "")
    assert (actor.user, actor.roles, actor.tenants) == ("sso:ada@example.com", {"Developer"}, frozenset())
    assert not (await verifier.identify(signed(email="b", roles=["Admin"]), "")).roles, (
        "the claim that counts is missing"
    )
    with pytest.raises(Unauthorized, match="email"):
        await verifier.identify(signed(), "")


async def test_a_new_key_is_fetched_when_it_is_first_seen_and_not_for_every_invented_one() -> None:
    now, provider = 1000.0, Provider(RSA_JWK)
    verifier = OidcVerifier(settings(), provider, lambda: now)
    await verifier.identify(signed(), "")
    provider.keys.append(jwk(OTHER_RSA, "rsa-2", "RS256"))
    with pytest.raises(Unauthorized):
        await verifier.identify(signed(OTHER_RSA, "rsa-2"), "")
    now += UNKNOWN_KEY_SECONDS + 1
    await verifier.identify(signed(OTHER_RSA, "rsa-2"), "")
    for number in range(20):
        with pytest.raises(Unauthorized):
            await verifier.identify(signed(OTHER_RSA, f"invented-{number}"), "")
    assert provider.fetched == 2
    provider.keys.pop(0)  # the provider takes a key back
    now += REFRESH_SECONDS + 1
    with pytest.raises(Unauthorized):
        await verifier.identify(signed(), "")


async def test_while_the_provider_is_away_its_last_keys_hold() -> None:
    now, provider = 1000.0, Provider(RSA_JWK)
    provider.away = True
    verifier = OidcVerifier(settings(), provider, lambda: now)
    with pytest.raises(Unavailable):
        await verifier.identify(signed(), "")
    provider.away = False
    now += UNKNOWN_KEY_SECONDS + 1
    await verifier.identify(signed(), "")
    provider.away = True
    now += REFRESH_SECONDS + 1
    for _ in range(5):
        await verifier.identify(signed(), "")
    assert provider.fetched == 3, "and it is not asked for every request"


ANSWERS: dict[str, tuple[int, bytes]] = {
    "/keys": (200, json.dumps({"keys": [RSA_JWK, "no object"]}).encode()),
    "/moved": (302, b""),
    "/broken": (200, b"{"),
    "/list": (200, b"[]"),
    "/huge": (200, b'{"keys": [' + b" " * 300_000 + b"]}"),
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, content = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("Location", "/keys")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


async def test_a_key_set_comes_from_its_one_address_and_is_bounded() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        for path in ANSWERS:
            source = HttpKeySet(
                settings().model_copy(update={"jwks_url": f"http://127.0.0.1:{server.server_port}{path}"})
            )
            if path == "/keys":
                assert await source.fetch() == [RSA_JWK]
            else:
                with pytest.raises(Unavailable):
                    await source.fetch()
            await source.close()
    finally:
        server.shutdown()
        server.server_close()
