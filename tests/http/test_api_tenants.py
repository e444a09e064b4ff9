"""What a tenant has of plugins, over HTTP: who may, what is checked, what is kept, and that no secret comes back."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from hotswap.adapters.local_keys import LocalKeyProvider
from hotswap.domain.lifecycle import VersionStatus
from hotswap.domain.routes import RouteState
from hotswap.keys.ring import DataKeyRing
from hotswap.ports.tenant_settings import MAX_SETTINGS_BYTES
from tests.contract.factories import EPOCH
from tests.http.bundles import bundle
from tests.http.people import bearer, logged_in
from tests.http.site import API, PEOPLE, Site, error_of, fields_of, make_site

SECRET = "s3cret-of-acme/Zm9v"
OURS = f"{API}/tenants/acme/plugins/greeter"
SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"enum": ["eu", "us"]},
        "limits": {"type": "object", "properties": {"rows": {"type": "integer", "minimum": 1}}},
        "mode": {"type": "string", "default": "fast"},
    },
    "required": ["region", "mode"],
    "additionalProperties": False,
}


class Wrapping:
    """Wrapping keys that the test changes."""

    def __init__(self) -> None:
        self.keys = [b"a" * 32]


@pytest.fixture
def wrapping() -> Wrapping:
    return Wrapping()


@pytest.fixture
async def site(tmp_path: Path, wrapping: Wrapping) -> AsyncIterator[Site]:
    made = make_site(tmp_path, keys=LocalKeyProvider(lambda: wrapping.keys))
    async with AsyncExitStack() as stack:
        for user in (*PEOPLE, "nobody"):
            headers = {} if user == "nobody" else {"Authorization": f"Bearer token-of-{user}"}
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(made.app), base_url="http://api.test", headers=headers, timeout=60
            )
            made.clients[user] = await stack.enter_async_context(client)
        await made.register()
        manifests: dict[str, dict[str, Any]] = {"1.0.0": {}, "2.0.0": {"configurationSchema": SCHEMA}}
        for version, more in manifests.items():
            answer = await made.admin.post(
                f"{API}/plugins/greeter/versions",
                data={"version": version},
                files={"binary": ("plugin.zip", bundle("greeter", version, **more), "application/zip")},
            )
            assert answer.status_code == 201, answer.text
        yield made
        made.container.streams.close()


async def serve(site: Site, environment: str, version: str, candidate: str = "", **more: Any) -> None:
    async with site.records.unit_of_work() as uow:
        refs = {one: (await uow.versions.get("greeter", one)).ref for one in (version, candidate) if one}
        current = await uow.routes.current(environment, "greeter")
        state = RouteState(stable=refs[version], candidate=refs.get(candidate), **more)
        await uow.routes.write(environment, "greeter", current.generation if current else 0, state, "dep_1")
        await uow.commit()


async def set_status(site: Site, version: str, status: VersionStatus) -> None:
    async with site.records.unit_of_work() as uow:
        found = await uow.versions.get("greeter", version)
    site.records.committed.versions["greeter", version] = found.model_copy(
        update={"status": status, "approved_at": EPOCH}
    )


async def history(site: Site) -> list[dict[str, Any]]:
    answer = await site.owner.get(f"{OURS}/history")
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_an_owner_sees_what_serves_the_tenant_where(site: Site) -> None:
    await serve(site, "Production", "1.0.0", "2.0.0", candidate_weight=10_000, seed="s")
    await serve(site, "QA", "1.0.0", "2.0.0", switched_nodes=("node-1",))
    answer = await site.owner.get(f"{API}/tenants/acme/plugins")
    assert answer.status_code == 200, answer.text
    (seen,) = answer.json()["items"]
    assert seen["enabled"] is True
    assert seen["serving"] == [
        {"environment": "QA", "version": "1.0.0", "movingTo": "2.0.0", "pinned": False},
        {"environment": "Production", "version": "2.0.0", "movingTo": None, "pinned": False},
    ]
    await set_status(site, "1.0.0", VersionStatus.APPROVED)
    pinned = await site.owner.put(f"{OURS}/pin", json={"version": "1.0.0", "reason": "audit week"})
    assert pinned.status_code == 200, pinned.text
    assert [(one["version"], one["pinned"]) for one in pinned.json()["serving"]] == [("1.0.0", True)] * 2
    assert (await site.owner.get(OURS)).json() == pinned.json()


async def test_a_pin_needs_a_version_that_can_be_deployed_and_warns_when_it_is_old(site: Site) -> None:
    error_of(await site.owner.put(f"{OURS}/pin", json={"version": "9.0.0"}), 404, "NOT_FOUND")
    await set_status(site, "1.0.0", VersionStatus.PENDING_APPROVAL)
    error = error_of(await site.owner.put(f"{OURS}/pin", json={"version": "1.0.0"}), 409, "CONFLICT")
    assert "PendingApproval" in error["message"]
    await set_status(site, "1.0.0", VersionStatus.DEPRECATED)
    pinned = await site.owner.put(f"{OURS}/pin", json={"version": "1.0.0"})
    assert pinned.json()["warnings"] == [
        "pinned to 1.0.0, which is Deprecated: pin to another version or take the pin away"
    ]
    assert (await site.owner.delete(f"{OURS}/pin")).status_code == 204
    assert (await site.owner.delete(f"{OURS}/pin")).status_code == 204
    assert (await site.owner.get(OURS)).json()["warnings"] == []
    assert [(one["kind"], one["before"], one["after"]) for one in await history(site)] == [
        ("unpinned", {"pinnedVersion": "1.0.0"}, {"pinnedVersion": None}),
        ("pinned", {"pinnedVersion": None}, {"pinnedVersion": "1.0.0"}),
    ]


async def test_a_configuration_must_fit_every_version_that_serves_and_each_fault_is_named(site: Site) -> None:
    await serve(site, "Production", "2.0.0")
    wrong = {"configuration": {"region": "mars", "limits": {"rows": 0}, "extra": 1}}
    error = error_of(await site.owner.put(f"{OURS}/config", json=wrong), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"configuration", "configuration.region", "configuration.limits.rows"}
    assert "(schema of 2.0.0)" in fields_of(error)["configuration.region"]
    good = {"configuration": {"region": "eu"}, "reason": "moved"}  # `mode` is required and has a default
    answer = await site.owner.put(f"{OURS}/config", json=good)
    assert answer.status_code == 200, answer.text
    assert answer.json()["configuration"] == {"region": "eu"}
    (change,) = await history(site)
    assert (change["by"], change["reason"]) == ("owner", "moved")
    assert (change["before"], change["after"]) == ({"configuration": None}, {"configuration": {"region": "eu"}})
    again = await site.owner.put(f"{OURS}/config", json=good)
    assert again.status_code == 200
    assert len(await history(site)) == 1, "what changes nothing leaves no trace"
    large = {"configuration": {"region": "x" * MAX_SETTINGS_BYTES}}
    error_of(await site.owner.put(f"{OURS}/config", json=large), 400, "VALIDATION_ERROR")


async def test_a_schema_that_never_ends_is_stopped(site: Site) -> None:
    hostile = {"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}}
    answer = await site.admin.post(
        f"{API}/plugins/greeter/versions",
        data={"version": "3.0.0"},
        files={"binary": ("plugin.zip", bundle("greeter", "3.0.0", configurationSchema=hostile), "application/zip")},
    )
    assert answer.status_code == 201, answer.text
    body = {"configuration": {"a": "a" * 60 + "!"}}
    error = error_of(await site.owner.put(f"{OURS}/config", json=body), 400, "VALIDATION_ERROR")
    assert "cannot be checked" in error["message"]


async def test_disabling_and_quotas_are_kept_with_who_and_why(site: Site) -> None:
    answer = await site.owner.post(f"{OURS}/disable", json={"reason": "contract ended"})
    assert answer.json()["enabled"] is False
    assert (await site.owner.post(f"{OURS}/disable")).json()["enabled"] is False
    assert (await site.owner.post(f"{OURS}/enable")).json()["enabled"] is True
    error_of(await site.owner.put(f"{OURS}/quotas", json={"concurrent": 3}), 403, "FORBIDDEN")
    error_of(await site.admin.put(f"{OURS}/quotas", json={"concurrent": 0}), 400, "VALIDATION_ERROR")
    limited = await site.admin.put(f"{OURS}/quotas", json={"concurrent": 3})
    assert limited.json()["quotas"]["concurrent"] == 3
    assert (await site.admin.put(f"{OURS}/quotas", json={})).json()["quotas"] is None
    kinds = [(one["kind"], one["by"], one["reason"]) for one in await history(site)]
    assert kinds == [
        ("quotas-set", "admin", ""),
        ("quotas-set", "admin", ""),
        ("enabled", "owner", ""),
        ("disabled", "owner", "contract ended"),
    ]
    audit = (await site.admin.get(f"{API}/audit-logs?entity=acme")).json()["items"]
    assert audit[-1]["eventType"] == "tenant-plugin.disabled"


async def test_a_secret_is_sealed_and_never_comes_back(
    site: Site, wrapping: Wrapping, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    said = []
    for name in ("api-key", "other"):
        answer = await site.owner.put(f"{OURS}/secrets/{name}", json={"value": SECRET})
        assert answer.status_code == 204, answer.text
    stored = site.records.committed.tenant_rows["acme", "greeter"].secrets
    ring = DataKeyRing(site.records.unit_of_work, LocalKeyProvider(lambda: wrapping.keys))
    document = {name: secret.model_dump(mode="json") for name, secret in stored.items()}
    await ring.prepare([document])
    assert ring.decrypt("acme", "greeter", document) == {"api-key": SECRET, "other": SECRET}
    assert stored["api-key"].sealed != stored["other"].sealed
    for path in (f"{OURS}/config", f"{OURS}/history", OURS, f"{API}/tenants/acme/plugins"):
        said.append((await site.owner.get(path)).text)
    assert [one["name"] for one in json.loads(said[0])["secrets"]] == ["api-key", "other"]
    said.append((await site.admin.get(f"{API}/audit-logs")).text)
    for wrong in ({"value": [SECRET]}, {"value": SECRET, "more": SECRET}, {"value": {SECRET: 1}}):
        answer = await site.owner.put(f"{OURS}/secrets/api-key", json=wrong)
        said.append(json.dumps(error_of(answer, 400, "VALIDATION_ERROR")))
    said.append((await site.owner.put(f"{OURS}/secrets/a b", json={"value": SECRET})).text)
    said.append(
        (await site.owner.put(f"{OURS}/secrets/lone", content=b'{"value": "\\ud800' + SECRET.encode() + b'"}')).text
    )
    assert (await site.owner.delete(f"{OURS}/secrets/other")).status_code == 204
    error_of(await site.owner.delete(f"{OURS}/secrets/other"), 404, "NOT_FOUND")
    said += [repr(site.records.committed), (await site.nobody.get("/metrics")).text, caplog.text]
    for encoded in (SECRET, base64.b64encode(SECRET.encode()).decode(), json.dumps(SECRET)[1:-1]):
        assert [text for text in said if encoded in text] == []


async def test_secrets_are_bounded_together(site: Site) -> None:
    big = "x" * 60_000
    answers = [await site.owner.put(f"{OURS}/secrets/s{number}", json={"value": big}) for number in range(5)]
    assert [answer.status_code for answer in answers] == [204] * 4 + [400]
    assert str(MAX_SETTINGS_BYTES) in fields_of(error_of(answers[-1], 400, "VALIDATION_ERROR"))["value"]


async def test_keys_rotate_while_secrets_stay_readable(site: Site, wrapping: Wrapping) -> None:
    error_of(await site.admin.post(f"{API}/tenants/acme/keys/rotate"), 409, "CONFLICT")
    await site.owner.put(f"{OURS}/secrets/api-key", json={"value": SECRET})
    (old,) = site.records.committed.data_keys.values()
    wrapping.keys.insert(0, b"b" * 32)
    rewrapped = (await site.admin.post(f"{API}/tenant-keys/rewrap", json={"limit": 1})).json()
    assert (rewrapped["rewrapped"], rewrapped["next"]) == (1, old.key_id)
    last = (await site.admin.post(f"{API}/tenant-keys/rewrap", json={"limit": 1, "after": old.key_id})).json()
    assert last == {"lookedAt": 0, "rewrapped": 0, "next": None}
    del wrapping.keys[1]  # what the first key wrapped is wrapped by the second now
    rotated = await site.admin.post(f"{API}/tenants/acme/keys/rotate", json={"reason": "yearly"})
    assert rotated.status_code == 200, rotated.text
    assert (rotated.json()["resealed"], rotated.json()["done"]) == (1, True)
    secret = site.records.committed.tenant_rows["acme", "greeter"].secrets["api-key"]
    assert secret.key_id == rotated.json()["keyId"] != old.key_id
    assert site.records.committed.data_keys[old.key_id].retired_at is not None
    ring = DataKeyRing(site.records.unit_of_work, LocalKeyProvider(lambda: wrapping.keys))
    document = {"api-key": secret.model_dump(mode="json")}
    await ring.prepare([document])
    assert ring.decrypt("acme", "greeter", document) == {"api-key": SECRET}


async def test_an_owner_can_neither_see_nor_infer_another_tenant(site: Site) -> None:
    await site.admin.put(f"{API}/tenants/globex/plugins/greeter/config", json={"configuration": {"region": "eu"}})
    login = await logged_in(site, "eve", "TenantOwner", tenants=["initech"])
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("GET", "/greeter", None),
        ("GET", "/greeter/config", None),
        ("GET", "/greeter/history", None),
        ("POST", "/greeter/enable", {}),
        ("POST", "/greeter/disable", {}),
        ("PUT", "/greeter/config", {"configuration": {}}),
        ("PUT", "/greeter/pin", {"version": "1.0.0"}),
        ("DELETE", "/greeter/pin", None),
        ("PUT", "/greeter/secrets/key", {"value": "x"}),
        ("DELETE", "/greeter/secrets/key", None),
        ("GET", "/ghost", None),
    ]
    for method, path, body in calls:
        messages = set()
        for tenant in ("globex", "nobody-has-this-name"):
            answer = await site.nobody.request(
                method, f"{API}/tenants/{tenant}/plugins{path}", json=body, headers=bearer(login["token"])
            )
            messages.add(error_of(answer, 403, "FORBIDDEN")["message"])
        assert len(messages) == 1, (method, path)
        assert "globex" not in messages.pop()
    mine = await site.nobody.get(f"{API}/tenants/initech/plugins", headers=bearer(login["token"]))
    assert mine.status_code == 200
    assert "globex" not in mine.text
