"""The fixtures of tests/conftest.py give each worker its own corner of one real stack."""

import io
from collections.abc import Callable
from typing import Any

import minio
import psycopg
import redis.asyncio
from temporalio.client import Client

from hotswap import temporal
from hotswap.config import Settings


async def test_the_database_is_private_and_migrated(settings: Settings, stack: dict[str, Any]) -> None:
    url = settings.postgres.url.get_secret_value()
    assert url != stack["environment"]["HOTSWAP_POSTGRES__URL"]
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("SELECT count(*) FROM environments")
        assert await cursor.fetchone() == (4,)


async def test_a_new_database_is_empty(new_database: Callable[..., str]) -> None:
    async with await psycopg.AsyncConnection.connect(new_database()) as connection:
        cursor = await connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert await cursor.fetchone() == (0,)


async def test_valkey_answers_with_the_password_only(settings: Settings) -> None:
    url = settings.redis.url.get_secret_value()
    async with redis.asyncio.Redis.from_url(url) as client:
        assert await client.ping()
    without = "redis://" + url.rpartition("@")[2]
    async with redis.asyncio.Redis.from_url(without) as client:
        try:
            await client.ping()
        except redis.exceptions.AuthenticationError:
            return
    raise AssertionError("Valkey answered a client without a password")


def test_the_bucket_keeps_versions(settings: Settings, unique: Callable[[str], str]) -> None:
    client = minio.Minio(
        settings.minio.endpoint,
        access_key=settings.minio.access_key.get_secret_value(),
        secret_key=settings.minio.secret_key.get_secret_value(),
        secure=False,
    )
    key = unique("key")
    first = client.put_object(settings.minio.bucket, key, io.BytesIO(b"1"), 1)
    second = client.put_object(settings.minio.bucket, key, io.BytesIO(b"2"), 1)
    assert first.version_id
    assert first.version_id != second.version_id


async def test_temporal_keeps_closed_runs_for_thirty_days(temporal_client: Client) -> None:
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

    described = await temporal_client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=temporal_client.namespace)
    )
    assert described.config.workflow_execution_retention_ttl.ToSeconds() == 30 * 24 * 3600


async def test_temporal_knows_the_search_attributes(temporal_client: Client) -> None:
    from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest

    listed = await temporal_client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=temporal_client.namespace)
    )
    assert {key.name for key in temporal.SEARCH_ATTRIBUTES} <= set(listed.custom_attributes)
