"""Reads live figures and inventories from the nodes themselves, over their admin port (hotswap.node.admin).

Implements FiguresSource, InventorySource and ProbeSource.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import httpx
from pydantic import ValidationError

from hotswap.domain.analysis import NodeFigures
from hotswap.domain.drift import NodeInventory
from hotswap.domain.registry import NodeRecord
from hotswap.ports.health import NodeProbes, NodeUsage, Probes
from hotswap.ports.inventory import Inventories
from hotswap.ports.metrics import Readings
from hotswap.tracing import traceparent_headers

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""A full histogram of one version is under 12 KiB; 50 versions and their hosts, or 1,000 plugins, are far below this."""


class NodeFiguresSource:
    """One shared client for all nodes. `close` when done."""

    def __init__(self, admin_token: str, timeout: timedelta = timedelta(seconds=2)) -> None:
        """`timeout` bounds each node's whole answer."""
        self._timeout = timeout.total_seconds()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {admin_token}"},
            timeout=self._timeout,
            trust_env=False,  # nodes are neighbours: no proxy between
            follow_redirects=False,
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=50),
        )
        self._silent: set[str] = set()

    async def read(self, nodes: Sequence[NodeRecord], plugin: str, since: datetime) -> Readings:
        """Ask every node at once. A node that does not answer, or answers nonsense, is named in `silent`."""
        answers = await asyncio.gather(*(self._ask(node, plugin, since) for node in nodes))
        return Readings(
            figures=tuple(answer for answer in answers if answer is not None),
            silent=tuple(node.node_id for node, answer in zip(nodes, answers, strict=True) if answer is None),
        )

    async def inventories(self, nodes: Sequence[NodeRecord]) -> Inventories:
        """Ask every node at once what it runs; `silent` as for figures."""
        answers = await asyncio.gather(*(self._ask_inventory(node) for node in nodes))
        return Inventories(
            inventories=tuple(answer for answer in answers if answer is not None),
            silent=tuple(node.node_id for node, answer in zip(nodes, answers, strict=True) if answer is None),
        )

    async def probe(self, nodes: Sequence[NodeRecord], plugin: str) -> Probes:
        """Let every node probe what it hosts of the plugin, all at once; `silent` as for figures."""
        answers = await asyncio.gather(*(self._ask_probe(node, plugin) for node in nodes))
        return Probes(
            probes=tuple(probe for answer in answers if answer is not None for probe in answer.probes),
            silent=tuple(node.node_id for node, answer in zip(nodes, answers, strict=True) if answer is None),
        )

    async def usage(self, nodes: Sequence[NodeRecord], plugin: str) -> Sequence[NodeUsage]:
        """What the plugin's processes use now, asked of every node at once."""
        answers = await asyncio.gather(*(self._ask_usage(node, plugin) for node in nodes))
        return [answer for answer in answers if answer is not None]

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, node: NodeRecord, plugin: str, since: datetime) -> NodeFigures | None:
        parameters = {"plugin": plugin, "since": since.isoformat()}

        def read(content: bytes) -> NodeFigures:
            figures = NodeFigures.model_validate_json(content)
            if (figures.node_id, figures.plugin) != (node.node_id, plugin):
                raise ValueError(f"it calls itself {figures.node_id} and speaks of {figures.plugin}")
            return figures

        return await self._answer(node, "figures", parameters, read)

    async def _ask_inventory(self, node: NodeRecord) -> NodeInventory | None:
        def read(content: bytes) -> NodeInventory:
            inventory = NodeInventory.model_validate_json(content)
            if inventory.node_id != node.node_id:
                raise ValueError(f"it calls itself {inventory.node_id}")
            return inventory

        return await self._answer(node, "inventory", {}, read)

    async def _ask_probe(self, node: NodeRecord, plugin: str) -> NodeProbes | None:
        def read(content: bytes) -> NodeProbes:
            probes = NodeProbes.model_validate_json(content)
            if {probes.node_id, *(probe.node_id for probe in probes.probes)} != {node.node_id}:
                raise ValueError(f"it calls itself {probes.node_id}")
            return probes

        return await self._answer(node, "probe", {"plugin": plugin}, read, "POST")

    async def _ask_usage(self, node: NodeRecord, plugin: str) -> NodeUsage | None:
        def read(content: bytes) -> NodeUsage:
            usage = NodeUsage.model_validate_json(content)
            if usage.node_id != node.node_id:
                raise ValueError(f"it calls itself {usage.node_id}")
            return usage

        return await self._answer(node, "usage", {"plugin": plugin}, read)

    async def _answer(
        self, node: NodeRecord, what: str, parameters: dict[str, str], read: Callable[[bytes], T], method: str = "GET"
    ) -> T | None:
        try:
            async with asyncio.timeout(self._timeout):
                answer = read(await self._get(node, what, parameters, method))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValidationError, ValueError) as fault:
            if node.node_id not in self._silent:  # once an outage, not once a look
                self._silent.add(node.node_id)
                log.warning("%s tells no %s: %s %s", node.node_id, what, type(fault).__name__, str(fault)[:300])
            return None
        self._silent.discard(node.node_id)
        return answer

    async def _get(self, node: NodeRecord, what: str, parameters: dict[str, str], method: str) -> bytes:
        url = f"{node.admin_url.rstrip('/')}/{what}"
        async with self._client.stream(method, url, params=parameters, headers=traceparent_headers()) as answer:
            answer.raise_for_status()
            content = bytearray()
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise ValueError(f"its answer is over {MAX_ANSWER_BYTES} bytes")
        return bytes(content)
