"""A small installation on the shared servers: a database, a bucket and a task queue of its own, with something of everything."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from minio import Minio
from pydantic import SecretStr

from api.services.actor import Actor
from api.services.tenant_secrets import TenantSecretService
from hotswap.config import Settings
from hotswap.doctor.catalog import CHECKS
from hotswap.doctor.examine import examine
from hotswap.doctor.report import Report
from hotswap.doctor.site import Site, now
from hotswap.domain.accounts import KeyPurpose
from hotswap.domain.deployment import Environment, Role
from hotswap.domain.drift import LoadedHost, NodeInventory, PluginInventory
from hotswap.domain.ids import artifact_key
from hotswap.domain.routes import ArtifactRef, RouteState
from hotswap.identity.sealing import Sealer
from hotswap.identity.tokens import new_signing_key
from hotswap.keys.ring import DataKeyRing
from tests.contract.factories import make_audit, make_node, make_plugin, make_version

BEATING = "now() + interval '1 hour'"  # nothing beats here, and a slow machine must not make the node stale
OLD = "now() - interval '1 hour'"
PLAINTEXT = "a-tenants-own-secret"
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")


def key() -> str:
    """32 random bytes as a setting writes them."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Installation:
    """PostgreSQL database, bucket and task queue of its own, one plugin in Production, and a node that says what it runs."""

    settings: Settings
    url: str
    scratch: Path
    inventory: NodeInventory | None = None
    plugin: str = field(default_factory=lambda: f"doctored-{secrets.token_hex(4)}")
    clock_off: timedelta = timedelta(0)

    def site(self) -> Site:
        return Site.of(self.settings, deep=True, clock=lambda: now() + self.clock_off)

    async def examine(self) -> Report:
        site = self.site()
        try:
            return await examine(site, CHECKS)
        finally:
            await site.close()

    def change(self, group: str, **values: Any) -> None:
        changed = getattr(self.settings, group).model_copy(update=values)
        self.settings = self.settings.model_copy(update={group: changed})

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def content(self, version: str) -> bytes:
        return f"bytes of {self.plugin} {version}".encode()

    def ref(self, version: str) -> ArtifactRef:
        content = self.content(version)
        digest = hashlib.sha256(content).hexdigest()
        return ArtifactRef(plugin=self.plugin, version=version, digest=digest, size_bytes=len(content))

    def bucket(self) -> tuple[Minio, str]:
        minio = self.settings.minio
        access, secret = minio.access_key.get_secret_value(), minio.secret_key.get_secret_value()
        return Minio(minio.endpoint, access_key=access, secret_key=secret, secure=minio.tls), minio.bucket

    async def fill(self, admin_url: str) -> None:
        site = self.site()
        try:
            async with site.database.unit_of_work() as uow:
                await uow.plugins.add(make_plugin(self.plugin))
                for version in VERSIONS:
                    ref = self.ref(version)
                    await uow.versions.add(
                        make_version(self.plugin, version, digest=ref.digest, size_bytes=ref.size_bytes)
                    )
                    file = self.scratch / f"{version}.zip"
                    file.write_bytes(self.content(version))
                    await site.artifacts.put(artifact_key(self.plugin, ref.digest), file, ref.digest)
                route = RouteState(stable=self.ref("1.0.0"))
                written = await uow.routes.write(Environment.PRODUCTION, self.plugin, 0, route, "dep_first")
                await uow.nodes.register(make_node("node-live", environment="Production", admin_url=admin_url))
                sealer = Sealer(base64.b64decode(_key_encryption_key(self.settings)))
                for purpose in KeyPurpose:
                    await uow.signing_keys.add(new_signing_key(purpose, sealer, await uow.now(), await uow.now()))
                await uow.audit.append(make_audit())
                await uow.commit()
            assert site.keys is not None
            ring = DataKeyRing(site.database.unit_of_work, site.keys)
            admin = Actor(user="ada", roles=frozenset({Role.ADMIN}))
            vault = TenantSecretService(site.database.unit_of_work, ring)
            await vault.set("acme", self.plugin, "apiKey", SecretStr(PLAINTEXT), admin)
            host = LoadedHost(version="1.0.0", digest=self.ref("1.0.0").digest, state="Ready")
            part = PluginInventory(plugin=self.plugin, generation=written.generation, hosts=(host,))
            self.inventory = NodeInventory(node_id="node-live", taken_at=now(), plugins=(part,))
            self.sql("ALTER TABLE routes DISABLE TRIGGER USER")
            self.sql(f"UPDATE routes SET written_at = {OLD}")  # a young route may still be on its way to nodes
            self.sql(f"ALTER TABLE routes ENABLE TRIGGER USER; UPDATE nodes SET last_seen_at = {BEATING}")
        finally:
            await site.close()


def _key_encryption_key(settings: Settings) -> str:
    given = settings.auth.key_encryption_key
    assert given is not None
    return given.get_secret_value()
