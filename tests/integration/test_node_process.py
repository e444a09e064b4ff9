"""A node as its own process on the real stack: orders by Temporal, restore, outages, figures, an orderly end."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.nodes import NodeActivities, ProbeInput, RetireInput
from hotswap.adapters.minio_artifacts import MinioArtifactStore
from hotswap.adapters.node_figures import NodeFiguresSource
from hotswap.adapters.postgres.database import Database
from hotswap.config import PostgresSettings, Settings
from hotswap.domain.deployment import Environment
from hotswap.domain.ids import node_queue
from hotswap.domain.manifest import Manifest, PluginType
from hotswap.domain.quota import QuotaOverride
from hotswap.domain.registry import NodeRecord, Plugin, PluginVersion
from hotswap.domain.routes import ArtifactRef, RouteOrder, RouteState
from hotswap.domain.signatures import PublisherKey
from hotswap.ports.node_runtime import NodeReport, ProbeReport
from hotswap.runtime import signing
from tests.http.router_client import Wire, request
from tests.integration.host_lab import alive, children_of
from tests.integration.node_bench import METHODS, TENANT_TOKEN, make_version, order, traffic
from tests.unit.node_fakes import eventually

ADMIN_TOKEN = "admin-secret"


@workflow.defn(name="OrderOneNode")
class OrderOneNode:
    """Sends one order to a node's queue, as a deployment would."""

    @workflow.run
    async def run(self, queue: str, name: str, payload: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = await workflow.execute_activity(
            name,
            payload,
            task_queue=queue,
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=1),
        )
        return result


def _cause(fault: WorkflowFailureError) -> ApplicationError:
    failed = fault.cause
    if isinstance(failed, ActivityError) and isinstance(failed.cause, ApplicationError):
        return failed.cause
    raise fault


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Node:
    """One node process and the record that it and the test share."""

    id: str
    environment: dict[str, str]
    folder: Path
    database: Database
    store: MinioArtifactStore
    client: Client
    process: asyncio.subprocess.Process | None = None
    versions: dict[str, ArtifactRef] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['HOTSWAP_NODE__ROUTER_PORT']}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.environment['HOTSWAP_NODE__ADMIN_PORT']}"

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    async def start(self, wait: bool = True) -> None:
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hotswap.node", env=self.environment, stderr=log, stdout=log
            )
        if wait:
            await eventually(ready.exists, within=60)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(20):
            return await self.process.wait()

    async def version(self, plugin: str, version: str, broken: bool = False) -> ArtifactRef:
        """Store and register one version."""
        ref = await make_version(self.store, self.folder, plugin, version, broken=broken)
        now = datetime.now(UTC)
        manifest = Manifest.model_validate(
            {
                "name": plugin,
                "version": version,
                "entryPoint": "invoice_plugin:Invoice",
                "methods": [{"name": name} for name in METHODS],
            }
        )
        async with self.database.unit_of_work() as uow:
            if not self.versions:
                await uow.plugins.add(
                    Plugin(name=plugin, display_name=plugin, type=PluginType.OTHER, created_at=now, updated_at=now)
                )
            await uow.versions.add(
                PluginVersion(
                    plugin=plugin,
                    version=version,
                    manifest=manifest,
                    digest=ref.digest,
                    size_bytes=ref.size_bytes,
                    created_by="test",
                    created_at=now,
                )
            )
            await uow.commit()
        self.versions[version] = ref
        return ref

    async def write(self, plugin: str, expected: int, state: RouteState) -> RouteOrder:
        async with self.database.unit_of_work() as uow:
            written = await uow.routes.write("QA", plugin, expected, state, "dep_test")
            await uow.commit()
        return RouteOrder(plugin=plugin, generation=written.generation, state=state)

    async def order(
        self, generation: int, stable: ArtifactRef, candidate: ArtifactRef | None = None, weight: int = 0
    ) -> RouteOrder:
        """As a workflow does it: the row first, then the order."""
        return await self.write("invoice", generation - 1, order(generation, stable, candidate, weight).state)

    async def tell(self, name: str, payload: Any) -> dict[str, Any]:
        """Send one order through Temporal. Raises the activity's ApplicationError."""
        queue = f"orders-{secrets.token_hex(4)}"
        async with Worker(
            self.client, task_queue=queue, workflows=[OrderOneNode], workflow_runner=UnsandboxedWorkflowRunner()
        ):
            try:
                result: dict[str, Any] = await self.client.execute_workflow(
                    "OrderOneNode",
                    args=[node_queue(self.id), name, payload],
                    id=queue,
                    task_queue=queue,
                )
            except WorkflowFailureError as fault:
                raise _cause(fault) from None
        return result

    async def record(self) -> NodeRecord | None:
        async with self.database.unit_of_work() as uow:
            found = await uow.nodes.list("QA", timedelta(seconds=10))
        return next((node for node in found if node.node_id == self.id), None)

    async def call(
        self, plugin: str, method: str = "echo", tenant: str = "acme", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            return await client.post(
                f"{self.url}/invoke/{tenant}/{plugin}/{method}",
                json={"n": 1},
                headers={"Authorization": f"Bearer {TENANT_TOKEN}", **(headers or {})},
            )

    async def ask(self, path: str, token: str = ADMIN_TOKEN) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return await client.get(f"{self.admin}{path}", headers=headers)


@pytest.fixture
async def make_node(
    environment: dict[str, str],
    settings: Settings,
    new_database: Callable[..., str],
    temporal_client: Client,
    tmp_path: Path,
) -> AsyncIterator[Callable[..., Node]]:
    """make_node(**variables) -> a Node that is not started yet, with a database of its own."""
    async with AsyncExitStack() as parts:
        store = MinioArtifactStore(settings.minio)
        parts.push_async_callback(store.close)
        made: list[Node] = []

        def make(**variables: str) -> Node:
            url = new_database(migrated=True)
            database = Database(PostgresSettings(url=url))
            parts.push_async_callback(database.close)
            folder = tmp_path / f"node-{len(made)}"
            folder.mkdir()
            node_id = f"node-{secrets.token_hex(4)}"
            own = {
                "PATH": os.environ["PATH"],
                "HOTSWAP_POSTGRES__URL": url,
                "HOTSWAP_NODE__ID": node_id,
                "HOTSWAP_NODE__ENVIRONMENT": "QA",
                "HOTSWAP_NODE__ROUTER_PORT": str(free_port()),
                "HOTSWAP_NODE__ADMIN_PORT": str(free_port()),
                "HOTSWAP_NODE__DATA_DIR": str(folder / "data"),
                "HOTSWAP_NODE__TENANT_TOKEN": TENANT_TOKEN,
                "HOTSWAP_NODE__ADMIN_TOKEN": ADMIN_TOKEN,
                "HOTSWAP_NODE__BEAT": "PT0.2S",
                "HOTSWAP_NODE__RECONCILE": "PT0.3S",
                "HOTSWAP_NODE__QUOTA__REQUESTS_PER_MINUTE": "1000000",
                "HOTSWAP_READY_FILE": str(folder / "ready"),
                "HOTSWAP_DIE_WITH_PARENT": "1",
            }
            node = Node(node_id, environment | own | variables, folder, database, store, temporal_client)
            made.append(node)
            return node

        yield make
        for node in made:
            if node.process is not None and node.process.returncode is None:
                await node.stop(signal.SIGKILL)


async def test_orders_arrive_by_temporal_and_their_faults_go_back(make_node: Callable[..., Node]) -> None:
    node = make_node()
    await node.start()
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    staged = NodeReport.model_validate(await node.tell("stage_version", await node.order(1, one, two)))
    assert (staged.node_id, staged.generation) == (node.id, 1)
    assert {host.state for host in staged.hosts} == {"Ready"}
    probe = ProbeReport.model_validate(await node.tell("probe_version", ProbeInput(plugin="invoice", version="2.0.0")))
    assert probe.health == "Healthy"
    applied = NodeReport.model_validate(await node.tell("apply_routes", await node.order(2, one, two, 10_000)))
    assert applied.generation == 2
    assert (await node.call("invoice")).headers["X-HotSwap-Version"] == "2.0.0"
    keep = RetireInput(order=await node.order(3, two), grace=timedelta(seconds=5))
    retired = NodeReport.model_validate(await node.tell("retire_versions", keep))
    assert [host.version for host in retired.hosts] == ["2.0.0"]

    with pytest.raises(ApplicationError) as stale:
        await node.tell("apply_routes", order(2, one))
    assert (stale.value.type, stale.value.non_retryable) == ("StaleGeneration", True)
    broken = await node.version("invoice", "3.0.0", broken=True)
    with pytest.raises(ApplicationError, match="not today") as failed:
        await node.tell("stage_version", await node.order(4, two, broken))
    assert (failed.value.type, list(failed.value.details)) == ("HostFailed", ["LOAD_FAILED"])
    assert (await node.call("invoice")).json()["version"] == "2.0.0"


@pytest.mark.parametrize("tier", ["standard", "strong"])
async def test_a_node_restores_what_it_served_and_says_ready_only_then(
    tier: str, make_node: Callable[..., Node]
) -> None:
    node = make_node(HOTSWAP_SANDBOX__TIER=tier)
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    async with node.database.unit_of_work() as uow:
        await uow.pins.pin("vip", "invoice", "2.0.0", "test")
        await uow.commit()
    await node.start()
    first = await node.record()
    assert first is not None
    assert (first.router_url, first.admin_url, first.sandbox_tier) == (node.url, node.admin, tier)
    assert (await node.ask("/ready")).status_code == 200
    assert (await node.call("invoice")).json()["version"] == "1.0.0"
    assert (await node.call("invoice", tenant="vip")).json()["version"] == "2.0.0"

    await node.stop(signal.SIGKILL)
    await node.write("invoice", 1, RouteState(stable=two))  # nobody could tell it
    await node.start()
    again = await node.record()
    assert again is not None
    assert again.boot_id != first.boot_id
    assert (await node.call("invoice")).json()["version"] == "2.0.0"


async def test_a_node_that_asks_for_signatures_loads_nothing_else(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = make_node(HOTSWAP_SIGNATURES__REQUIRED_IN='["QA"]')
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    key = signing.generate(tmp_path / "key.pem")
    signature = signing.sign(signing.read_private(tmp_path / "key.pem"), one.digest)
    async with node.database.unit_of_work() as uow:
        now = datetime.now(UTC)
        await uow.publisher_keys.add(
            PublisherKey(
                key_id=signature.key_id, publisher="acme", public_key=key, registered_by="test", registered_at=now
            )
        )
        signed = (await uow.versions.get("invoice", "1.0.0")).model_copy(update={"signature": signature})
        await uow.versions.move(signed, signed.status)
        await uow.commit()
    await node.start()
    staged = NodeReport.model_validate(await node.tell("stage_version", await node.order(1, one)))
    assert [host.state for host in staged.hosts] == ["Ready"]
    with pytest.raises(ApplicationError, match=r"invoice 2\.0\.0 carries no signature") as refused:
        await node.tell("stage_version", await node.order(2, one, two))
    assert (refused.value.type, refused.value.non_retryable) == ("SignatureRefused", True)
    assert not (node.folder / "data" / "bundles" / two.digest).exists()
    assert (await node.call("invoice")).json()["version"] == "1.0.0"


async def test_a_tenants_configuration_and_the_callers_trace_reach_the_plugin(make_node: Callable[..., Node]) -> None:
    node = make_node()
    await node.write("invoice", 0, RouteState(stable=await node.version("invoice", "1.0.0")))
    put = (
        "INSERT INTO tenant_plugin_configs (config_id, tenant_id, plugin_id, configuration, enabled_by)"
        " VALUES ('c', 'acme', 'invoice', %s, 'test') ON CONFLICT (tenant_id, plugin_id) DO UPDATE SET"
        " configuration = excluded.configuration, updated_at = clock_timestamp()"
    )
    with psycopg.connect(node.environment["HOTSWAP_POSTGRES__URL"], autocommit=True) as record:
        record.execute(put, ('{"region": "eu"}',))
        await node.start()
        trace = "0af7651916cd43dd8448eb211c80319c"
        answer = await node.call("invoice", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        assert (answer.json()["config"], answer.json()["trace"]) == ({"region": "eu"}, trace)
        assert (await node.call("invoice", tenant="globex")).json()["config"] == {}
        record.execute(put, ('{"region": "us"}',))
    async with asyncio.timeout(20):
        while (answer := await node.call("invoice")).json()["config"] != {"region": "us"}:
            await asyncio.sleep(0.05)
    hosts = (await node.ask("/figures?plugin=invoice&since=2026-01-01T00:00:00Z")).json()["hosts"]
    assert [host["crashes"] for host in hosts] == [0]


async def test_one_version_that_cannot_load_does_not_block_the_others(make_node: Callable[..., Node]) -> None:
    node = make_node()
    good = await node.version("invoice", "1.0.0")
    broken = await node.version("invoice", "2.0.0", broken=True)
    await node.write("invoice", 0, RouteState(stable=good, candidate=broken))
    await node.start()
    assert (await node.call("invoice")).json()["version"] == "1.0.0"
    figures = (await node.ask("/figures?plugin=invoice&since=2026-01-01T00:00:00Z")).json()
    assert {host["version"]: host["state"] for host in figures["hosts"]} == {"1.0.0": "Ready", "2.0.0": "Crashed"}


async def test_reconciliation_repairs_a_missed_order(make_node: Callable[..., Node]) -> None:
    node = make_node()
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    await node.start()
    await node.write("invoice", 1, RouteState(stable=two))

    async def serves(version: str) -> bool:
        return bool((await node.call("invoice")).json()["version"] == version)

    async with asyncio.timeout(10):
        while not await serves("2.0.0"):
            await asyncio.sleep(0.05)
    await node.write("invoice", 2, RouteState())
    async with asyncio.timeout(10):
        while (await node.call("invoice")).status_code != 404:
            await asyncio.sleep(0.05)


async def test_postgresql_away_keeps_serving_and_is_logged_once(make_node: Callable[..., Node]) -> None:
    node = make_node()
    one = await node.version("invoice", "1.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    await node.start()
    name = node.environment["HOTSWAP_POSTGRES__URL"].rpartition("/")[2]
    server = node.environment["HOTSWAP_POSTGRES__URL"].rpartition("/")[0] + "/postgres"
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as admin:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        try:
            await node.database.close()
            await admin.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            await eventually(lambda: "PostgreSQL is away" in node.log.read_text(), within=15)
            async with traffic(node.url, "invoice") as seen:
                await eventually(lambda: seen.requests >= 500, within=15)
            assert seen.refused == []
            assert (await node.ask("/ready")).status_code == 200
        finally:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    await eventually(lambda: "PostgreSQL is back" in node.log.read_text(), within=15)
    assert node.log.read_text().count("PostgreSQL is away") == 1


async def test_a_node_waits_for_postgresql_at_boot(make_node: Callable[..., Node]) -> None:
    node = make_node()
    one = await node.version("invoice", "1.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    server = node.environment["HOTSWAP_POSTGRES__URL"].rpartition("/")[0] + "/postgres"
    name = node.environment["HOTSWAP_POSTGRES__URL"].rpartition("/")[2]
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as admin:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        await node.start(wait=False)
        await eventually(lambda: node.log.exists() and "PostgreSQL is away" in node.log.read_text(), within=20)
        waiting = await node.ask("/ready")
        assert (waiting.status_code, waiting.json()["ready"]) == (503, False)
        assert "PostgreSQL" in waiting.json()["waitingFor"]
        with pytest.raises(httpx.ConnectError):  # refused, so that a balancer asks another node
            await node.call("invoice")
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    await eventually((node.folder / "ready").exists, within=20)
    assert (await node.call("invoice")).json()["version"] == "1.0.0"


async def test_quotas_hold_and_a_tenant_s_own_row_is_followed(make_node: Callable[..., Node]) -> None:
    node = make_node(HOTSWAP_NODE__QUOTA__REQUESTS_PER_MINUTE="3")
    one = await node.version("invoice", "1.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    async with node.database.unit_of_work() as uow:
        await uow.quotas.set("vip", "invoice", QuotaOverride(requests_per_minute=1000), "test")
        await uow.commit()
    await node.start()
    assert [(await node.call("invoice")).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert [(await node.call("invoice", tenant="vip")).status_code for _ in range(6)] == [200] * 6
    async with node.database.unit_of_work() as uow:
        await uow.quotas.set("acme", "invoice", QuotaOverride(requests_per_minute=1000), "test")
        await uow.commit()
    async with asyncio.timeout(10):
        while (await node.call("invoice")).status_code != 200:
            await asyncio.sleep(0.05)
    assert 'hotswap_router_refused_total{reason="requestsPerMinute"}' in (await node.ask("/metrics")).text


async def test_a_change_of_a_tenant_reaches_the_node_by_word_not_by_its_beat(make_node: Callable[..., Node]) -> None:
    node = make_node(HOTSWAP_NODE__RECONCILE="PT1H")
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    await node.order(1, one)
    await node.start()

    async def change(**changes: object) -> None:
        async with node.database.unit_of_work() as uow:
            row = await uow.tenants.hold("acme", "invoice", "ada")
            await uow.tenants.save(row.model_copy(update=changes))
            await uow.commit()

    async def answers(status: int, version: str) -> None:
        async with asyncio.timeout(60):
            while True:
                answer = await node.call("invoice")
                if (answer.status_code, answer.headers.get("X-HotSwap-Version", "")) == (status, version):
                    return
                await asyncio.sleep(0.02)

    await answers(200, "1.0.0")
    await change(pinned_version=two.version)
    await answers(200, "2.0.0")
    await change(enabled=False)
    await answers(403, "")
    await change(enabled=True, quotas=QuotaOverride(requests_per_minute=1))
    await answers(429, "")
    used = (await node.ask("/usage?plugin=invoice")).json()
    assert {one["version"] for one in used["versions"]} == {"1.0.0", "2.0.0"}, used
    assert (await node.ask("/usage?plugin=invoice", token="")).status_code == 401


async def test_temporal_away_keeps_serving(make_node: Callable[..., Node]) -> None:
    node = make_node(HOTSWAP_TEMPORAL__ADDRESS=f"127.0.0.1:{free_port()}")
    one = await node.version("invoice", "1.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    await node.start()
    assert (await node.call("invoice")).json()["version"] == "1.0.0"
    assert "serving without Temporal" in node.log.read_text()
    assert await node.stop() == 0


async def test_switches_by_temporal_under_load_lose_no_request(make_node: Callable[..., Node]) -> None:
    node = make_node()
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    await node.start()
    await node.tell("stage_version", await node.order(1, one))
    grace = timedelta(seconds=5)
    async with traffic(node.url, "invoice") as seen:
        await eventually(lambda: seen.requests >= 300, within=20)
        await node.tell("stage_version", await node.order(2, one, two))
        for generation, weight in enumerate((1_000, 5_000, 10_000), 3):
            await node.tell("apply_routes", await node.order(generation, one, two, weight))
        await node.tell("retire_versions", RetireInput(order=await node.order(6, two), grace=grace))
        await eventually(lambda before=seen.requests: seen.requests >= before + 300, within=20)
        await node.tell("stage_version", await node.order(7, one))  # and back
        await node.tell("retire_versions", RetireInput(order=await node.order(8, one), grace=grace))
        await eventually(lambda before=seen.requests: seen.requests >= before + 300, within=20)
    assert seen.refused == []
    assert seen.requests > 1000
    assert min(seen.versions.values()) > 200


async def test_figures_reach_the_platform_and_a_silent_node_is_named(make_node: Callable[..., Node]) -> None:
    node = make_node()
    one = await node.version("invoice", "1.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    await node.start()
    for _ in range(5):
        await node.call("invoice")
    await node.call("invoice", "boom")
    record = await node.record()
    assert record is not None
    dead = record.model_copy(update={"node_id": "node-dead", "admin_url": f"http://127.0.0.1:{free_port()}"})
    impostor = record.model_copy(update={"node_id": "node-other"})
    source = NodeFiguresSource(ADMIN_TOKEN)
    since = datetime.now(UTC) - timedelta(minutes=1)
    readings = await source.read([record, dead, impostor], "invoice", since)
    assert readings.silent == ("node-dead", "node-other")
    [told] = readings.figures
    assert (told.node_id, told.generation, told.candidate_weight) == (node.id, 1, 0)
    [version] = told.versions
    assert (version.requests, version.errors) == (6, 1)
    assert sum(version.latency_buckets.values()) == 6
    await source.close()
    stranger = NodeFiguresSource("wrong")
    assert (await stranger.read([record], "invoice", since)).silent == (node.id,)
    await stranger.close()


async def test_the_admin_port_answers_the_platform(make_node: Callable[..., Node]) -> None:
    node = make_node()
    one = await node.version("invoice", "1.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    await node.start()
    await node.call("invoice")
    assert (await node.ask("/health", token="")).status_code == 200
    text = (await node.ask("/metrics", token="")).text
    label = 'environment="QA",outcome="ok",plugin="invoice",version="1.0.0"'
    assert f"plugin_invocations_total{{{label}}} 1.0" in text
    assert 'plugin_load_duration_seconds_count{environment="QA",plugin="invoice",version="1.0.0"} 1.0' in text
    assert "plugins_active 1.0" in text
    assert "plugin_execution_duration_seconds_bucket" in text
    for query, field_name in (
        ("", "plugin"),
        ("?plugin=invoice", "since"),
        ("?plugin=invoice&since=yesterday", "since"),
        ("?plugin=invoice&since=2026-01-01T00:00:00", "since"),
        ("?plugin=NOT%20A%20NAME&since=2026-01-01T00:00:00Z", "plugin"),
    ):
        answer = await node.ask(f"/figures{query}")
        assert answer.status_code == 400, query
        assert answer.json()["error"]["code"] == "VALIDATION_ERROR"
        assert field_name in {fault["field"] for fault in answer.json()["error"]["details"]}
    assert (await node.ask("/figures?plugin=a&since=2026-01-01T00:00:00Z", token="no")).status_code == 401
    assert (await node.ask("/nothing")).json()["error"]["code"] == "NOT_FOUND"


async def test_standby_and_eviction_are_set_by_settings(make_node: Callable[..., Node]) -> None:
    node = make_node(HOTSWAP_NODE__STANDBY='["invoice"]', HOTSWAP_NODE__MEMORY_BUDGET_MB="1")
    await node.write("invoice", 0, RouteState(stable=await node.version("invoice", "1.0.0")))
    await node.start()

    async def seen(line: str) -> None:
        async with asyncio.timeout(20):
            while line not in (await node.ask("/metrics")).text:
                await asyncio.sleep(0.02)

    await seen('hotswap_hosts{state="Standby"} 1.0')
    await seen('hotswap_hosts{state="Evicted"} 2.0')
    await seen("hotswap_memory_budget_bytes 1048576.0")
    assert (await node.call("invoice")).status_code == 200
    await seen("hotswap_reloads_total 1.0")


@dataclass
class Caller:
    """A keep-alive client that sends all the time and repeats nothing. Told to close it connects anew, once to the same node,
    as when its balancer has not noticed yet, and then elsewhere.
    """

    port: int
    answered: int = 0
    connections: int = 0
    lost: list[str] = field(default_factory=list)

    async def run(self) -> None:
        while self.connections < 2:
            try:
                wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
            except ConnectionRefusedError:
                return
            self.connections += 1
            try:
                await self._use(wire)
            except (EOFError, ConnectionError) as fault:
                self.lost.append(repr(fault))
                return
            finally:
                await wire.close()

    async def _use(self, wire: Wire) -> None:
        while True:
            await wire.send(request())
            answer = await wire.receive()
            if answer.status != 200:
                self.lost.append(str(answer))
            self.answered += 1
            if answer.headers.get("connection") == "close":
                return


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.transport.abort()
    return True


@pytest.mark.parametrize("routers", ["1", "2"])
async def test_sigterm_loses_no_request_and_leaves_the_record(make_node: Callable[..., Node], routers: str) -> None:
    """Docs: data-plane.md, "Stopping a node"."""
    node = make_node(
        HOTSWAP_NODE__ROUTERS=routers,
        HOTSWAP_NODE__QUOTA__CONCURRENT="100",
        HOTSWAP_NODE__DRAIN_DELAY="PT0.5S",
        HOTSWAP_NODE__DRAIN_IDLE="PT60S",
    )
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    await node.start()
    port = int(node.environment["HOTSWAP_NODE__ROUTER_PORT"])
    idle, slow = [Wire(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(2)]
    await idle.send(request())
    assert "connection" not in (await idle.receive()).headers
    await slow.send(request("slow", body=b'{"seconds": 2}'))
    [host] = (await node.ask("/figures?plugin=invoice&since=2026-01-01T00:00:00Z")).json()["hosts"]
    assert node.process is not None
    children = children_of(node.process.pid)
    assert len(children) == (1 if routers == "1" else 3)  # the zygote, and routers of their own
    callers = [Caller(port) for _ in range(8)]
    calling = asyncio.gather(*(caller.run() for caller in callers))
    await eventually(lambda: all(caller.answered for caller in callers), within=20)

    stopping = asyncio.create_task(node.stop())
    while (await node.ask("/ready")).status_code == 200:
        await asyncio.sleep(0.01)
    await calling
    while await listens(port):
        await asyncio.sleep(0.05)
    await node.write("invoice", 1, RouteState(stable=two))  # and no order comes any more
    while (await node.ask("/figures?plugin=invoice&since=2026-01-01T00:00:00Z")).json()["generation"] != 2:
        await asyncio.sleep(0.02)
    await idle.send(request())
    for wire, version in ((idle, "2.0.0"), (slow, "1.0.0")):
        last = await wire.receive()
        told = (last.status, last.headers["connection"], last.headers["x-hotswap-version"])
        assert told == (200, "close", version)
    await idle.close()
    await slow.close()
    assert await stopping == 0
    assert [caller.lost for caller in callers] == [[]] * len(callers)
    assert sum(caller.connections for caller in callers) > len(callers), "not ready, it still took new connections"
    assert await node.record() is None
    assert not any(alive(pid) for pid in (host["pid"], *children))


async def test_a_killed_node_takes_its_hosts_and_routers_along(make_node: Callable[..., Node]) -> None:
    node = make_node(HOTSWAP_NODE__ROUTERS="2")
    one = await node.version("invoice", "1.0.0")
    await node.write("invoice", 0, RouteState(stable=one))
    await node.start()
    [host] = (await node.ask("/figures?plugin=invoice&since=2026-01-01T00:00:00Z")).json()["hosts"]
    assert node.process is not None
    family = {host["pid"], *children_of(node.process.pid)}
    assert len(family) == 4
    await node.stop(signal.SIGKILL)
    await eventually(lambda: not any(alive(pid) for pid in family))


async def test_a_node_refuses_to_start_unsafe(make_node: Callable[..., Node]) -> None:
    node = make_node(HOTSWAP_SANDBOX__TIER="none", HOTSWAP_NODE__ENVIRONMENT=Environment.PRODUCTION)
    del node.environment["HOTSWAP_NODE__ADMIN_TOKEN"]
    node.environment["HOTSWAP_SANDBOX__PRELOAD"] = '["json", "jsonn.decoder"]'
    node.environment |= {"HOTSWAP_NODE__REPLACE": "true", "HOTSWAP_NODE__ROUTERS": "2"}
    await node.start(wait=False)
    assert node.process is not None
    assert await node.process.wait() == 2
    assert "HOTSWAP_NODE__REPLACE=true does not go with HOTSWAP_NODE__ROUTERS=2" in node.log.read_text()
    assert "HOTSWAP_SANDBOX__PRELOAD: there is no module 'jsonn.decoder'" in node.log.read_text()
    assert "HOTSWAP_NODE__ADMIN_TOKEN" in node.log.read_text()
    assert "HOTSWAP_SANDBOX__TIER=none is never accepted for Production" in node.log.read_text()


def test_the_names_of_the_activities_are_the_agreed_ones() -> None:
    names = {
        definition.name
        for method in vars(NodeActivities).values()
        if callable(method) and (definition := activity._Definition.from_callable(method))
    }
    assert names >= {"stage_version", "apply_routes", "probe_version", "retire_versions"}
