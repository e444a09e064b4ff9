"""What the api takes strictly: names in paths, parameters, methods, types in bodies, and time for a body to come."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.http.site import API, Site, error_of, fields_of


async def test_a_body_that_drips_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.strict.BODY_SECONDS", 0.05)

    async def drips() -> Any:
        yield b'{"name": '
        await asyncio.Event().wait()

    sending = site.admin.post(f"{API}/plugins", content=drips(), headers={"Content-Type": "application/json"})
    error = error_of(await asyncio.wait_for(sending, 20), 400, "VALIDATION_ERROR")
    assert "send it again" in error["message"]
    assert (await site.admin.get(f"{API}/plugins")).json()["total"] == 0


NAMES = (
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "..%5c..",
    "%00",
    "a%00b",
    "'%20OR%201=1--",
    "%ff%fe",
    "a;DROP%20TABLE%20plugins",
    "%E2%80%AE",
)


@pytest.mark.parametrize("path", ["plugins/{}", "plugins/{}/versions/1.0.0/download", "tenants/{}/plugins", "users/{}"])
async def test_a_name_in_a_path_is_a_name_or_nothing(site: Site, path: str) -> None:
    await site.ship()
    for name in NAMES:
        answer = await site.admin.get(httpx.URL(f"http://api.test{API}/{path.format(name)}"))
        assert answer.status_code in (400, 404), (name, answer.text)
        assert answer.json()["error"]["code"] in ("VALIDATION_ERROR", "NOT_FOUND")
    assert (await site.admin.get(f"{API}/plugins/greeter")).status_code == 200


async def test_a_405_names_every_method_of_the_path_and_no_fixed_word_is_an_id(site: Site) -> None:
    for path, allowed in (
        ("plugins/greeter", "DELETE, GET, PUT"),
        ("deployments/plan", "POST"),
        ("plugins/greeter/versions/complete", "POST"),
        ("plugins/greeter/versions/1.0.0", "GET"),
    ):
        answer = await site.admin.patch(f"{API}/{path}")
        assert answer.headers["Allow"] == allowed, path
        assert f"allowed: {allowed}" in error_of(answer, 405, "METHOD_NOT_ALLOWED")["message"]
    for path in ("deployments/plan", "plugins/greeter/versions/complete"):
        error_of(await site.admin.get(f"{API}/{path}"), 405, "METHOD_NOT_ALLOWED")


async def test_a_parameter_given_twice_is_refused(site: Site) -> None:
    error = error_of(await site.admin.get(f"{API}/plugins?limit=1&search=a&limit=100"), 400, "VALIDATION_ERROR")
    assert error["message"] == "limit: is given twice in the query"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("authentication/signing-keys/rotate", {"revoke": 0}, "revoke"),
        ("freezes", {"reason": "x", "window": {"kind": "once", "starts": 0}}, "window.once.starts"),
        ("service-tokens", {"name": "ci", "roles": ["Viewer"], "lifetime": 86400}, "lifetime"),
    ],
)
async def test_a_number_is_no_truth_no_instant_and_no_duration(site: Site, path: str, body: Any, field: str) -> None:
    error = error_of(await site.admin.post(f"{API}/{path}", json=body), 400, "VALIDATION_ERROR")
    assert list(fields_of(error)) == [field]


async def test_the_document_tells_what_commands_need_and_which_tag_a_union_takes(site: Site) -> None:
    document = (await site.nobody.get("/openapi.json")).json()
    abort = document["paths"]["/api/v1/deployments/{deploymentId}/abort"]["post"]["requestBody"]
    assert abort["required"] is True
    assert abort["content"]["application/json"]["schema"]["required"] == ["reason"]
    assert "kind" in document["components"]["schemas"]["Once"]["required"]


async def test_a_name_that_is_none_is_told_what_to_write_and_not_a_regular_expression(site: Site) -> None:
    answer = await site.admin.post(f"{API}/plugins", json={"name": "Bad Name", "displayName": "x", "type": "Other"})
    said = fields_of(error_of(answer, 400, "VALIDATION_ERROR"))["name"]
    assert "use 1 to 63 lower-case letters, digits and inner hyphens" in said
    assert "^" not in said
    window = {"kind": "daily", "start": "25:00", "end": "06:00"}
    answer = await site.admin.post(f"{API}/freezes", json={"reason": "x", "window": window})
    said = fields_of(error_of(answer, 400, "VALIDATION_ERROR"))["window.daily.start"]
    assert "write a time of day from 00:00 to 23:59" in said
