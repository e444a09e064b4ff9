"""Routers in processes of their own: what one router promises holds for all of them together."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.http.router_client import request
from tests.integration.node_bench import order
from tests.integration.routers_lab import Site, routers


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with routers(tmp_path) as made:
        yield made


async def test_vertical(site: Site) -> None:
    await site.stage(order(1, await site.version("1.0.0")))
    wires = await site.wires()
    for wire in wires:
        await wire.send(request("echo"))
        r = await wire.receive()
        assert r.status == 200, r.body
    await site.pool.refresh()
    for w in wires:
        await w.close()
