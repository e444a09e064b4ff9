"""What the node's integration tests share: tiny real plugins as zips, a store with them, constant traffic."""

import asyncio
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from hotswap.domain.ids import artifact_key
from hotswap.domain.routes import ArtifactRef, RouteOrder, RouteState
from hotswap.ports.artifacts import ArtifactStore

TENANT_TOKEN = "tenant-secret"

CODE = """
import asyncio
import os

VERSION = "{version}"


class Invoice:
    async def echo(self, parameters, context):
        told = {{"config": context.config, "trace": context.trace_id}}
        return {{"version": VERSION, "tenant": context.tenant, "echo": parameters, **told}}

    async def slow(self, parameters, context):
        await asyncio.sleep(parameters["seconds"])
        return {{"version": VERSION}}

    def work(self, parameters, context):
        return {{"version": VERSION, "sum": sum(parameters["numbers"])}}

    def boom(self, parameters, context):
        raise LookupError("no such invoice")

    def die(self, parameters, context):
        os._exit(3)
{extra}
"""

METHODS = ("echo", "slow", "work", "boom", "die")


async def make_version(
    store: ArtifactStore,
    folder: Path,
    plugin: str,
    version: str,
    extra: str = "",
    broken: bool = False,
    methods: tuple[str, ...] = METHODS,
    concurrency: int = 1,
    permissions: tuple[str, ...] = (),
) -> ArtifactRef:
    """Pack and store one version. `broken`: it raises when imported; `extra`: more of its code, after the class."""
    archive = folder / f"{plugin}-{version}.zip"
    manifest = {
        "name": plugin,
        "version": version,
        "entryPoint": "invoice_plugin:Invoice",
        "methods": [{"name": name} for name in methods],
        "concurrency": concurrency,
        "requiredPermissions": list(permissions),
    }
    code = CODE.format(version=version, extra=extra) + ("\nraise RuntimeError('not today')\n" if broken else "")
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("plugin.json", json.dumps(manifest))
        packed.writestr("invoice_plugin.py", code)
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    await store.put(artifact_key(plugin, digest), archive, digest)
    return ArtifactRef(plugin=plugin, version=version, digest=digest, size_bytes=len(content))


def order(
    generation: int, stable: ArtifactRef | None = None, candidate: ArtifactRef | None = None, weight: int = 0
) -> RouteOrder:
    named = candidate or stable
    assert named is not None
    return RouteOrder(
        plugin=named.plugin,
        generation=generation,
        state=RouteState(
            stable=stable,
            candidate=candidate,
            candidate_weight=weight,
            seed=f"{named.plugin}:{candidate.version}" if candidate else "",
        ),
    )


@dataclass
class Traffic:
    """What constant callers saw: answers by version, and everything that was not a 200."""

    versions: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return sum(self.versions.values()) + len(self.refused)


@asynccontextmanager
async def traffic(url: str, plugin: str, callers: int = 8, tenants: int = 50) -> AsyncIterator[Traffic]:
    """Callers that send one request after another, each on its own connection, until the block ends."""
    seen = Traffic()
    running = True

    async def caller(number: int) -> None:
        async with httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {TENANT_TOKEN}"}, timeout=20, trust_env=False
        ) as client:
            turn = number
            while running:
                turn += callers
                try:
                    answer = await client.post(f"/invoke/tenant-{turn % tenants}/{plugin}/echo", json={"n": turn})
                except httpx.HTTPError as fault:
                    seen.refused.append(repr(fault))
                    continue
                if answer.status_code != 200 or answer.json()["echo"] != {"n": turn}:
                    seen.refused.append(f"{answer.status_code} {answer.text}")
                else:
                    seen.versions[answer.headers["X-HotSwap-Version"]] += 1

    tasks = [asyncio.create_task(caller(number)) for number in range(callers)]
    try:
        yield seen
    finally:
        running = False
        await asyncio.gather(*tasks)
