"""The facade over the real adapters and a real Temporal server, without workers: what twins cannot prove."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from api.app import build_container, create_app
from api.dependencies import Container
from hotswap.cli.client import ApiClient
from hotswap.cli.connection import Connection
from hotswap.cli.faults import ApiError
from hotswap.cli.registry_calls import upload_past
from hotswap.config import Settings
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.runtime import signing
from tests.http.bundles import bundle, sha256
from tests.http.site import API, error_of


@pytest.fixture
async def container(settings: Settings) -> AsyncIterator[Container]:
    made = build_container(settings)
    yield made
    made.streams.close()
    await made.close()


@pytest.fixture
async def admin(container: Container, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    token = next(user.token for user in settings.api.development_users if user.user == "admin").get_secret_value()
    headers = {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(create_app(container))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api.test", headers=headers, timeout=30
    ) as client:
        yield client


@pytest.fixture
def plugin(unique: Callable[[str], str]) -> str:
    return unique("greeter")


async def ship(admin: httpx.AsyncClient, plugin: str, *versions: str) -> None:
    assert (await admin.post(f"{API}/plugins", json={"name": plugin})).status_code == 201
    for version in versions:
        files = {"binary": ("plugin.zip", bundle(plugin, version), "application/zip")}
        made = await admin.post(f"{API}/plugins/{plugin}/versions", data={"version": version}, files=files)
        assert made.status_code == 201, made.text


async def deploy(admin: httpx.AsyncClient, plugin: str, version: str, **headers: str) -> httpx.Response:
    body = {"pluginId": plugin, "version": version, "environment": "Development"}
    return await admin.post(f"{API}/deployments", json=body, headers=headers)


async def test_everything_answers(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok"), answer.text


async def test_a_version_goes_in_and_comes_out_the_same(admin: httpx.AsyncClient, plugin: str) -> None:
    await ship(admin, plugin, "1.0.0")
    answer = await admin.get(f"{API}/plugins/{plugin}/versions/1.0.0/download")
    assert answer.content == bundle(plugin, "1.0.0")
    assert answer.headers["ETag"] == f'"{sha256(answer.content)}"'
    registered = (await admin.get(f"{API}/plugins/{plugin}")).json()
    assert (registered["status"], registered["currentVersion"]) == ("Active", "1.0.0")


async def test_of_ten_twin_uploads_one_wins_and_its_artifact_stays(admin: httpx.AsyncClient, plugin: str) -> None:
    await ship(admin, plugin)

    async def push() -> int:
        files = {"binary": ("plugin.zip", bundle(plugin), "application/zip")}
        answer = await admin.post(f"{API}/plugins/{plugin}/versions", data={"version": "1.0.0"}, files=files)
        return answer.status_code

    assert sorted(await asyncio.gather(*(push() for _ in range(10)))) == [201] + [409] * 9
    assert (await admin.get(f"{API}/plugins/{plugin}/versions/1.0.0/download")).status_code == 200


async def test_a_deployment_starts_once_and_holds_its_place(
    admin: httpx.AsyncClient, plugin: str, temporal_client: Client
) -> None:
    await ship(admin, plugin, "1.0.0", "2.0.0")
    keyed: dict[str, Any] = {"Idempotency-Key": f"start-{plugin}"}
    first = await deploy(admin, plugin, "1.0.0", **keyed)
    assert first.status_code == 202, first.text
    assert (await deploy(admin, plugin, "1.0.0", **keyed)).json() == first.json()
    refused = error_of(await deploy(admin, plugin, "2.0.0"), 409, "CONFLICT")
    assert first.json()["deploymentId"] in refused["message"]
    error_of(await admin.delete(f"{API}/plugins/{plugin}"), 409, "CONFLICT")
    listed = (await admin.get(f"{API}/deployments", params={"pluginId": plugin})).json()
    assert [item["deploymentId"] for item in listed["items"]] == [first.json()["deploymentId"]]
    handle = temporal_client.get_workflow_handle(first.json()["workflowId"], run_id=first.json()["runId"])
    assert (await handle.describe()).workflow_type == "DirectDeployment"
    read = await admin.get(first.json()["links"]["self"])
    assert (read.json(), read.headers["X-HotSwap-Source"]) == (first.json(), "projection")
    await handle.terminate()
    gone = error_of(await admin.post(f"{first.json()['links']['self']}/abort", json={"reason": "x"}), 409, "CONFLICT")
    assert "its workflow is Terminated" in gone["message"]


async def test_a_projected_end_wakes_the_watcher_and_ends_the_stream(
    admin: httpx.AsyncClient, plugin: str, container: Container, temporal_client: Client
) -> None:
    await ship(admin, plugin, "1.0.0")
    made = (await deploy(admin, plugin, "1.0.0")).json()
    watching = asyncio.create_task(admin.get(made["links"]["events"]))
    async with container.unit_of_work() as uow:
        progress = (await uow.deployments.get(made["deploymentId"])).progress
        done = progress.model_copy(update={"status": DeploymentStatus.COMPLETED, "sequence": 1})
        await uow.deployments.project(done, ())
        await uow.commit()
    await container.events.publish(f"deployment:{made['deploymentId']}", "1")
    answer = await asyncio.wait_for(watching, 10)
    assert answer.text.rstrip().endswith('event: end\ndata: {"status": "Completed"}')
    await temporal_client.get_workflow_handle(made["workflowId"]).terminate()


async def test_a_signed_version_goes_to_the_object_store_past_the_api(
    container: Container, settings: Settings, admin: httpx.AsyncClient, plugin: str, tmp_path: Path
) -> None:
    """By what the command line does when the api says 413: a real form to a real S3 server, then judged and registered."""
    assert (await admin.post(f"{API}/plugins", json={"name": plugin})).status_code == 201
    archive, key = tmp_path / "plugin.zip", tmp_path / "key.pem"
    archive.write_bytes(bundle(plugin, "1.0.0", padding=200_000))
    digest = sha256(archive.read_bytes())
    public = signing.generate(key)
    registered = await admin.post(f"{API}/publisher-keys", json={"publisher": plugin, "publicKey": public})
    assert registered.status_code == 201, registered.text
    made = signing.sign(signing.read_private(key), digest)
    connection = Connection("http://api.test", admin.headers["Authorization"].removeprefix("Bearer "))
    transport = httpx.ASGITransport(create_app(container))
    read: list[int] = []
    async with ApiClient(connection, transport) as api:
        fields = {"digest": digest, "releaseNotes": "large", "signature": made.value, "keyId": made.key_id}
        version = await upload_past(api, plugin, "1.0.0", archive, fields, read.append)
        assert (version["digest"], version["signature"]["keyId"]) == (digest, made.key_id)
        assert read[-1] == archive.stat().st_size
        tampered = tmp_path / "tampered.zip"
        tampered.write_bytes(bundle(plugin, "1.1.0", padding=100))
        with pytest.raises(ApiError):
            await upload_past(api, plugin, "1.1.0", tampered, {"digest": "0" * 64}, read.append)
    answer = await admin.get(f"{API}/plugins/{plugin}/versions/1.0.0/download")
    assert sha256(answer.content) == digest
    swept = (await admin.get(f"{API}/retention")).json()
    assert swept["dryRun"] is True
