"""The facade over in-memory twins: a Site is one app with its container, a client for each role, and shortcuts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.routing import BaseRoute

from api.app import create_app
from api.dependencies import Container
from hotswap.adapters.local_limits import LocalRateLimiter
from hotswap.adapters.memory.artifacts import MemoryArtifactStore
from hotswap.adapters.memory.events import MemoryEventBus
from hotswap.adapters.memory.records import MemoryRecords
from hotswap.config import Settings
from hotswap.domain.deployment import DeploymentProgress, TimelineEvent
from hotswap.domain.ids import artifact_key
from hotswap.domain.lifecycle import DeploymentStatus, VersionStatus
from hotswap.domain.routes import ArtifactRef, RouteState
from hotswap.identity.passwords import Passwords
from hotswap.ports.health import ProbeSource
from hotswap.ports.keys import KeyProvider
from hotswap.ports.records import DeploymentRow
from tests.http.bundles import bundle, sha256
from tests.http.fake_promotions import FakePromotions
from tests.http.fake_rollouts import FakeRollouts
from tests.http.fake_sandboxes import FakeSandboxes

_PREPARED: list[BaseRoute] = []

API = "/api/v1"
MAX_BYTES = 64 * 1024
KEY_ENCRYPTION_KEY = "k" * 43
PEOPLE = {
    "admin": "Admin",
    "developer": "Developer",
    "approver": "Approver",
    "viewer": "Viewer",
    "owner": "TenantOwner",
}


def make_settings(tmp_path: Path, **more: Any) -> Settings:
    users = [
        {"user": user, "roles": [role], "token": f"token-of-{user}", "tenants": ["acme"] if user == "owner" else []}
        for user, role in PEOPLE.items()
    ]
    groups = {"api": {}, "auth": {}} | more
    return Settings(
        _env_file=None,
        postgres={"url": "postgresql://nobody@localhost/none"},
        redis={"url": "redis://localhost:1/0"},
        minio={"endpoint": "localhost:1", "access_key": "a", "secret_key": "b"},
        temporal={"ui_url": "http://temporal.test", "namespace": "default"},
        api={"development_users": users, "rate_limit_factor": 1000} | groups.pop("api"),
        auth={"key_encryption_key": KEY_ENCRYPTION_KEY, "key_activation": 0} | groups.pop("auth"),
        max_plugin_bytes=MAX_BYTES,
        work_dir=tmp_path / "work",
        **groups,
    )


@dataclass
class Site:
    container: Container
    app: FastAPI
    records: MemoryRecords
    artifacts: MemoryArtifactStore
    events: MemoryEventBus
    rollouts: FakeRollouts
    work_dir: Path
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def __getattr__(self, name: str) -> httpx.AsyncClient:
        """`site.admin`, `site.developer`... are clients with that person's token, `site.nobody` has none."""
        try:
            return self.clients[name]
        except KeyError:
            raise AttributeError(name) from None

    async def register(self, name: str = "greeter") -> None:
        answer = await self.admin.post(f"{API}/plugins", json={"name": name})
        assert answer.status_code == 201, answer.text

    async def upload(self, name: str = "greeter", version: str = "1.0.0", **more: Any) -> httpx.Response:
        return await self.admin.post(
            f"{API}/plugins/{name}/versions",
            data={"version": version, **more},
            files={"binary": ("plugin.zip", bundle(name, version), "application/zip")},
        )

    async def ship(self, name: str = "greeter", *versions: str) -> None:
        """A registered plugin with these versions (default 1.0.0)."""
        await self.register(name)
        for version in versions or ("1.0.0",):
            answer = await self.upload(name, version)
            assert answer.status_code == 201, answer.text

    async def approve(self, version: str = "1.0.0", name: str = "greeter") -> None:
        """Somebody else than the uploader has approved the version: it may go to Production."""
        async with self.records.unit_of_work() as uow:
            found = await uow.versions.get(name, version)
            approved = {"status": VersionStatus.APPROVED, "approved_by": "lead", "approved_at": await uow.now()}
            await uow.versions.move(found.model_copy(update=approved), found.status)
            await uow.commit()

    async def deploy(
        self,
        version: str = "1.0.0",
        environment: str = "Development",
        client: httpx.AsyncClient | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        body = {"pluginId": "greeter", "version": version, "environment": environment, **more}
        return await (client or self.admin).post(f"{API}/deployments", json=body, headers=headers)

    async def progress(self, deployment_id: str) -> DeploymentProgress:
        async with self.records.unit_of_work() as uow:
            return (await uow.deployments.get(deployment_id)).progress

    async def project(self, deployment_id: str, *events: TimelineEvent, **changes: Any) -> DeploymentProgress:
        """What the worker's record_progress does: a newer picture, new events, a wake-up."""
        before = await self.progress(deployment_id)
        after = before.model_copy(update={"sequence": before.sequence + 1, **changes})
        async with self.records.unit_of_work() as uow:
            await uow.deployments.project(after, events)
            await uow.commit()
        await self.events.publish(f"deployment:{deployment_id}", str(after.sequence))
        return after

    async def complete(self, deployment_id: str, name: str = "greeter") -> None:
        """The deployment ends well: routes serve its version, its workflow is closed."""
        done = await self.project(deployment_id, status=DeploymentStatus.COMPLETED)
        await self.serve(name, done.environment, done.to_version, deployment_id)
        self.rollouts.finish(deployment_id)

    async def serve(self, name: str, environment: str, version: str, deployment_id: str) -> None:
        digest = sha256(bundle(name, version))
        stable = ArtifactRef(plugin=name, version=version, digest=digest, size_bytes=1)
        async with self.records.unit_of_work() as uow:
            current = await uow.routes.current(environment, name)
            generation = current.generation if current else 0
            await uow.routes.write(environment, name, generation, RouteState(stable=stable), deployment_id)
            await uow.commit()

    async def row(self, deployment_id: str) -> DeploymentRow:
        async with self.records.unit_of_work() as uow:
            return await uow.deployments.get(deployment_id)

    def artifact(self, name: str = "greeter", version: str = "1.0.0") -> str:
        return artifact_key(name, sha256(bundle(name, version)))

    def leftovers(self) -> list[str]:
        """Files under the work directory: none, whatever happened."""
        return [str(path) for path in self.work_dir.rglob("*") if path.is_file()]


def error_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The envelope of a refusal, checked whole."""
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"code", "message", "details", "traceId", "timestamp"}
    assert error["code"] == code, error
    assert error["traceId"] == answer.headers["X-Trace-Id"]
    return error


def fields_of(error: dict[str, Any]) -> dict[str, str]:
    return {detail["field"]: detail["message"] for detail in error["details"]}


def make_site(
    tmp_path: Path,
    records: MemoryRecords | None = None,
    keys: KeyProvider | None = None,
    nodes: ProbeSource | None = None,
    **more: Any,
) -> Site:
    """A fresh facade with nothing in it (or over the same records as another); its clients come with the fixture."""
    settings = make_settings(tmp_path, **more)
    records = records or MemoryRecords()
    artifacts, events, rollouts = MemoryArtifactStore(), MemoryEventBus(), FakeRollouts()
    container = Container(
        settings=settings,
        unit_of_work=records.unit_of_work,
        reading=getattr(records, "reading", None),  # of a real database
        artifacts=artifacts,
        events=events,
        rollouts=rollouts,
        limiter=LocalRateLimiter(),
        promotions=FakePromotions(),
        sandboxes=FakeSandboxes(records),
        nodes=nodes,
        keys=keys,
        passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)),
    )
    app = create_app(container)
    app.router.routes[:] = _prepared(app)
    return Site(container, app, records, artifacts, events, rollouts, settings.work_dir)


def _prepared(app: FastAPI) -> list[BaseRoute]:
    """The first application's routes for every later one: FastAPI prepares a route when it is first asked for, which costs
    more than most tests. They know no container; that comes with the request."""
    if not _PREPARED:
        _PREPARED.extend(app.router.routes)
    return _PREPARED
