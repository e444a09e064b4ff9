"""The data plane with tenants' own tokens, from the api that made them to the router that takes them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from hotswap.domain.deployment import Environment
from hotswap.node.tenant_auth import TenantAuth, TenantKeys
from tests.http.people import bearer
from tests.http.router_client import Bench, bench, request
from tests.http.site import API, Site, make_site
from tests.unit.node_fakes import order

NODE_ENVIRONMENT = Environment.QA


class Plane:
    """A site, a router that knows its keys, and one call from token to answer."""

    def __init__(self, site: Site, served: Bench, auth: TenantAuth, admin: httpx.AsyncClient) -> None:
        self.served, self.admin = served, admin
        self.keys = TenantKeys(auth, site.container.unit_of_work, timedelta(seconds=5))

    async def token(self, tenant: str = "acme", **body: object) -> tuple[str, str]:
        answer = await self.admin.post(f"{API}/tenants/{tenant}/tokens", json=body)
        assert answer.status_code == 201, answer.text
        await self.keys.look()
        return answer.json()["token"], answer.json()["tenantToken"]["tokenId"]

    async def call(self, token: str, tenant: str = "acme", plugin: str = "invoice") -> tuple[int, str, str]:
        wire = await self.served.wire()
        await wire.send(request("echo", tenant, token=token, plugin=plugin))
        answer = await wire.receive()
        return answer.status, "" if answer.status == 200 else answer.code, answer.body.decode()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    site, auth = make_site(tmp_path), TenantAuth(NODE_ENVIRONMENT)
    async with AsyncExitStack() as stack:
        transport = httpx.ASGITransport(site.app)
        client = httpx.AsyncClient(
            transport=transport, base_url="http://api.test", headers=bearer("token-of-admin"), timeout=20
        )
        admin = await stack.enter_async_context(client)
        served = await stack.enter_async_context(bench(tenant_auth=auth))
        await served.supervisor.stage(order(1, "1.0.0"))
        yield Plane(site, served, auth, admin)


async def test_a_tenant_calls_its_plugins_and_nobody_elses(plane: Plane) -> None:
    token, _ = await plane.token()
    assert (await plane.call(token))[0] == 200
    answers = [
        await plane.call(token, tenant="other"),  # who is there
        await plane.call(token, tenant="nobody"),  # who is not
        await plane.call(token, tenant="other", plugin="ghost"),
    ]
    assert [(status, code) for status, code, _ in answers] == [(403, "FORBIDDEN")] * 3
    for _, _, body in answers:
        assert "other" not in body
        assert "nobody" not in body
        assert "acme" not in body


async def test_a_token_is_held_to_its_plugins_and_environments(plane: Plane) -> None:
    narrow, _ = await plane.token(plugins=["export"])
    assert (await plane.call(narrow))[:2] == (403, "FORBIDDEN")
    elsewhere, _ = await plane.token(environments=["Production"])
    assert (await plane.call(elsewhere))[:2] == (403, "FORBIDDEN")
    here, _ = await plane.token(plugins=["invoice"], environments=[NODE_ENVIRONMENT.value])
    assert (await plane.call(here))[0] == 200


async def test_a_revoked_token_is_refused_after_the_next_look(plane: Plane) -> None:
    token, token_id = await plane.token()
    assert (await plane.call(token))[0] == 200
    assert (await plane.admin.delete(f"{API}/tenants/acme/tokens/{token_id}")).status_code == 204
    await plane.keys.look()
    assert (await plane.call(token))[:2] == (401, "UNAUTHORIZED")


async def test_tokens_outlive_a_rotation_and_end_with_a_revoking_one(plane: Plane) -> None:
    before, _ = await plane.token()
    await plane.admin.post(f"{API}/authentication/signing-keys/rotate")
    after, _ = await plane.token()
    for token in (before, after):
        assert (await plane.call(token))[0] == 200
    await plane.admin.post(f"{API}/authentication/signing-keys/rotate", json={"revoke": True})
    await plane.keys.look()
    for token in (before, after):
        assert (await plane.call(token))[:2] == (401, "UNAUTHORIZED")


async def test_an_api_token_opens_no_plugin(plane: Plane) -> None:
    for token in ("token-of-admin", "hst_" + "x" * 43, ""):
        assert (await plane.call(token))[:2] == (401, "UNAUTHORIZED")
