"""Tenants on the live system: what is changed holds on every node in a moment, and a secret is found nowhere else.

The plugin is as careless as a plugin can be: it prints, logs and raises what it was trusted with.
"""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import psycopg
from temporalio.client import Client

from hotswap.cli.client import API
from hotswap.cli.plugins import push_bundle, read_bundle
from hotswap.runtime.build import build_plugin, init_plugin
from tests.e2e.live import Live, eventually

CODE = """
import hashlib
from hotswap_plugin import get_logger

log = get_logger("careless")


class Plugin:
    def greet(self, parameters, context):
        secrets = dict(context.secrets)
        digest = hashlib.sha256(secrets.get("api-key", "").encode()).hexdigest()
        if parameters["name"] == "fail":
            print("printed", secrets)
            log.error("logged %s", secrets.get("api-key"))
            raise RuntimeError(f"refused with {secrets.get('api-key')}")
        return {"greeting": context.config["salutation"] + " " + digest}
"""


async def careless(live: Live, *versions: str) -> str:
    name = f"careless-{uuid.uuid4().hex[:8]}"
    for version in versions:
        folder = live._scratch / name / version
        init_plugin(folder, name)
        manifest = folder / "plugin.toml"
        text = manifest.read_text().replace('version = "0.1.0"', f'version = "{version}"')
        text = text.replace("requiredPermissions = []", 'requiredPermissions = ["secrets.read"]')
        begin = text.index("[[smokeTests]]")
        module = next(folder.glob("*.py"))
        entry = text[text.index('entryPoint = "') + 14 :].split('"')[0]
        manifest.write_text(text[:begin].replace(entry, f"{module.stem}:Plugin"))
        module.write_text(CODE)
        built = await asyncio.to_thread(build_plugin, folder, folder / "out.zip")
        await push_bundle(live.api, read_bundle(built.path), "")
    return name


class Said:
    """Everything that anybody answered us."""

    def __init__(self, live: Live, plugin: str) -> None:
        self._live = live
        self._plugin = plugin
        self.texts: list[str] = []

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self._live.api.call(method, f"{API}{path}", body=body)
        self.texts.append(json.dumps(answer))
        return answer

    async def tenant(self, method: str, path: str, body: Any = None, tenant: str = "acme") -> Any:
        return await self.api(method, f"/tenants/{tenant}/plugins/{self._plugin}{path}", body)

    async def get(self, url: str) -> None:
        async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
            self.texts.append((await client.get(url)).text)

    async def nodes(self, name: str = "Ada", tenant: str = "acme") -> list[tuple[int, str]]:
        """What each node answers the tenant."""
        found = []
        for node in self._live.stack.info["nodes"]:
            headers = {"Authorization": f"Bearer {self._live.stack.info['tenantToken']}"}
            async with httpx.AsyncClient(timeout=20, trust_env=False, headers=headers) as client:
                url = f"{node['routerUrl']}/invoke/{tenant}/{self._plugin}/greet"
                answer = await client.post(url, json={"name": name})
            self.texts.append(answer.text + str(answer.headers))
            found.append((answer.status_code, answer.text))
        return found

    async def eventually_everywhere(self, status: int, text: str, what: str, tenant: str = "acme") -> None:
        async def holds() -> bool:
            return all(code == status and text in told for code, told in await self.nodes(tenant=tenant))

        await eventually(holds, what)


def forms(secret: str) -> list[bytes]:
    """The secret as it would lie around: plain, in JSON, in base64 at any offset (the middle of it)."""
    plain = secret.encode()
    encoded = [base64.b64encode(b"x" * offset + plain)[4:-4] for offset in range(3)]
    return [plain, json.dumps(secret)[1:-1].encode(), plain.hex().encode(), *encoded]


async def histories(address: str, namespace: str) -> AsyncIterator[tuple[str, bytes]]:
    """Every workflow of the namespace, as the bytes the server keeps."""
    client = await Client.connect(address, namespace=namespace)
    async for found in client.list_workflows():
        history = await client.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
        yield found.id, b"".join(event.SerializeToString() for event in history.events)


def rows(url: str) -> dict[str, bytes]:
    """Every table as text."""
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        tables = {}
        for (name,) in names:
            query = psycopg.sql.SQL("SELECT t::text FROM {} t").format(psycopg.sql.Identifier(name))
            tables[name] = "\n".join(str(row[0]) for row in connection.execute(query)).encode()
    return tables


def approve(url: str, plugin: str) -> None:
    """As an Admin who did not upload them would: the stack has one."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE plugin_versions SET status = 'Approved', approved_by = 'test', approved_at = now() WHERE plugin_id = %s",
            (plugin,),
        )


async def test_a_tenants_changes_hold_on_every_node_and_its_secret_is_found_nowhere(live: Live) -> None:
    marker = f"s3cret-{uuid.uuid4().hex}-{uuid.uuid4().hex}"
    plugin = await careless(live, "1.0.0", "2.0.0")
    said = Said(live, plugin)
    assert (await live.deploy(plugin, "1.0.0")).status == "Completed"
    await said.eventually_everywhere(200, "Hello ", "the plugin serves")

    await said.tenant("PUT", "/config", {"configuration": {"salutation": "Moin"}})
    await said.tenant("PUT", "/secrets/api-key", {"value": marker})
    digest = sha256(marker.encode()).hexdigest()
    await said.eventually_everywhere(200, f"Moin {digest}", "configuration and secret are on every node")
    await said.eventually_everywhere(200, "Hello ", "another tenant has neither", tenant="globex")
    assert all(digest not in told for _, told in await said.nodes(tenant="globex"))
    assert all(code == 500 for code, _ in await said.nodes("fail")), "it raises what it was trusted with"

    await said.tenant("POST", "/disable", {"reason": "test"})
    await said.eventually_everywhere(403, f"{plugin} is disabled for tenant acme", "disabled on every node")
    assert all(code == 200 for code, _ in await said.nodes(tenant="globex"))
    await said.tenant("POST", "/enable")
    approve(live.settings.postgres.url.get_secret_value(), plugin)
    await said.tenant("PUT", "/pin", {"version": "1.0.0"})
    await said.eventually_everywhere(200, "Moin ", "enabled again")

    rollout = await live.deploy(plugin, "2.0.0", "Rolling", waitBetweenBatches="PT0.1S")
    assert rollout.status == "Completed"
    said.texts.append(json.dumps(rollout.deployment))
    (serving,) = (await said.tenant("GET", ""))["serving"]
    assert (serving["version"], serving["pinned"]) == ("1.0.0", True)
    await said.tenant("DELETE", "/pin")
    rotated = await said.api("POST", "/tenants/acme/keys/rotate", {"reason": "test"})
    assert rotated["done"] is True
    await said.eventually_everywhere(200, f"Moin {digest}", "the secret under its new key")
    assert all(code == 500 for code, _ in await said.nodes("fail"))

    health = await said.api("POST", f"/plugins/{plugin}/health-check", {})
    assert health["status"] == "Healthy", health
    metrics = await said.api("GET", f"/plugins/{plugin}/metrics")
    assert {one["version"] for one in metrics["versions"]} == {"1.0.0", "2.0.0"}
    assert all(one["cpuPercent"] is not None and one["memoryBytes"] > 0 for one in metrics["nodes"]), metrics
    for path in ("", "/config", "/history"):
        await said.tenant("GET", path)
    for path in (f"/plugins/{plugin}/health", "/audit-logs", "/deployments", f"/plugins/{plugin}/versions"):
        await said.api("GET", path)
    await said.get(f"{live.stack.info['apiUrl']}/metrics")
    for node in await live.nodes():
        await said.get(f"{node.admin_url}/metrics")

    places: dict[str, bytes] = {"answers": "\n".join(said.texts).encode()}
    places |= {f"table {name}": text for name, text in rows(live.settings.postgres.url.get_secret_value()).items()}
    temporal = live.settings.temporal
    async for workflow_id, history in histories(temporal.address, temporal.namespace):
        places[f"history {workflow_id}"] = history
    assert live.spans is not None
    told = await asyncio.to_thread(live.spans.wait, lambda spans: any(plugin in repr(one.facts) for one in spans))
    assert told, "what was done with the plugin is among the spans"
    places["traces"] = repr(live.spans.spans()).encode()
    logs = {f"log {path.name}": path.read_bytes() for path in live.stack._data.logs.iterdir() if path.is_file()}
    places |= logs
    assert len(logs) >= 6
    assert any(plugin.encode() in text for name, text in places.items() if name.startswith("history ")), "we look there"
    assert any(b"printed" in text and b"***" in text for text in logs.values()), "the plugin did print it, masked"
    assert plugin.encode() in places["traces"]
    assert b"api-key" in places["table tenant_plugin_configs"]
    found = [name for name, text in places.items() if any(form in text for form in forms(marker))]
    assert found == []
