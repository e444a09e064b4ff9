"""The first Admin on a real database, and key rotation over two real api apps."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from api.app import build_container, create_app
from api.bootstrap import bootstrap, password_in
from hotswap.config import PostgresSettings, Settings
from hotswap.config_access import AuthSettings
from hotswap.domain.errors import Conflict, InvalidInput
from tests.http.people import bearer, part_of
from tests.http.site import API, KEY_ENCRYPTION_KEY, error_of

pytestmark = pytest.mark.stack
ROOT = Path(__file__).resolve().parents[2]
AUTH = AuthSettings(key_encryption_key=SecretStr(KEY_ENCRYPTION_KEY), key_activation=0)
PASSWORD = "a password of some length"


@pytest.fixture
def postgres(new_database: Callable[..., str]) -> PostgresSettings:
    return PostgresSettings(url=SecretStr(new_database(migrated=True)))


async def test_of_several_installers_at_once_one_makes_the_admin(postgres: PostgresSettings) -> None:
    names = ("admin", "root", "ada")
    made = await asyncio.gather(*(bootstrap(postgres, AUTH, name, PASSWORD) for name in names))
    assert sorted(made) == [False, False, True]
    assert not await bootstrap(postgres, AUTH, "other", PASSWORD)
    with pytest.raises(InvalidInput, match="password"):
        await bootstrap(postgres, AUTH, "other", "short")


async def test_a_disabled_admin_does_not_lock_the_installation_up(postgres: PostgresSettings) -> None:
    import psycopg

    assert await bootstrap(postgres, AUTH, "admin", PASSWORD)
    with psycopg.connect(postgres.url.get_secret_value(), autocommit=True) as connection:
        connection.execute("UPDATE users SET disabled_at = now()")
    with pytest.raises(Conflict, match="admin"):
        await bootstrap(postgres, AUTH, "admin", PASSWORD)
    assert await bootstrap(postgres, AUTH, "rescue", PASSWORD)


def test_a_made_password_is_for_its_owners_eyes_and_survives_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "password"
    made = password_in(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert password_in(file) == made, "the next attempt goes on with the one that is on the disk"


async def test_the_command_says_the_password_once(environment: dict[str, str], postgres: PostgresSettings) -> None:
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")},
        **environment,
        "HOTSWAP_POSTGRES__URL": postgres.url.get_secret_value(),
        "PYTHONPATH": str(ROOT),
    }

    async def run(*arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "api.bootstrap", *arguments),
            env=variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        return process.returncode, out.decode(), errors.decode()

    code, _, errors = await run("--user", "No Name")
    assert (code, "user name" in errors) == (1, True)
    code, said, errors = await run("--user", "ada")
    assert code == 0, errors
    assert said.startswith("user ada, password ")
    code, said, errors = await run("--user", "ada")
    assert (code, said) == (0, "")
    assert "already" in errors


@pytest.fixture
async def apps(settings: Settings, postgres: PostgresSettings) -> AsyncIterator[tuple[httpx.AsyncClient, ...]]:
    """Two api apps on one database, each with connections of its own, at the specification's limits."""
    ours = settings.model_copy(
        update={
            "postgres": postgres,
            "auth": AUTH,
            "api": settings.api.model_copy(update={"development_users": (), "rate_limit_factor": 1.0}),
        }
    )
    async with AsyncExitStack() as stack:
        clients = []
        for number in (1, 2):
            container = build_container(ours)
            stack.push_async_callback(container.close)
            transport = httpx.ASGITransport(create_app(container), client=(f"198.51.100.{os.getpid() % 200}", number))
            client = httpx.AsyncClient(transport=transport, base_url="http://api.test", timeout=30)
            clients.append(await stack.enter_async_context(client))
        yield tuple(clients)


async def test_two_apis_share_logins_keys_revocations_and_limits(
    apps: tuple[httpx.AsyncClient, httpx.AsyncClient], postgres: PostgresSettings
) -> None:
    one, other = apps
    assert await bootstrap(postgres, AUTH, "admin", PASSWORD)
    body = {"user": "admin", "password": PASSWORD}
    before = (await one.post(f"{API}/authentication/login", json=body)).json()

    async def me(client: httpx.AsyncClient, token: str) -> httpx.Response:
        return await client.get(f"{API}/authentication/me", headers=bearer(token))

    first = await me(one, before["token"])
    assert first.json()["user"] == "admin"
    second = await me(other, before["token"])
    assert second.headers["X-RateLimit-Policy"] == "shared"
    assert int(second.headers["X-RateLimit-Remaining"]) == int(first.headers["X-RateLimit-Remaining"]) - 1

    rotated = await one.post(f"{API}/authentication/signing-keys/rotate", headers=bearer(before["token"]))
    assert rotated.status_code == 201, rotated.text
    after = (await other.post(f"{API}/authentication/login", json=body)).json()
    assert part_of(after["token"], 0)["kid"] != part_of(before["token"], 0)["kid"]
    for client in apps:
        for login in (before, after):
            assert (await me(client, login["token"])).status_code == 200

    assert (await one.post(f"{API}/authentication/logout", headers=bearer(after["token"]))).status_code == 204
    async with asyncio.timeout(30):
        while (answer := await me(other, after["token"])).status_code == 200:  # known here within two seconds
            await asyncio.sleep(0.1)
    error_of(answer, 401, "UNAUTHORIZED")
    assert (await me(other, before["token"])).status_code == 200
