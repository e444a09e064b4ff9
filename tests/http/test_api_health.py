"""Health and figures of a plugin over HTTP, with nodes that say what the test wants."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from hotswap.analysis.histogram import bucket_of
from hotswap.domain.analysis import Health, HostReport, NodeFigures, VersionFigures
from hotswap.domain.deployment import Environment
from hotswap.domain.registry import NodeRecord
from hotswap.ports.health import NodeUsage, Probes, VersionUsage
from hotswap.ports.metrics import Readings
from hotswap.ports.node_runtime import ProbeReport
from tests.http.site import API, Site, error_of, make_site

PLUGIN = f"{API}/plugins/greeter"


class Nodes:
    """A ProbeSource: node-1 is well, node-2 has a crashed host, node-3 is silent."""

    async def read(self, nodes: Sequence[NodeRecord], plugin: str, since: datetime) -> Readings:
        return Readings(
            figures=tuple(self._figures(node.node_id, plugin, since) for node in nodes if node.node_id != "node-3"),
            silent=tuple(node.node_id for node in nodes if node.node_id == "node-3"),
        )

    async def probe(self, nodes: Sequence[NodeRecord], plugin: str) -> Probes:
        found = [
            ProbeReport(
                node_id=node.node_id,
                plugin=plugin,
                version="1.0.0",
                health=Health.UNHEALTHY if node.node_id == "node-2" else Health.HEALTHY,
                latency_ms=1.5,
                detail="it is down" if node.node_id == "node-2" else "",
            )
            for node in nodes
            if node.node_id != "node-3"
        ]
        return Probes(probes=tuple(found), silent=("node-3",) if len(found) < len(nodes) else ())

    async def usage(self, nodes: Sequence[NodeRecord], plugin: str) -> Sequence[NodeUsage]:
        return [
            NodeUsage(node_id=node.node_id, versions=(VersionUsage(version="1.0.0", cpu_percent=12.5),))
            for node in nodes
            if node.node_id != "node-3"
        ]

    def _figures(self, node_id: str, plugin: str, since: datetime) -> NodeFigures:
        down = node_id == "node-2"
        host = HostReport(
            plugin=plugin,
            version="1.0.0",
            state="Crashed" if down else "Ready",
            crashes=3 if down else 0,
            memory_bytes=1000,
            last_error="MEMORY_LIMIT" if down else "",
        )
        counted = VersionFigures(
            version="1.0.0",
            requests=100,
            errors=10 if down else 0,
            latency_buckets={bucket_of(2.0): 95, bucket_of(200.0): 5},
        )
        return NodeFigures(
            node_id=node_id, plugin=plugin, since=since, taken_at=datetime.now(UTC), versions=(counted,), hosts=(host,)
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = make_site(tmp_path, nodes=Nodes())
    async with AsyncExitStack() as stack:
        for user in ("admin", "viewer"):
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(made.app),
                base_url="http://api.test",
                headers={"Authorization": f"Bearer token-of-{user}"},
            )
            made.clients[user] = await stack.enter_async_context(client)
        await made.register()
        async with made.records.unit_of_work() as uow:
            places = (Environment.QA, Environment.PRODUCTION, Environment.PRODUCTION)
            for number, environment in enumerate(places, 1):
                node = NodeRecord(
                    node_id=f"node-{number}",
                    environment=environment,
                    boot_id="b",
                    router_url="http://n",
                    admin_url="http://n",
                    sandbox_tier="none",
                    last_seen_at=datetime.now(UTC),
                )
                await uow.nodes.register(node)
            await uow.commit()
        yield made
        made.container.streams.close()


async def test_health_tells_each_version_on_each_node_and_who_is_silent(site: Site) -> None:
    qa = (await site.viewer.get(f"{PLUGIN}/health?environment=QA")).json()
    assert (qa["status"], qa["silent"], len(qa["versions"])) == ("Healthy", [], 1)
    everywhere = (await site.viewer.get(f"{PLUGIN}/health")).json()
    assert (everywhere["status"], everywhere["silent"]) == ("Unhealthy", ["node-3"])
    down = everywhere["versions"][1]
    assert (down["nodeId"], down["status"], down["crashes"]) == ("node-2", "Unhealthy", 3)
    assert down["lastError"] == "MEMORY_LIMIT"
    error_of(await site.viewer.get(f"{API}/plugins/ghost/health"), 404, "NOT_FOUND")


async def test_a_check_probes_now_and_is_in_the_history(site: Site) -> None:
    found = (await site.viewer.post(f"{PLUGIN}/health-check")).json()
    assert [(one["nodeId"], one["status"]) for one in found["versions"]] == [
        ("node-1", "Healthy"),
        ("node-2", "Unhealthy"),
    ]
    seen = (await site.viewer.get(f"{PLUGIN}/health?environment=Production")).json()
    assert seen["historyTotal"] == 1
    (check,) = seen["history"]
    assert (check["status"], check["error"], check["figures"]["node"]) == ("Unhealthy", "it is down", "node-2")


async def test_figures_are_added_over_nodes_and_told_one_by_one(site: Site) -> None:
    answer = await site.viewer.get(f"{PLUGIN}/metrics?window=PT1M40S")
    seen = answer.json()
    (version,) = seen["versions"]
    assert (version["requests"], version["errorRate"], version["requestsPerSecond"]) == (200, 0.05, 2.0)
    assert 1.9 < version["p50Ms"] < 2.1
    assert 190 < version["p99Ms"] < 210
    assert (version["memoryBytes"], version["processes"]) == (2000, 2)
    assert (version["cpuPercent"], seen["nodes"][0]["cpuPercent"]) == (25.0, 12.5)
    assert [(one["nodeId"], one["errors"]) for one in seen["nodes"]] == [("node-1", 0), ("node-2", 10)]
    assert seen["silent"] == ["node-3"]
    for window in ("PT0S", "PT25H", "soon"):
        error_of(await site.viewer.get(f"{PLUGIN}/metrics?window={window}"), 400, "VALIDATION_ERROR")


async def test_without_the_nodes_token_there_is_nobody_to_ask(tmp_path: Path) -> None:
    made = make_site(tmp_path)
    transport = httpx.ASGITransport(made.app)
    headers = {"Authorization": "Bearer token-of-admin"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as client:
        await client.post(f"{API}/plugins", json={"name": "greeter"})
        error = error_of(await client.get(f"{PLUGIN}/health"), 503, "SERVICE_UNAVAILABLE")
        assert "HOTSWAP_NODE__ADMIN_TOKEN" in error["message"]
    made.container.streams.close()
