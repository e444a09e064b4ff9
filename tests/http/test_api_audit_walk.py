"""No change without an audit entry: every route that changes something is walked, and looked up in the audit."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import SecretStr

from api.services.audit import AuditService
from api.services.tenant_secrets import TenantSecretService
from hotswap.adapters.local_keys import LocalKeyProvider
from hotswap.config_trail import AuditSettings
from hotswap.domain.lifecycle import DeploymentStatus
from hotswap.keys.ring import DataKeyRing
from hotswap.runtime import signing
from tests.http.bundles import bundle, sha256
from tests.http.people import PASSWORD, bearer, logged_in, login, make_user
from tests.http.site import API, Site

Scenario = Callable[[Site], Awaitable[Any]]


async def _deployment(site: Site) -> str:
    return str((await site.deploy("1.0.0", "QA")).json()["deploymentId"])


def _command(name: str) -> Scenario:
    async def send(site: Site) -> Any:
        path = f"{API}/deployments/{await _deployment(site)}/{name}"
        return await site.admin.post(path, json={"reason": "why"})

    return send


def _pipeline(name: str = "") -> Scenario:
    async def send(site: Site) -> Any:
        body = {"pluginId": "greeter", "version": "1.0.0", "stages": [{"environment": "Development"}]}
        made = await site.admin.post(f"{API}/pipelines", json=body)
        if not name:
            return made
        return await site.admin.post(f"{API}/pipelines/{made.json()['pipelineId']}/{name}", json={"reason": "why"})

    return send


def _approval(name: str) -> Scenario:
    async def send(site: Site) -> Any:
        return await site.admin.post(f"{API}/approvals/{await _deployment(site)}/{name}", json={"reason": "why"})

    return send


def _asking(method: str, path: str, **body: Any) -> Scenario:
    async def send(site: Site) -> Any:
        return await site.admin.request(method, f"{API}{path}", json=body or None)

    return send


async def _reinstated(site: Site) -> Any:
    await site.admin.post(f"{API}/plugins/greeter/deprecate", json={"reason": "why"})
    return await site.admin.post(f"{API}/plugins/greeter/reinstate", json={"reason": "why"})


async def _retry(site: Site) -> Any:
    deployment = await _deployment(site)
    await site.project(deployment, status=DeploymentStatus.ABORTED)
    site.rollouts.finish(deployment)
    return await site.admin.post(f"{API}/deployments/{deployment}/retry", json={"reason": "why"})


async def _lift(site: Site) -> Any:
    window = {"kind": "once", "starts": "2026-01-01T00:00:00Z"}
    made = await site.admin.post(f"{API}/freezes", json={"window": window, "reason": "why"})
    return await site.admin.delete(f"{API}/freezes/{made.json()['freezeId']}")


async def _release(site: Site) -> Any:
    await site.admin.post(f"{API}/freezes/stop", json={"reason": "why"})
    return await site.admin.post(f"{API}/freezes/stop/lift", json={"reason": "why"})


async def _checkpoint(site: Site) -> Any:
    settings = AuditSettings(signing_key=SecretStr("k" * 32))
    site.container.audit = AuditService(site.records.unit_of_work, settings)
    return await site.admin.post(f"{API}/audit-logs/checkpoints", json={"reason": "why"})


RULE = {"target": {"kind": "email", "to": ["oncall@example.com"]}}


def _rule(method: str, path: str = "") -> Scenario:
    async def send(site: Site) -> Any:
        mail = site.container.settings.notifications.model_copy(update={"smtp_host": "mail.test"})
        site.container.notifications._settings = mail
        made = await site.admin.put(f"{API}/notifications/rules/r1", json=RULE)
        if method == "PUT":
            return made
        return await site.admin.request(method, f"{API}/notifications/rules/r1{path}")

    return send


def _sandbox(path: str = "", **body: Any) -> Scenario:
    async def send(site: Site) -> Any:
        wanted = {"pluginId": "greeter", "version": "1.0.0", "environment": "Development"}
        made = await site.admin.post(f"{API}/sandbox/create", json=wanted)
        if not path:
            return made
        return await site.admin.post(f"{API}/sandbox/{made.json()['sandboxId']}{path}", json=body)

    return send


def _account(method: str, path: str, **body: Any) -> Scenario:
    async def send(site: Site) -> Any:
        await make_user(site, "carol", "Viewer")
        return await site.admin.request(method, f"{API}{path}", json=body or None)

    return send


async def _login(site: Site) -> Any:
    await make_user(site, "carol", "Viewer")
    return await login(site, "carol")


def _logged_in(path: str, **body: Any) -> Scenario:
    async def send(site: Site) -> Any:
        token = (await logged_in(site, "carol", "Viewer"))["token"]
        return await site.nobody.post(f"{API}/authentication/{path}", headers=bearer(token), json=body or None)

    return send


def _revoked(path: str, made_as: str, **body: Any) -> Scenario:
    async def send(site: Site) -> Any:
        made = (await site.admin.post(f"{API}{path}", json=body or None)).json()
        return await site.admin.delete(f"{API}{path}/{made[made_as]['tokenId']}")

    return send


def _moved(*steps: str) -> Scenario:
    """Of a version that somebody else has uploaded."""

    async def send(site: Site) -> Any:
        files = {"binary": ("plugin.zip", bundle("greeter", "2.0.0"), "application/zip")}
        made = await site.developer.post(f"{VERSIONS}", data={"version": "2.0.0"}, files=files)
        assert made.status_code == 201, made.text
        for step in steps:
            answer = await site.admin.post(f"{VERSIONS}/2.0.0/{step}", json={"reason": "why"})
        return answer

    return send


async def _submitted(site: Site) -> Any:
    await site.upload("greeter", "2.0.0", draft="true")
    return await site.admin.post(f"{VERSIONS}/2.0.0/submit")


async def _key(site: Site) -> Any:
    body = {"publisher": "acme", "publicKey": signing.generate(site.work_dir / "key.pem")}
    return await site.admin.post(f"{API}/publisher-keys", json=body)


async def _revoked_key(site: Site) -> Any:
    key_id = (await _key(site)).json()["keyId"]
    return await site.admin.post(f"{API}/publisher-keys/{key_id}/revoke", json={"reason": "why"})


async def _signed(site: Site) -> Any:
    key_id = (await _key(site)).json()["keyId"]
    signature = signing.sign(signing.read_private(site.work_dir / "key.pem"), sha256(bundle("greeter", "1.0.0")))
    return await site.admin.post(f"{VERSIONS}/1.0.0/sign", json={"keyId": key_id, "signature": signature.value})


def _tenant(*steps: tuple[str, str, dict[str, Any]]) -> Scenario:
    """Of tenant acme's greeter, under wrapping keys of this test's; the last step is the one that counts."""

    async def send(site: Site) -> Any:
        await site.approve()
        ring = DataKeyRing(site.records.unit_of_work, LocalKeyProvider(lambda: [b"a" * 32]))
        site.container.tenant_secrets = TenantSecretService(site.records.unit_of_work, ring)
        for method, path, body in steps:
            answer = await site.admin.request(method, f"{API}{path}", json=body or None)
        return answer

    return send


VERSIONS = f"{API}/plugins/greeter/versions"
OURS = "/tenants/acme/plugins/greeter"
WHY = {"reason": "why"}
SECRET = ("PUT", f"{OURS}/secrets/apiKey", {"value": "s3cret"})
PIN = ("PUT", f"{OURS}/pin", {"version": "1.0.0", **WHY})
FREEZE = {"window": {"kind": "once", "starts": "2026-01-01T00:00:00Z"}, "reason": "why"}
COMMANDS = ("approve", "reject", "pause", "resume", "promote", "promote-full", "override-freeze", "abort", "rollback")
CHANGES: dict[str, Scenario] = {
    "POST /api/v1/plugins": _asking("POST", "/plugins", name="other"),
    "PUT /api/v1/plugins/{pluginId}": _asking("PUT", "/plugins/greeter", author="me"),
    "DELETE /api/v1/plugins/{pluginId}": _asking("DELETE", "/plugins/greeter"),
    "POST /api/v1/plugins/{pluginId}/deprecate": _asking("POST", "/plugins/greeter/deprecate", reason="why"),
    "POST /api/v1/plugins/{pluginId}/reinstate": _reinstated,
    "POST /api/v1/plugins/{pluginId}/versions": lambda site: site.upload("greeter", "2.0.0"),
    "POST /api/v1/plugins/{pluginId}/versions/presigned": _asking(
        "POST", "/plugins/greeter/versions/presigned", version="2.0.0", digest="d" * 64, sizeBytes=1000
    ),
    "POST /api/v1/plugins/{pluginId}/versions/{version}/submit": _submitted,
    "POST /api/v1/plugins/{pluginId}/versions/{version}/approve": _moved("approve"),
    "POST /api/v1/plugins/{pluginId}/versions/{version}/deprecate": _moved("approve", "deprecate"),
    "POST /api/v1/plugins/{pluginId}/versions/{version}/reinstate": _moved("approve", "deprecate", "reinstate"),
    "POST /api/v1/plugins/{pluginId}/versions/{version}/archive": _moved("approve", "deprecate", "archive"),
    "POST /api/v1/plugins/{pluginId}/versions/{version}/sign": _signed,
    "POST /api/v1/publisher-keys": _key,
    "POST /api/v1/publisher-keys/{keyId}/revoke": _revoked_key,
    "POST /api/v1/deployments": lambda site: site.deploy("1.0.0", "QA"),
    **{f"POST /api/v1/deployments/{{deploymentId}}/{name}": _command(name) for name in COMMANDS},
    "POST /api/v1/deployments/{deploymentId}/retry": _retry,
    "POST /api/v1/pipelines": _pipeline(),
    **{
        f"POST /api/v1/pipelines/{{pipelineId}}/{name}": _pipeline(name)
        for name in ("approve", "reject", "pause", "resume", "abort", "retry")
    },
    "POST /api/v1/approvals/{approvalId}/approve": _approval("approve"),
    "POST /api/v1/approvals/{approvalId}/reject": _approval("reject"),
    "POST /api/v1/freezes": _asking("POST", "/freezes", **FREEZE),
    "DELETE /api/v1/freezes/{freezeId}": _lift,
    "POST /api/v1/freezes/stop": _asking("POST", "/freezes/stop", reason="why"),
    "POST /api/v1/freezes/stop/lift": _release,
    "POST /api/v1/sandbox/create": _sandbox(),
    "POST /api/v1/sandbox/{sandboxId}/execute": _sandbox("/execute", method="greet"),
    "POST /api/v1/users": _asking("POST", "/users", name="carol", roles=["Viewer"]),
    "PUT /api/v1/users/{user}": _account("PUT", "/users/carol", displayName="Carol"),
    "PUT /api/v1/users/{user}/password": _account("PUT", "/users/carol/password"),
    "POST /api/v1/authentication/login": _login,
    "POST /api/v1/authentication/logout": _logged_in("logout"),
    "POST /api/v1/authentication/password": _logged_in(
        "password", currentPassword=PASSWORD, newPassword="another long pass phrase"
    ),
    "POST /api/v1/authentication/signing-keys/rotate": _asking("POST", "/authentication/signing-keys/rotate"),
    "POST /api/v1/service-tokens": _asking("POST", "/service-tokens", name="ci", roles=["Developer"]),
    "DELETE /api/v1/service-tokens/{tokenId}": _revoked("/service-tokens", "serviceToken", name="ci", roles=["Viewer"]),
    "POST /api/v1/tenants/{tenant}/tokens": _asking("POST", "/tenants/acme/tokens"),
    "DELETE /api/v1/tenants/{tenant}/tokens/{tokenId}": _revoked("/tenants/acme/tokens", "tenantToken"),
    "POST /api/v1/tenants/{tenant}/plugins/{pluginId}/enable": _tenant(
        ("POST", f"{OURS}/disable", WHY), ("POST", f"{OURS}/enable", WHY)
    ),
    "POST /api/v1/tenants/{tenant}/plugins/{pluginId}/disable": _tenant(("POST", f"{OURS}/disable", WHY)),
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/config": _tenant(
        ("PUT", f"{OURS}/config", {"configuration": {}, **WHY})
    ),
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/quotas": _tenant(("PUT", f"{OURS}/quotas", {"concurrent": 3})),
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/pin": _tenant(PIN),
    "DELETE /api/v1/tenants/{tenant}/plugins/{pluginId}/pin": _tenant(PIN, ("DELETE", f"{OURS}/pin", {})),
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/secrets/{name}": _tenant(SECRET),
    "DELETE /api/v1/tenants/{tenant}/plugins/{pluginId}/secrets/{name}": _tenant(
        SECRET, ("DELETE", f"{OURS}/secrets/apiKey", {})
    ),
    "POST /api/v1/tenants/{tenant}/keys/rotate": _tenant(SECRET, ("POST", "/tenants/acme/keys/rotate", WHY)),
    "POST /api/v1/audit-logs/checkpoints": _checkpoint,
    "PUT /api/v1/notifications/rules/{ruleId}": _rule("PUT"),
    "DELETE /api/v1/notifications/rules/{ruleId}": _rule("DELETE"),
    "POST /api/v1/notifications/rules/{ruleId}/test": _rule("POST", "/test"),
}
"""Every route that changes something, and a way to change it."""

NOT_WALKED = {
    "POST /api/v1/deployments/plan": "starts and stores nothing",
    "POST /api/v1/codec/decode": "reads: it decrypts what it is sent, and stores nothing",
    "POST /api/v1/authentication/refresh": "goes on with a login that is audited; a token used twice is, too: test_api_login",
    "POST /api/v1/plugins/{pluginId}/validate-dependencies": "stores nothing",
    "POST /api/v1/plugins/{pluginId}/versions/complete": "ends in the same place as an upload: version.uploaded",
    "POST /api/v1/plugins/{pluginId}/health-check": "asks the nodes and keeps what they say",
    "POST /api/v1/tenant-keys/rewrap": "audited when there is something to rewrap: tests/http/test_api_tenants.py",
    "POST /api/v1/retention/sweep": "its workflow's activity audits what it removes",
    "POST /api/v1/sandbox/{sandboxId}/cleanup": "audited by its workflow's activity, tests/workflow/test_sandbox_sessions.py",
    "DELETE /api/v1/sandbox/{sandboxId}": "the same",
    "POST /api/v1/environments/{environment}/drift/repair": "audited too, by tests/http/test_api_aftercare.py",
}


def test_every_route_that_may_change_something_is_walked_below(site: Site) -> None:
    routes = {
        f"{method} {route.path}"
        for context in iter_route_contexts(site.app.routes)
        if isinstance(route := context.original_route, APIRoute)
        for method in route.methods or ()
        if method not in ("GET", "HEAD")
    }
    assert routes == set(CHANGES) | set(NOT_WALKED)


@pytest.mark.parametrize("route", CHANGES)
async def test_a_change_leaves_an_entry_with_who_where_and_trace(site: Site, route: str) -> None:
    await site.ship()
    async with site.records.unit_of_work() as uow:
        before = len(await uow.audit.sealed(0, 1000))
    answer = await CHANGES[route](site)
    assert answer.is_success, answer.text
    async with site.records.unit_of_work() as uow:
        newest = [one.entry for one in (await uow.audit.sealed(before, 1000)) if one.entry is not None]
    assert newest, "nothing was audited"
    assert {entry.user for entry in newest} <= {"admin", "carol", "developer"}
    assert newest[-1].trace_id == answer.headers["X-Trace-Id"]
    assert newest[-1].address == "127.0.0.1"
    is_json = answer.request.headers.get("content-type") == "application/json"
    if is_json and b'"why"' in answer.request.content:
        assert newest[-1].details["reason"] == "why"
