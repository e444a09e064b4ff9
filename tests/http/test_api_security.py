"""Who may call what, and what every answer carries: tokens, roles, bodies, headers, errors."""

import json
import re
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from api.routers import operations
from api.security import OpenGate, RoleGate
from api.strict import MAX_JSON_BYTES, StrictRoute, gates_of
from hotswap.domain.deployment import Role
from hotswap.domain.errors import Unauthorized
from tests.http.site import API, PEOPLE, Site, error_of, fields_of, make_site

ALL = frozenset(Role)
A, AD, AP = frozenset({Role.ADMIN}), frozenset({Role.ADMIN, Role.DEVELOPER}), frozenset({Role.ADMIN, Role.APPROVER})
AT = frozenset({Role.ADMIN, Role.TENANT_OWNER})

ROLES = {
    "POST /api/v1/plugins": AD,
    "GET /api/v1/plugins": ALL,
    "GET /api/v1/plugins/{pluginId}": ALL,
    "PUT /api/v1/plugins/{pluginId}": A,
    "DELETE /api/v1/plugins/{pluginId}": A,
    "POST /api/v1/plugins/{pluginId}/deprecate": A,
    "POST /api/v1/plugins/{pluginId}/reinstate": A,
    "POST /api/v1/plugins/{pluginId}/versions": AD,
    "GET /api/v1/plugins/{pluginId}/versions": ALL,
    "GET /api/v1/plugins/{pluginId}/versions/{version}": ALL,
    "GET /api/v1/plugins/{pluginId}/versions/{version}/download": ALL,
    "POST /api/v1/plugins/{pluginId}/versions/presigned": AD,
    "POST /api/v1/plugins/{pluginId}/versions/complete": AD,
    "POST /api/v1/plugins/{pluginId}/versions/{version}/submit": AD,
    "POST /api/v1/plugins/{pluginId}/versions/{version}/approve": A,
    "POST /api/v1/plugins/{pluginId}/versions/{version}/deprecate": A,
    "POST /api/v1/plugins/{pluginId}/versions/{version}/reinstate": A,
    "POST /api/v1/plugins/{pluginId}/versions/{version}/archive": A,
    "POST /api/v1/plugins/{pluginId}/versions/{version}/sign": AD,
    "GET /api/v1/plugins/{pluginId}/versions/{version}/adoption": ALL - {Role.TENANT_OWNER},
    "GET /api/v1/plugins/{pluginId}/dependencies": ALL,
    "POST /api/v1/plugins/{pluginId}/validate-dependencies": ALL,
    "GET /api/v1/publisher-keys": ALL,
    "POST /api/v1/publisher-keys": A,
    "POST /api/v1/publisher-keys/{keyId}/revoke": A,
    "POST /api/v1/codec/decode": A,
    "GET /api/v1/retention": A,
    "POST /api/v1/retention/sweep": A,
    "POST /api/v1/deployments": AD,
    "POST /api/v1/deployments/plan": AD,
    "GET /api/v1/deployments": ALL,
    "GET /api/v1/deployments/{deploymentId}": ALL,
    "GET /api/v1/deployments/{deploymentId}/events": ALL,
    "GET /api/v1/deployments/{deploymentId}/rollback-history": ALL,
    "POST /api/v1/deployments/{deploymentId}/approve": AP,
    "POST /api/v1/deployments/{deploymentId}/reject": AP,
    "POST /api/v1/deployments/{deploymentId}/pause": AD,
    "POST /api/v1/deployments/{deploymentId}/resume": AD,
    "POST /api/v1/deployments/{deploymentId}/promote": AD,
    "POST /api/v1/deployments/{deploymentId}/promote-full": AD,
    "POST /api/v1/deployments/{deploymentId}/retry": AD,
    "POST /api/v1/deployments/{deploymentId}/abort": AD,
    "POST /api/v1/deployments/{deploymentId}/rollback": AD,
    "POST /api/v1/deployments/{deploymentId}/override-freeze": A,
    "GET /api/v1/approvals": AP,
    "GET /api/v1/approvals/{approvalId}": AP,
    "POST /api/v1/approvals/{approvalId}/approve": AP,
    "POST /api/v1/approvals/{approvalId}/reject": AP,
    "GET /api/v1/audit-logs/export": A,
    "GET /api/v1/audit-logs/verify": A,
    "GET /api/v1/audit-logs/checkpoints": A,
    "POST /api/v1/audit-logs/checkpoints": A,
    "GET /api/v1/notifications/rules": A,
    "GET /api/v1/notifications/rules/{ruleId}": A,
    "PUT /api/v1/notifications/rules/{ruleId}": A,
    "DELETE /api/v1/notifications/rules/{ruleId}": A,
    "POST /api/v1/notifications/rules/{ruleId}/test": A,
    "GET /api/v1/notifications/deliveries": A,
    "GET /api/v1/freezes": ALL,
    "GET /api/v1/freezes/standing": ALL,
    "GET /api/v1/freezes/{freezeId}": ALL,
    "POST /api/v1/freezes": A,
    "DELETE /api/v1/freezes/{freezeId}": A,
    "POST /api/v1/freezes/stop": A,
    "POST /api/v1/freezes/stop/lift": A,
    "POST /api/v1/pipelines": AD,
    "GET /api/v1/pipelines": ALL,
    "GET /api/v1/pipelines/{pipelineId}": ALL,
    "POST /api/v1/pipelines/{pipelineId}/approve": ALL - {Role.VIEWER},
    "POST /api/v1/pipelines/{pipelineId}/reject": ALL - {Role.VIEWER},
    "POST /api/v1/pipelines/{pipelineId}/pause": AD,
    "POST /api/v1/pipelines/{pipelineId}/resume": AD,
    "POST /api/v1/pipelines/{pipelineId}/abort": AD,
    "POST /api/v1/pipelines/{pipelineId}/retry": AD,
    "POST /api/v1/sandbox/create": AD,
    "GET /api/v1/sandbox": AD,
    "GET /api/v1/sandbox/{sandboxId}": AD,
    "POST /api/v1/sandbox/{sandboxId}/execute": AD,
    "GET /api/v1/sandbox/{sandboxId}/results": AD,
    "DELETE /api/v1/sandbox/{sandboxId}": AD,
    "POST /api/v1/sandbox/{sandboxId}/cleanup": AD,
    "GET /api/v1/nodes": ALL,
    "GET /api/v1/environments": ALL,
    "GET /api/v1/environments/{environment}/drift": ALL,
    "POST /api/v1/environments/{environment}/drift/repair": AD,
    "GET /api/v1/environments/{environment}/held-versions": ALL,
    "GET /api/v1/audit-logs": A,
    "POST /api/v1/authentication/logout": ALL,
    "GET /api/v1/authentication/me": ALL,
    "POST /api/v1/authentication/password": ALL,
    "GET /api/v1/authentication/signing-keys": A,
    "POST /api/v1/authentication/signing-keys/rotate": A,
    "POST /api/v1/service-tokens": A,
    "GET /api/v1/service-tokens": A,
    "DELETE /api/v1/service-tokens/{tokenId}": A,
    "POST /api/v1/users": A,
    "GET /api/v1/users": A,
    "GET /api/v1/users/{user}": A,
    "PUT /api/v1/users/{user}": A,
    "PUT /api/v1/users/{user}/password": A,
    "POST /api/v1/tenants/{tenant}/tokens": AT,
    "GET /api/v1/tenants/{tenant}/tokens": AT,
    "DELETE /api/v1/tenants/{tenant}/tokens/{tokenId}": AT,
    "GET /api/v1/tenants/{tenant}/plugins": AT,
    "GET /api/v1/tenants/{tenant}/plugins/{pluginId}": AT,
    "POST /api/v1/tenants/{tenant}/plugins/{pluginId}/enable": AT,
    "POST /api/v1/tenants/{tenant}/plugins/{pluginId}/disable": AT,
    "GET /api/v1/tenants/{tenant}/plugins/{pluginId}/config": AT,
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/config": AT,
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/secrets/{name}": AT,
    "DELETE /api/v1/tenants/{tenant}/plugins/{pluginId}/secrets/{name}": AT,
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/pin": AT,
    "DELETE /api/v1/tenants/{tenant}/plugins/{pluginId}/pin": AT,
    "PUT /api/v1/tenants/{tenant}/plugins/{pluginId}/quotas": A,
    "GET /api/v1/tenants/{tenant}/plugins/{pluginId}/history": AT,
    "POST /api/v1/tenants/{tenant}/keys/rotate": A,
    "POST /api/v1/tenant-keys/rewrap": A,
    "GET /api/v1/plugins/{pluginId}/health": ALL,
    "POST /api/v1/plugins/{pluginId}/health-check": ALL,
    "GET /api/v1/plugins/{pluginId}/metrics": ALL,
}
"""Spec section 5. A route that is not here fails the test, so that nobody adds one without deciding who may call it."""

PAGES = {"GET /docs", "GET /console", "GET /console/", "GET /console/{name}"}
"""For people; no part of the OpenAPI document."""

OPEN = {"GET /health", "GET /ready", "GET /metrics"} | PAGES
"""No token and no limit."""

WITHOUT_TOKEN = {
    "POST /api/v1/authentication/login": 10,
    "POST /api/v1/authentication/refresh": 60,
    "GET /.well-known/jwks.json": 60,
}
"""No token, but a limit an address."""

UNUSUAL_LIMITS = {
    "POST /api/v1/audit-logs/checkpoints": 60,
    "POST /api/v1/codec/decode": 600,
    "POST /api/v1/plugins/{pluginId}/versions": 5,
    "POST /api/v1/plugins/{pluginId}/versions/presigned": 5,
    "POST /api/v1/plugins/{pluginId}/versions/complete": 5,
    "POST /api/v1/plugins/{pluginId}/validate-dependencies": 60,
    "GET /api/v1/deployments/{deploymentId}/rollback-history": 10,
    "POST /api/v1/sandbox/create": 5,
    "POST /api/v1/sandbox/{sandboxId}/execute": 20,
    "POST /api/v1/plugins/{pluginId}/health-check": 60,
}
"""Spec section 5's limit column, where it is not 60 for reading and 10 for the rest."""


def test_every_route_declares_its_roles_and_its_limit(tmp_path: Any) -> None:
    declared: dict[str, frozenset[Role] | None] = {}
    limits: dict[str, int] = {}
    open_gates: dict[str, int] = {}
    for context in iter_route_contexts(make_site(tmp_path).app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute):
            continue
        gates = list(gates_of(route.dependant))
        assert len(gates) <= 1, route.path
        assert not gates or isinstance(route, StrictRoute), "another route class does not ask the gate"
        for method in route.methods or ():
            name = f"{method} {route.path}"
            if gates and isinstance(gates[0], OpenGate):
                open_gates[name] = gates[0].limit_of(method)
                continue
            if not gates:
                declared[name] = None
                continue
            assert isinstance(gates[0], RoleGate)
            declared[name] = gates[0].roles or ALL
            limits[name] = gates[0].limit_of(method)
    assert {name for name, roles in declared.items() if roles is None} == OPEN
    assert open_gates == WITHOUT_TOKEN
    assert {name: roles for name, roles in declared.items() if roles is not None} == ROLES
    assert limits == {name: 60 if name.startswith("GET ") else 10 for name in ROLES} | UNUSUAL_LIMITS


@pytest.mark.parametrize("route", ROLES)
async def test_a_route_lets_in_exactly_its_roles(site: Site, route: str) -> None:
    method, template = route.split(" ")
    path = template.format_map(
        {
            "pluginId": "ghost",
            "version": "1.0.0",
            "deploymentId": f"dep_{'0' * 32}",
            "environment": "Development",
            "freezeId": f"frz_{'0' * 32}",
            "pipelineId": f"pip_{'0' * 32}",
            "sandboxId": f"sbx_{'0' * 32}",
            "user": "ghost",
            "tenant": "acme",
            "name": "ghost",
            "tokenId": f"{'tnt' if 'tenants' in template else 'svc'}_{'0' * 32}",
            "keyId": "0" * 64,
            "approvalId": f"dep_{'0' * 32}",
            "ruleId": "ghost",
        }
    )
    for person, role in PEOPLE.items():
        answer = await site.clients[person].request(method, path)
        assert (answer.status_code == 403) == (role not in ROLES[route]), (person, answer.text)
        assert answer.status_code != 401
    error_of(await site.nobody.request(method, path), 401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic token-of-admin",
        "token-of-admin",
        "Bearer token-of-admi",
        "Bearer token-of-adminn",
    ],
)
async def test_a_wrong_token_is_a_401_that_says_how(site: Site, header: str) -> None:
    answer = await site.nobody.get(f"{API}/plugins", headers={"Authorization": header})
    error = error_of(answer, 401, "UNAUTHORIZED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "token-of" not in json.dumps(error)


async def test_the_caller_is_known_before_the_body_is_read(site: Site) -> None:
    for body in (b'{"wrong": 1}', b"{", b"\xff" * 100):
        content: dict[str, Any] = {"content": body, "headers": {"Content-Type": "application/json"}}
        error_of(await site.nobody.post(f"{API}/plugins", **content), 401, "UNAUTHORIZED")
        error_of(await site.viewer.post(f"{API}/plugins", **content), 403, "FORBIDDEN")
        error_of(await site.admin.post(f"{API}/plugins", **content), 400, "VALIDATION_ERROR")


async def test_a_bearer_token_is_taken_as_the_rfc_writes_it(site: Site) -> None:
    identify = site.container.authenticator.identify
    assert (await identify("bearer token-of-viewer")).user == "viewer"
    assert (await identify("Bearer token-of-owner ")).tenants == {"acme"}
    for wrong in (None, "Bearer \udcff", "Bearer token-of-", "Bearer ü.ü.ü", "Bearer " + "x" * 50_000):
        with pytest.raises(Unauthorized):
            await identify(wrong)


async def test_nobody_is_known_without_development_users(tmp_path: Any) -> None:
    transport = httpx.ASGITransport(make_site(tmp_path, api={"development_users": ()}).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        answer = await client.get(f"{API}/plugins", headers={"Authorization": "Bearer token-of-admin"})
    error_of(answer, 401, "UNAUTHORIZED")


async def post_raw(site: Site, content: bytes, kind: str = "application/json") -> httpx.Response:
    return await site.admin.post(f"{API}/plugins", content=content, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "JSON object"),
        (b"[]", "JSON object"),
        (b'"greeter"', "JSON object"),
        (b"{", "is not JSON"),
        (b'{"name": "greeter",}', "is not JSON"),
        (b'{"name": NaN}', "NaN"),
        (b'{"name": "greeter", "name": "other"}', "name: is given twice"),
        (b'{"name": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_body_that_is_no_strict_json_is_refused(site: Site, content: bytes, words: str) -> None:
    assert words in error_of(await post_raw(site, content), 400, "VALIDATION_ERROR")["message"]
    assert (await site.admin.get(f"{API}/plugins")).json()["total"] == 0


async def test_a_body_of_another_kind_is_refused(site: Site) -> None:
    error = error_of(await post_raw(site, b'{"name": "greeter"}', "text/plain"), 400, "VALIDATION_ERROR")
    assert "application/json" in fields_of(error)["(body)"]


async def test_a_body_over_the_limit_is_refused_declared_or_not(site: Site) -> None:
    big = b'{"name": "greeter", "description": "' + b"x" * MAX_JSON_BYTES + b'"}'
    error_of(await post_raw(site, big), 413, "PAYLOAD_TOO_LARGE")

    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    answer = await site.admin.post(f"{API}/plugins", content=chunks(), headers={"Content-Type": "application/json"})
    error_of(answer, 413, "PAYLOAD_TOO_LARGE")
    assert sent <= 2 * MAX_JSON_BYTES


async def test_every_answer_carries_ids_and_security_headers(site: Site) -> None:
    for client, path in ((site.admin, f"{API}/plugins"), (site.nobody, "/health"), (site.nobody, "/nowhere")):
        answer = await client.get(path)
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Trace-Id"])
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_callers_ids_are_kept_when_they_are_clean(site: Site) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"X-Request-Id": "order-7", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    answer = await site.admin.get(f"{API}/plugins/ghost", headers=headers)
    assert answer.headers["X-Request-Id"] == "order-7"
    assert error_of(answer, 404, "NOT_FOUND")["traceId"] == trace
    dirty = await site.admin.get(f"{API}/plugins", headers={"X-Request-Id": "a b;c", "traceparent": "00-zz-1-01"})
    assert re.fullmatch(r"[0-9a-f]{32}", dirty.headers["X-Request-Id"])


async def test_unknown_paths_and_methods_get_the_envelope(site: Site) -> None:
    error_of(await site.admin.get("/nowhere"), 404, "NOT_FOUND")
    error_of(await site.admin.get(f"{API}/plugins/"), 404, "NOT_FOUND")
    answer = await site.admin.patch(f"{API}/plugins")
    error = error_of(answer, 405, "METHOD_NOT_ALLOWED")
    assert "Allow" in answer.headers
    assert "PATCH" in error["message"]


async def test_what_nobody_expected_is_logged_and_not_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(name: str) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(site.container.plugins, "get", broken)
    answer = await site.viewer.get(f"{API}/plugins/greeter")
    error = error_of(answer, 500, "INTERNAL_ERROR")
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    assert any(error["traceId"] in record.getMessage() and record.exc_info for record in caplog.records)


async def test_the_openapi_document_names_every_route_and_the_envelope(site: Site) -> None:
    document = (await site.nobody.get("/openapi.json")).json()
    told = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert told == set(ROLES) | set(WITHOUT_TOKEN) | OPEN - PAGES
    assert "HTTPBearer" in document["components"]["securitySchemes"]
    upload = document["paths"]["/api/v1/plugins/{pluginId}/versions"]["post"]["requestBody"]["content"]
    assert upload["multipart/form-data"]["schema"]["required"] == ["version", "binary"]
    for name in ROLES:
        method, path = name.split(" ")
        assert "409" in document["paths"][path][method.lower()]["responses"]


async def test_the_docs_page_names_every_route_and_fetches_nothing(site: Site) -> None:
    answer = await site.nobody.get("/docs")
    assert answer.status_code == 200
    for name in ROLES:
        assert name.split(" ")[1] in answer.text
    assert "<script" not in answer.text
    assert not re.search(r"(src|href)=\"?(https?:)?//", answer.text)


async def test_the_version_is_told(site: Site) -> None:
    assert (await site.nobody.get("/health")).json() == {"status": "ok", "version": operations.package_version()}
