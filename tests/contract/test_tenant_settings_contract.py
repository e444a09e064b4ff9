"""One contract for tenants' settings: the PostgreSQL view of a node, and its in-memory twin."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from hotswap.adapters.memory.tenant_settings import MemoryTenantSettings
from hotswap.adapters.postgres import tenant_settings as adapter
from hotswap.adapters.postgres.database import Database
from hotswap.config import PostgresSettings
from hotswap.domain.errors import Unavailable
from hotswap.ports.tenant_settings import MAX_SETTINGS_BYTES, TenantSettingsProvider
from tests.contract.factories import make_plugin

PLUGINS = ("exporter", "importer")


def decrypt(tenant: str, plugin: str, stored: Mapping[str, Any]) -> Mapping[str, str]:
    """Stands for the real one: what is stored, backwards."""
    return {name: value[::-1] for name, value in stored.items()}


class Memory:
    def __init__(self) -> None:
        self.provider = MemoryTenantSettings()
        self.put, self.remove = self.provider.put, self.provider.remove


class Postgres:
    def __init__(self, url: str, provider: TenantSettingsProvider) -> None:
        self._url = url
        self.provider = provider

    def put(self, tenant: str, plugin: str, config: Any, secrets: Mapping[str, str] | None = None) -> None:
        stored = {name: value[::-1] for name, value in secrets.items()} if secrets else None
        self.store(tenant, plugin, config, stored)

    def store(self, tenant: str, plugin: str, config: Any, stored: Any) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO tenant_plugin_configs"
                " (config_id, tenant_id, plugin_id, configuration, secrets, enabled_by, updated_at)"
                " VALUES (%s, %s, %s, %s, %s, 'test', clock_timestamp()) ON CONFLICT (tenant_id, plugin_id) DO UPDATE SET"
                " configuration = excluded.configuration, secrets = excluded.secrets, updated_at = clock_timestamp()",
                (f"{tenant}-{plugin}", tenant, plugin, json.dumps(config), json.dumps(stored) if stored else None),
            )

    def remove(self, tenant: str, plugin: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "UPDATE tenant_plugin_configs SET configuration = NULL, secrets = NULL, updated_at = clock_timestamp()"
                " WHERE tenant_id = %s AND plugin_id = %s",
                (tenant, plugin),
            )

    def delete(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("DELETE FROM tenant_plugin_configs")


async def on(database: Database, url: str) -> Postgres:
    async with database.unit_of_work() as uow:
        for plugin in PLUGINS:
            await uow.plugins.add(make_plugin(plugin))
        await uow.commit()
    return Postgres(url, database.tenant_settings(decrypt))


@pytest.fixture
async def postgres(database: Database, database_url: str) -> Postgres:
    return await on(database, database_url)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.stack)])
async def keeper(request: pytest.FixtureRequest) -> AsyncIterator[Memory | Postgres]:
    if request.param == "memory":
        yield Memory()
        return
    url: str = request.getfixturevalue("database_url")
    database = Database(PostgresSettings(url=SecretStr(url)))
    yield await on(database, url)
    await database.close()


async def test_a_tenant_has_what_was_put_and_others_have_nothing(keeper: Memory | Postgres) -> None:
    keeper.put("acme", "exporter", {"region": "eu", "deep": {"list": [1, None]}}, {"key": "s3cret"})
    keeper.put("acme", "importer", {"region": "us"})
    await keeper.provider.ensure("exporter")
    await keeper.provider.ensure("importer")
    settings = keeper.provider.current("acme", "exporter")
    assert settings is not None
    assert (settings.config, settings.secrets) == ({"region": "eu", "deep": {"list": [1, None]}}, {"key": "s3cret"})
    assert "s3cret" not in repr(settings)
    other = keeper.provider.current("acme", "importer")
    assert other is not None
    assert (other.config, other.secrets) == ({"region": "us"}, {})
    assert keeper.provider.current("globex", "exporter") is None
    assert keeper.provider.current("acme", "ghost") is None


async def test_a_change_is_a_new_object_of_another_version_and_no_change_is_none(keeper: Memory | Postgres) -> None:
    keeper.put("acme", "exporter", {"a": 1})
    await keeper.provider.ensure("exporter")
    await keeper.provider.refresh()
    first = keeper.provider.current("acme", "exporter")
    await keeper.provider.refresh()
    assert keeper.provider.current("acme", "exporter") is first
    keeper.put("acme", "exporter", {"a": 2}, {"key": "new!"})
    await keeper.provider.refresh()
    second = keeper.provider.current("acme", "exporter")
    assert first is not None
    assert second is not None
    assert (second.config, second.secrets) == ({"a": 2}, {"key": "new!"})
    assert second.version != first.version
    keeper.remove("acme", "exporter")
    await keeper.provider.refresh()
    assert keeper.provider.current("acme", "exporter") is None


@pytest.mark.stack
async def test_a_row_that_is_gone_is_noticed_by_the_next_whole_read(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.put("acme", "exporter", {"a": 1})
    await postgres.provider.ensure("exporter")
    await postgres.provider.refresh()
    postgres.delete()
    await postgres.provider.refresh()
    assert postgres.provider.current("acme", "exporter") is not None
    monkeypatch.setattr(adapter, "WHOLE_EVERY", 0.0)
    await postgres.provider.refresh()
    assert postgres.provider.current("acme", "exporter") is None


@pytest.mark.stack
@pytest.mark.parametrize(
    ("config", "stored", "why"),
    [
        ([1], None, "not a JSON object"),
        ({"a": "x" * MAX_SETTINGS_BYTES}, None, "more than"),
        ({"a": 2}, {"key": 7}, "cannot be decrypted: TypeError"),
    ],
)
async def test_a_row_that_cannot_be_used_leaves_what_was_and_is_told_once(
    postgres: Postgres, config: Any, stored: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    postgres.put("acme", "exporter", {"a": 1})
    postgres.put("globex", "exporter", {"a": 1})
    await postgres.provider.ensure("exporter")
    postgres.store("acme", "exporter", config, stored)
    postgres.put("globex", "exporter", {"a": 3})
    with caplog.at_level(logging.ERROR):
        await postgres.provider.refresh()
        await postgres.provider.refresh()
    kept, changed = (postgres.provider.current(tenant, "exporter") for tenant in ("acme", "globex"))
    assert kept is not None
    assert kept.config == {"a": 1}
    assert changed is not None
    assert changed.config == {"a": 3}
    (message,) = caplog.messages
    assert why in message
    assert "acme" in message


@pytest.mark.stack
async def test_without_a_decrypter_nobody_has_secrets(postgres: Postgres, database: Database) -> None:
    postgres.put("acme", "exporter", {"a": 1}, {"key": "s3cret"})
    provider = database.tenant_settings()
    await provider.ensure("exporter")
    settings = provider.current("acme", "exporter")
    assert settings is not None
    assert (settings.config, settings.secrets) == ({"a": 1}, {})


@pytest.mark.stack
async def test_a_server_that_is_away_is_said_so_and_what_is_known_stays(
    postgres: Postgres, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.put("acme", "exporter", {"a": 1})
    await postgres.provider.ensure("exporter")
    monkeypatch.setattr(adapter, "READ_TIMEOUT", 0.0)
    with pytest.raises(Unavailable):
        await postgres.provider.refresh()
    with pytest.raises(Unavailable):
        await postgres.provider.ensure("importer")
    assert postgres.provider.current("acme", "exporter") is not None
    await postgres.provider.ensure("exporter")  # known: asks nobody


@pytest.mark.stack
async def test_who_is_disabled_is_known_with_the_settings_and_follows_changes(
    postgres: Postgres, database: Database
) -> None:
    async def enable(tenant: str, on: bool) -> None:
        async with database.unit_of_work() as uow:
            row = await uow.tenants.hold(tenant, "exporter", "ada")
            await uow.tenants.save(row.model_copy(update={"enabled": on}))
            await uow.commit()

    await enable("acme", False)
    provider = database.tenant_settings()
    disabled = provider.disabled
    await provider.ensure("exporter")
    assert disabled == {("acme", "exporter")}
    assert provider.current("acme", "exporter") is None
    await enable("acme", True)
    await enable("globex", False)
    await provider.refresh()
    assert disabled == {("globex", "exporter")}
    postgres.delete()
    await provider.refresh()
    assert provider.disabled is disabled
    monkeyed = database.tenant_settings()
    await monkeyed.ensure("exporter")
    assert monkeyed.disabled == set()


@pytest.mark.stack
async def test_a_key_that_cannot_be_had_now_is_asked_for_again(postgres: Postgres, database: Database) -> None:
    postgres.put("acme", "exporter", {"a": 1}, {"key": "s3cret"})
    there = False

    async def prepare(stored: Any) -> None:
        assert list(stored) == [{"key": "terc3s"}]
        if not there:
            raise Unavailable("the vault is away")

    def opened(tenant: str, plugin: str, stored: Mapping[str, Any]) -> Mapping[str, str]:
        if not there:
            raise Unavailable("not unwrapped")
        return decrypt(tenant, plugin, stored)

    provider = database.tenant_settings(opened, prepare)
    await provider.ensure("exporter")
    await provider.refresh()
    assert provider.current("acme", "exporter") is None
    there = True
    await provider.refresh()
    settings = provider.current("acme", "exporter")
    assert settings is not None
    assert settings.secrets == {"key": "s3cret"}


@pytest.mark.stack
async def test_whoever_commits_a_change_is_heard_and_a_lost_connection_is_told(
    postgres: Postgres, database: Database, database_url: str
) -> None:
    async with database.tenant_changes().listen() as told:
        async with asyncio.timeout(30):
            postgres.put("acme", "exporter", {"a": 1})
            await anext(told)
            postgres.remove("acme", "exporter")
            await anext(told)
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'hotswap tenant changes' AND datname = current_database()"
                )
            with pytest.raises(Unavailable, match="ended"):
                _ = [heard async for heard in told]
