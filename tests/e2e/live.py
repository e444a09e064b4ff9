"""A whole live system for the end-to-end tests, and the questions they ask it. Everything is real; nothing is mocked."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import httpx

from hotswap.adapters.node_figures import NodeFiguresSource
from hotswap.adapters.postgres.database import Database
from hotswap.cli.client import ApiClient
from hotswap.cli.plugins import push_bundle, read_bundle
from hotswap.config import Settings, load_settings
from hotswap.demo.rollout import Rollout, connection_of
from hotswap.demo.traffic import Payload, TrafficGenerator
from hotswap.domain.analysis import NodeFigures
from hotswap.domain.deployment import TimelineEvent
from hotswap.domain.registry import AuditEntry, NodeRecord, Page
from hotswap.domain.routes import RouteRecord
from hotswap.embedded.stack import EmbeddedStack
from hotswap.runtime.build import build_plugin, init_plugin
from tests.stack.otlp import OtlpReceiver

ENVIRONMENT = "Development"
CALLS = [Payload("greet", {"name": "Ada"})]


class Live:
    """The running stack with clients of its api, its database and its nodes."""

    def __init__(
        self, stack: EmbeddedStack, scratch: Path, settings: Settings, spans: OtlpReceiver | None = None
    ) -> None:
        self.stack = stack
        self.settings = settings
        self.spans = spans
        """What api, worker and nodes export, where somebody listens."""
        self.database = Database(settings.postgres)
        self.figures = NodeFiguresSource(stack.environment["HOTSWAP_NODE__ADMIN_TOKEN"])
        self.api = ApiClient(connection_of(stack.info, "admin"))
        self.approver = ApiClient(connection_of(stack.info, "approver"))
        self._scratch = scratch

    async def __aenter__(self) -> Self:
        self._open = AsyncExitStack()
        await self._open.enter_async_context(self.api)
        await self._open.enter_async_context(self.approver)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()
        await self.figures.close()
        await self.database.close()

    async def new_plugin(self, *versions: str, code: Callable[[str], str] = lambda text: text) -> str:
        """A fresh plugin with these versions in the registry; `code` may change the last version's source."""
        name = f"greeter-{uuid.uuid4().hex[:8]}"
        for version in versions:
            folder = self._scratch / name / version
            init_plugin(folder, name)
            manifest = folder / "plugin.toml"
            manifest.write_text(manifest.read_text().replace('version = "0.1.0"', f'version = "{version}"'))
            if version == versions[-1]:
                module = next(folder.glob("*.py"))
                module.write_text(code(module.read_text()))
            built = await asyncio.to_thread(build_plugin, folder, folder / "out.zip")
            await push_bundle(self.api, read_bundle(built.path), "")
        return name

    def body(self, plugin: str, version: str, strategy: str, **config: Any) -> dict[str, Any]:
        return {
            "pluginId": plugin,
            "version": version,
            "environment": ENVIRONMENT,
            "strategy": strategy,
            "config": {"drainGrace": "PT2S", **config},
        }

    async def deploy(self, plugin: str, version: str, strategy: str = "Direct", **config: Any) -> Rollout:
        """Deploy and wait for the end."""
        rollout = await Rollout.start(self.api, self.body(plugin, version, strategy, **config))
        async with rollout:
            return await rollout.until_over()

    @asynccontextmanager
    async def traffic(self, plugin: str, rate: float = 120.0) -> AsyncIterator[TrafficGenerator]:
        urls = [node["routerUrl"] for node in self.stack.info["nodes"]]
        generator = TrafficGenerator(urls, self.stack.info["tenantToken"], plugin, CALLS, tenants=60, rate=rate)
        await generator.start()
        try:
            yield generator
        finally:
            await generator.stop()

    async def route(self, plugin: str) -> RouteRecord:
        async with self.database.unit_of_work() as uow:
            record = await uow.routes.current(ENVIRONMENT, plugin)
        assert record is not None
        return record

    async def route_history(self, plugin: str, deployment_id: str) -> list[RouteRecord]:
        """What one deployment wrote, oldest first."""
        async with self.database.unit_of_work() as uow:
            records, _ = await uow.routes.history(ENVIRONMENT, plugin, Page(limit=100))
        return [record for record in reversed(records) if record.deployment_id == deployment_id]

    async def events(self, deployment_id: str) -> Sequence[TimelineEvent]:
        async with self.database.unit_of_work() as uow:
            return await uow.deployments.events(deployment_id)

    async def audit(self, deployment_id: str) -> Sequence[AuditEntry]:
        async with self.database.unit_of_work() as uow:
            entries, _ = await uow.audit.list(deployment_id, None, Page(limit=100))
        return entries

    async def nodes(self) -> Sequence[NodeRecord]:
        async with self.database.unit_of_work() as uow:
            return await uow.nodes.list(ENVIRONMENT, timedelta(seconds=5))

    async def node_figures(self, plugin: str) -> Sequence[NodeFigures]:
        """What the live nodes say of themselves now; a silent one is missing."""
        async with self.database.unit_of_work() as uow:
            now = await uow.now()
        return (await self.figures.read(await self.nodes(), plugin, now - timedelta(seconds=60))).figures

    async def invoke(self, plugin: str, tenant: str = "acme", node: int = 0) -> httpx.Response:
        url = self.stack.info["nodes"][node]["routerUrl"]
        headers = {"Authorization": f"Bearer {self.stack.info['tenantToken']}"}
        async with httpx.AsyncClient(timeout=10) as client:
            return await client.post(f"{url}/invoke/{tenant}/{plugin}/greet", json={"name": "Ada"}, headers=headers)


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, within: float = 60.0) -> None:
    """Look until it holds; fails saying what did not."""
    try:
        async with asyncio.timeout(within):
            while not await holds():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {within:.0f} s") from None


def live_settings(stack: EmbeddedStack, monkeypatch_setenv: Callable[[str, str], None]) -> Settings:
    for name, value in stack.environment.items():
        monkeypatch_setenv(name, value)
    return load_settings()
