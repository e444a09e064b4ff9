"""The doctor on real servers: a whole installation is healthy, and each of fourteen planted faults is found with its remedy."""

import asyncio
import io
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.worker import Worker

from hotswap.config import Settings, load_settings
from hotswap.doctor import servers
from hotswap.doctor.report import CheckState, Severity
from hotswap.doctor.site import now
from hotswap.domain.deployment import Environment
from hotswap.domain.drift import DriftItem, DriftKind, DriftReport, NodeInventory
from hotswap.domain.freeze import Freeze, FreezeKind, Once
from hotswap.domain.ids import artifact_key
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.embedded import seaweedfs
from tests.contract.factories import make_deployment, make_node
from tests.integration.installation import BEATING, OLD, Installation, key
from workflows.catalog import WORKFLOW_RUNNER
from workflows.retention import RetentionSweep

WARNING = Severity.WARNING


@asynccontextmanager
async def admin_port(answer: Callable[[], str]) -> AsyncIterator[str]:
    """A node's admin port, as far as the doctor asks it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = answer().encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])


@pytest.fixture
async def installation(
    environment: dict[str, str],
    new_database: Callable[..., str],
    temporal_client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Installation]:
    url = new_database(migrated=True)
    queue = f"doctor-{secrets.token_hex(4)}"
    variables = environment | {
        "HOTSWAP_POSTGRES__URL": url,
        "HOTSWAP_MINIO__BUCKET": queue,
        "HOTSWAP_TEMPORAL__TASK_QUEUE": queue,
        "HOTSWAP_TEMPORAL__DEPLOYMENT_NAME": queue,
        "HOTSWAP_NODE__ADMIN_TOKEN": "token",
        "HOTSWAP_AUTH__KEY_ENCRYPTION_KEY": key(),
        "HOTSWAP_KEYS__PROVIDER": "environment",
        "HOTSWAP_KEYS__WRAPPING_KEYS": f'["{key()}"]',
    }
    for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    await asyncio.to_thread(seaweedfs.create_bucket, variables)
    made = Installation(load_settings(), url, tmp_path)
    worker = Worker(temporal_client, task_queue=queue, workflows=[RetentionSweep], workflow_runner=WORKFLOW_RUNNER)
    async with admin_port(lambda: made.inventory.model_dump_json() if made.inventory else "") as admin_url, worker:
        await made.fill(admin_url)
        await polls(made)
        yield made


async def polls(installation: Installation) -> None:
    """The server notes a poll a moment after the worker began it."""
    site = installation.site()
    try:
        async with asyncio.timeout(30):
            while await servers.worker(site):
                await asyncio.sleep(0.05)
    finally:
        await site.close()


@dataclass(frozen=True)
class Planted:
    """A fault, and what the doctor must say of it: the check, a word of what it found, a word of the remedy."""

    name: str
    plant: Callable[[Installation], Awaitable[None]]
    check: str
    what: str
    remedy: str
    severity: Severity = Severity.CRITICAL


async def _lose_an_artifact(at: Installation) -> None:
    client, bucket = at.bucket()
    digest = at.ref("1.0.0").digest
    for item in client.list_objects(bucket, artifact_key(at.plugin, digest), recursive=True, include_version=True):
        client.remove_object(bucket, item.object_name or "", version_id=item.version_id)


async def _damage_an_artifact(at: Installation) -> None:
    client, bucket = at.bucket()
    damaged = bytes(reversed(at.content("1.1.0")))
    client.put_object(bucket, artifact_key(at.plugin, at.ref("1.1.0").digest), io.BytesIO(damaged), len(damaged))


async def _cut_an_artifact(at: Installation) -> None:
    client, bucket = at.bucket()
    client.put_object(bucket, artifact_key(at.plugin, at.ref("1.2.0").digest), io.BytesIO(b"cut"), 3)


async def _kill_a_node(at: Installation) -> None:
    await _register(at, "node-dead", "standard")
    at.sql(f"UPDATE nodes SET last_seen_at = {OLD} WHERE node_id = 'node-dead'")


async def _open_a_node(at: Installation) -> None:
    await _register(at, "node-open", "none")


async def _register(at: Installation, node: str, tier: str) -> None:
    site = at.site()
    async with site.database.unit_of_work() as uow:
        await uow.nodes.register(make_node(node, environment="Production", sandbox_tier=tier))
        await uow.commit()
    await site.close()
    at.sql(f"UPDATE nodes SET last_seen_at = {BEATING} WHERE node_id <> 'node-dead'")


async def _empty_a_node(at: Installation) -> None:
    at.inventory = NodeInventory(node_id="node-live", taken_at=now())


async def _change_the_sealing_key(at: Installation) -> None:
    at.change("auth", key_encryption_key=SecretStr(key()))


async def _lose_the_wrapping_key(at: Installation) -> None:
    at.change("keys", wrapping_keys=(SecretStr(key()),))


async def _fail_a_rollout(at: Installation) -> None:
    await _deployment(at, "dep_failed", Environment.QA, DeploymentStatus.FAILED)


async def _lose_a_workflow(at: Installation) -> None:
    await _deployment(at, "dep_lost", Environment.STAGING, DeploymentStatus.IN_PROGRESS)


async def _deployment(at: Installation, deployment: str, environment: Environment, status: DeploymentStatus) -> None:
    site = at.site()
    row = make_deployment(at.plugin, deployment_id=deployment, environment=environment, status=status)
    async with site.database.unit_of_work() as uow:
        await uow.deployments.open(row)
        await uow.commit()
    await site.close()


async def _stop_everything(at: Installation) -> None:
    site = at.site()
    freeze = Freeze(
        freeze_id=f"frz_{secrets.token_hex(16)}",
        kind=FreezeKind.STOP,
        window=Once(starts=now()),
        reason="incident 7",
        created_by="ada",
        created_at=now(),
    )
    async with site.database.unit_of_work() as uow:
        await uow.freezes.add(freeze)
        await uow.commit()
    await site.close()


async def _write_past_the_audit(at: Installation) -> None:
    at.sql(
        "ALTER TABLE audit_logs DISABLE TRIGGER USER;"
        "INSERT INTO audit_logs (event_type, entity_type, entity_id, user_id) VALUES ('a', 'b', 'c', 'd');"
        "ALTER TABLE audit_logs ENABLE TRIGGER USER"
    )


async def _name_another_queue(at: Installation) -> None:
    at.change("temporal", task_queue=f"nobody-{secrets.token_hex(4)}")


async def _use_a_forgetful_namespace(at: Installation) -> None:
    at.change("temporal", namespace="default")  # the development server's own keeps closed runs for a day


async def _turn_the_clock(at: Installation) -> None:
    at.clock_off = timedelta(minutes=-1)


PLANTED = (
    Planted("artifact lost", _lose_an_artifact, "artifacts", "1.0.0 (Approved) has no artifact", "plugin push"),
    Planted("artifact damaged", _damage_an_artifact, "artifacts", "1.1.0 (Approved) is damaged", "backup", WARNING),
    Planted("artifact cut", _cut_an_artifact, "artifacts", "1.2.0 (Approved) has 3 bytes", "plugin push", WARNING),
    Planted("node dead", _kill_a_node, "nodes", "node-dead (Production) has told nothing", "node-lost.md", WARNING),
    Planted("node empty", _empty_a_node, "drift", "node-live: missing-host", "hotswap drift -e Production --repair"),
    Planted("node open", _open_a_node, "sandbox", "node-open (Production) runs", "HOTSWAP_SANDBOX__TIER=standard"),
    Planted("sealing key", _change_the_sealing_key, "signing-keys", "2 of 2 signing keys", "hotswap auth rotate-keys"),
    Planted("wrapping key", _lose_the_wrapping_key, "key-provider", "1 data keys wrapped by local:", "wrapping key"),
    Planted("rollout failed", _fail_a_rollout, "failed-deployments", "dep_failed", "hotswap status dep_failed"),
    Planted("workflow lost", _lose_a_workflow, "workflows", "dep_lost", "deploy the version that you want"),
    Planted("stop switch", _stop_everything, "freezes", "incident 7", "hotswap release-everything", WARNING),
    Planted("audit bypassed", _write_past_the_audit, "audit", "1 audit entries", "hotswap audit verify"),
    Planted("clock wrong", _turn_the_clock, "clock", "the clock of PostgreSQL is", "time service"),
    Planted("no worker", _name_another_queue, "worker", "nobody-", "python -m worker"),
    Planted(
        "short memory", _use_a_forgetful_namespace, "temporal", "after 1 day", "--set-up --retention-days 30", WARNING
    ),
)


async def test_a_whole_installation_is_healthy(installation: Installation) -> None:
    report = await installation.examine()
    assert report.findings == ()
    assert report.healthy
    assert {check.state for check in report.checks} == {CheckState.DONE}


async def test_every_planted_fault_is_found_and_its_remedy_named(installation: Installation) -> None:
    for fault in PLANTED:
        await fault.plant(installation)
    report = await installation.examine()
    assert not report.healthy
    for fault in PLANTED:
        found = [one for one in report.findings if one.check == fault.check and fault.what in one.what]
        assert found, f"{fault.name} was not found in {[one.what for one in report.findings]}"
        assert found[0].severity is fault.severity, fault.name
        assert fault.remedy in found[0].remedy, fault.name
        assert found[0].why, fault.name


async def test_without_the_nodes_token_the_last_comparison_of_the_worker_counts(installation: Installation) -> None:
    installation.change("node", admin_token=None)

    async def drift() -> list[str]:
        return [one.what for one in (await installation.examine()).findings if one.check == "drift"]

    assert await drift() == ["nobody has compared what the nodes of Production run with its routes yet"]
    item = DriftItem(kind=DriftKind.EXTRA_HOST, node_id="node-live", expected="no host", found="a host")
    for age, said in ((timedelta(hours=1), "nobody has compared"), (timedelta(0), "Production: node-live: extra-host")):
        report = DriftReport(
            environment=Environment.PRODUCTION, taken_at=now() - age, nodes=1, plugins=1, items=(item,)
        )
        site = installation.site()
        async with site.database.unit_of_work() as uow:
            await uow.drift.save(report)
            await uow.commit()
        await site.close()
        assert any(what.startswith(said) for what in await drift())


async def test_an_older_schema_is_told_and_nothing_that_needs_it_is_asked(
    new_database: Callable[..., str], settings: Settings
) -> None:
    url = new_database(migrated=True)
    behind = Installation(settings, url, Path())
    behind.change("postgres", url=SecretStr(url))
    behind.sql("UPDATE alembic_version SET version_num = '0001'")
    report = await behind.examine()
    (finding,) = [one for one in report.findings if one.check == "schema"]
    assert "is at 0001" in finding.what
    assert "python -m migrations upgrade" in finding.remedy
    skipped = {check.name for check in report.checks if check.state is CheckState.SKIPPED}
    assert {"artifacts", "nodes", "freezes"} <= skipped

    behind.sql("UPDATE alembic_version SET version_num = '9999'")
    newer = await behind.examine()
    (finding,) = [one for one in newer.findings if one.check == "schema"]
    assert finding.severity is Severity.WARNING, "this release works on the next one's schema"
    assert "nodes" not in {check.name for check in newer.checks if check.state is CheckState.SKIPPED}


async def test_servers_that_are_away_are_each_named_with_their_setting(settings: Settings) -> None:
    away = Installation(settings, "", Path())
    away.change("postgres", url=SecretStr("postgresql://u:hidden@127.0.0.1:1/db"))
    away.change("redis", url=SecretStr("redis://:hidden@127.0.0.1:1/0"))
    away.change("minio", endpoint="127.0.0.1:1")
    away.change("temporal", address="127.0.0.1:1")
    report = await away.examine()
    found = {one.check: one for one in report.findings}
    for check, setting in (
        ("postgres", "HOTSWAP_POSTGRES__URL"),
        ("redis", "HOTSWAP_REDIS__URL"),
        ("object-store", "HOTSWAP_MINIO__ENDPOINT"),
        ("temporal", "HOTSWAP_TEMPORAL__"),
    ):
        assert setting in found[check].remedy
        assert "127.0.0.1:1" in found[check].what or "port 1" in found[check].what
    assert "hidden" not in report.model_dump_json()
