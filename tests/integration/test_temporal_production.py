"""Temporal as production has it: mutual TLS with real handshakes in front of the real server, and a namespace set up by command."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

import worker
from hotswap import temporal
from hotswap.config import Settings
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.errors import Unavailable
from hotswap.temporal_setup import set_up
from tests.integration.tls_proxy import Authority, Pair, tls_in_front_of

SERVER_NAME = "temporal.test"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("test authority")


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    return authority.issue("hotswap")


@pytest.fixture
async def mutual(settings: Settings, authority: Authority, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """Settings of a server that asks for a client certificate; all but ours."""
    async with tls_in_front_of(settings.temporal.address, authority.issue(SERVER_NAME), authority, tmp_path) as address:
        yield {
            "address": address,
            "namespace": settings.temporal.namespace,
            "tls": True,
            "tls_ca": authority.certificate,
            "tls_server_name": SERVER_NAME,
        }


async def test_with_a_certificate_of_the_right_authority_we_are_let_in(mutual: dict[str, Any], ours: Pair) -> None:
    client = await temporal.connect(
        TemporalSettings(**mutual, tls_client_cert=ours.certificate, tls_client_key=ours.key)
    )
    request = DescribeNamespaceRequest(namespace=client.namespace)
    told = await client.workflow_service.describe_namespace(request)
    assert told.namespace_info.name == mutual["namespace"]


async def test_a_handshake_that_fails_names_the_settings_to_look_at(mutual: dict[str, Any], ours: Pair) -> None:
    stranger = Authority("somebody else").issue("hotswap")
    certified = {"tls_client_cert": ours.certificate, "tls_client_key": ours.key}
    wrong: tuple[dict[str, Any], ...] = (
        mutual,
        mutual | {"tls_client_cert": stranger.certificate, "tls_client_key": stranger.key},
        mutual | certified | {"tls_server_name": "another.test"},
        mutual | certified | {"tls_ca": Authority("not theirs").certificate},
    )
    for given in wrong:
        with pytest.raises(Unavailable) as refused:
            await temporal.connect(TemporalSettings(**given))
        assert "HOTSWAP_TEMPORAL__TLS_CA" in refused.value.message
        assert "__TLS_SERVER_NAME" in refused.value.message
    plain = {"address": mutual["address"], "namespace": mutual["namespace"]}
    with pytest.raises(Unavailable, match="needs HOTSWAP_TEMPORAL__TLS=true"):
        await temporal.connect(TemporalSettings(**plain))


async def test_one_command_makes_the_namespace_and_a_repeat_changes_nothing(environment: dict[str, str]) -> None:
    name = f"set-up-{secrets.token_hex(4)}"
    command = [sys.executable, "-m", "worker", "--set-up"]
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | environment | {"HOTSWAP_TEMPORAL__NAMESPACE": name}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    made, registered = out.decode().splitlines()
    assert process.returncode == 0
    assert made == f"namespace '{name}' made; closed rollouts are kept for 30 days"
    assert all(key.name in registered for key in temporal.SEARCH_ATTRIBUTES)

    client = await temporal.connect(TemporalSettings(address=environment["HOTSWAP_TEMPORAL__ADDRESS"], namespace=name))
    assert await set_up(client, None) == [f"namespace '{name}' was set up already; nothing was changed"]
    (changed,) = await set_up(client, timedelta(days=40))
    assert "40 days" in changed
    told = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=name))
    assert told.config.workflow_execution_retention_ttl.ToTimedelta().days == 40


def test_a_retention_without_a_namespace_to_set_up_is_a_usage_fault(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--retention-days", "30"], ["--set-up", "--retention-days", "0"]):
        with pytest.raises(SystemExit) as ended:
            worker.main(wrong)
        assert ended.value.code == 2
        assert "goes with --set-up" in capsys.readouterr().err
