"""A node's process is replaced while it serves: real processes on the real stack, keep-alive traffic, no request lost."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from activities.nodes import RetireInput
from hotswap.adapters.node_figures import NodeFiguresSource
from hotswap.ports.node_runtime import NodeReport
from tests.integration.node_bench import TENANT_TOKEN, traffic
from tests.integration.test_node_process import ADMIN_TOKEN, Node, make_node
from tests.unit.node_fakes import eventually

__all__ = ["make_node"]


def children_of(pid: int) -> set[int]:
    """Every living descendant: the zygote, its helpers and its hosts."""
    found: set[int] = set()
    for task in Path("/proc", str(pid), "task").glob("*"):
        for child in (task / "children").read_text().split():
            found |= {int(child)} | children_of(int(child))
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path("/proc", str(pid)).exists()}


async def replace(node: Node, **variables: str) -> asyncio.subprocess.Process:
    """Start the next process of the node and await that it serves; the one before, which is on its way out."""
    before = node.process
    assert before is not None
    node.environment |= {"HOTSWAP_NODE__REPLACE": "true"} | variables
    await node.start()
    return before


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(60):
        return await process.wait()


@pytest.mark.long
async def test_a_node_is_replaced_again_and_again_under_traffic_and_in_the_middle_of_a_rollout(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(HOTSWAP_NODE__ADMIN_PORT="0")
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    await node.order(1, one)
    await node.start()
    boots = {(await node.record()).boot_id}  # type: ignore[union-attr]
    began = datetime.now(UTC)
    extra: Counter[str] = Counter()
    async with traffic(node.url, "invoice", callers=3) as seen:

        async def more(requests: int = 100) -> None:
            await eventually(lambda upto=seen.requests + requests: seen.requests >= upto, within=60)

        async def replaced() -> None:
            assert node.process is not None
            family = children_of(node.process.pid)
            await more()
            token, forever = {"Authorization": f"Bearer {TENANT_TOKEN}"}, httpx.Limits(keepalive_expiry=None)
            async with httpx.AsyncClient(headers=token, limits=forever, trust_env=False, timeout=20) as idle:
                echo = f"{node.url}/invoke/acme/invoice/echo"
                first = await idle.post(echo, json={})
                assert "connection" not in first.headers
                before = await replace(node)
                last = await idle.post(echo, json={})  # by the old process, over the connection that it still has
                assert (last.status_code, last.headers.get("connection")) == (200, "close")
                extra.update(answer.headers["X-HotSwap-Version"] for answer in (first, last))
            assert await ended(before) == 0
            assert alive(family) == set()
            boots.add((await node.record()).boot_id)  # type: ignore[union-attr]
            await more()

        await replaced()
        await node.tell("stage_version", await node.order(2, one, two))
        await node.tell("apply_routes", await node.order(3, one, two, 5_000))
        await more()
        shift = await node.order(4, one, two, 10_000)
        told, _ = await asyncio.gather(node.tell("apply_routes", shift), replaced())  # whoever polls just then
        applied = NodeReport.model_validate(told)
        assert (applied.generation, {host.state for host in applied.hosts}) == (4, {"Ready"})
        keep = RetireInput(order=await node.order(5, two), grace=timedelta(seconds=5))
        retired = NodeReport.model_validate(await node.tell("retire_versions", keep))
        assert [host.version for host in retired.hosts] == ["2.0.0"]
    assert seen.refused == []
    assert set(seen.versions) == {"1.0.0", "2.0.0"}
    assert len(boots) == 3
    source = NodeFiguresSource(ADMIN_TOKEN)
    record = await node.record()
    assert record is not None
    figures = (await source.read([record], "invoice", began)).figures[0]
    await source.close()
    assert {one.version: one.requests for one in figures.versions} == dict(seen.versions + extra)
    assert await node.stop() == 0
    assert await node.record() is None


async def test_a_next_process_that_dies_before_it_serves_leaves_the_one_before_serving(
    make_node: Callable[..., Node],
) -> None:
    node = make_node()
    one, two = await node.version("invoice", "1.0.0"), await node.version("invoice", "2.0.0")
    await node.order(1, one)
    await node.start()
    serving, record = node.process, await node.record()
    assert serving is not None
    assert record is not None
    url = node.environment["HOTSWAP_POSTGRES__URL"]
    async with traffic(node.url, "invoice", callers=1) as seen, await psycopg.AsyncConnection.connect(url) as holder:
        await holder.execute("SELECT * FROM nodes FOR UPDATE")  # the next one will stand before its own row
        node.environment["HOTSWAP_NODE__REPLACE"] = "true"
        await node.start(wait=False)
        async with asyncio.timeout(60), await psycopg.AsyncConnection.connect(url, autocommit=True) as watcher:
            while not await _waits_to_register(watcher):
                await asyncio.sleep(0.02)
        assert node.process is not None
        family = children_of(node.process.pid)
        assert len(family) > 1, "it has loaded what it wants to serve"
        await node.stop(signal.SIGKILL)
        await holder.rollback()
        await eventually(lambda: "serving on" in node.log.read_text(), within=60)
        await eventually(lambda: not alive(family), within=60)
        node.process = serving
        applied = NodeReport.model_validate(await node.tell("stage_version", await node.order(2, one, two)))
        assert applied.generation == 2
        await eventually(lambda upto=seen.requests + 50: seen.requests >= upto, within=60)
    assert seen.refused == []
    again = await node.record()
    assert again is not None
    assert (again.boot_id, serving.returncode) == (record.boot_id, None)
    assert await ended(await replace(node)) == 0  # the next one makes it


async def _waits_to_register(watcher: psycopg.AsyncConnection) -> bool:
    found = await watcher.execute(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND query LIKE 'INSERT INTO nodes%'"
    )
    return await found.fetchone() is not None
