"""Uploads past the facade: what came to the object store is judged as any upload, and nothing of a refused one stays."""

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from hotswap.domain.ids import upload_key
from tests.http.bundles import bundle, manifest, sha256
from tests.http.site import API, MAX_BYTES, Site, error_of, fields_of

VERSIONS = f"{API}/plugins/greeter/versions"
LARGE = bundle("greeter", padding=2 * MAX_BYTES)
"""Over what an upload through the api may be."""


async def begin(site: Site, content: bytes = LARGE, user: str = "developer", **changes: Any) -> httpx.Response:
    body = {"version": "1.0.0", "digest": sha256(content), "sizeBytes": len(content), **changes}
    return await site.clients[user].post(f"{VERSIONS}/presigned", json=body)


async def complete(site: Site, upload_id: str, user: str = "developer", **more: Any) -> httpx.Response:
    return await site.clients[user].post(f"{VERSIONS}/complete", json={"uploadId": upload_id, **more})


async def sent(site: Site, content: bytes = LARGE, **changes: Any) -> str:
    """Begun, and the bytes have come to the store."""
    begun = await begin(site, content, **changes)
    assert begun.status_code == 201, begun.text
    upload_id: str = begun.json()["uploadId"]
    site.artifacts.objects[upload_key("greeter", upload_id)] = content
    return upload_id


async def test_a_large_version_goes_past_the_api_and_is_registered(site: Site) -> None:
    await site.register()
    answer = await site.developer.post(VERSIONS, data={"version": "1.0.0"}, files={"binary": ("p.zip", LARGE)})
    assert "versions/presigned" in error_of(answer, 413, "PAYLOAD_TOO_LARGE")["message"]
    begun = (await begin(site)).json()
    assert (begun["method"], begun["sizeBytes"]) == ("POST", len(LARGE))
    key = begun["fields"]["key"]
    early = error_of(await complete(site, begun["uploadId"]), 404, "NOT_FOUND")
    assert "nothing was uploaded" in early["message"]
    site.artifacts.objects[key] = LARGE
    made = await complete(site, begun["uploadId"], releaseNotes="large", manifest=json.dumps(manifest("greeter")))
    assert made.status_code == 201, made.text
    version = made.json()
    assert (version["digest"], version["sizeBytes"], version["releaseNotes"]) == (sha256(LARGE), len(LARGE), "large")
    assert made.headers["Location"] == version["links"]["self"]
    assert list(site.artifacts.objects.values()) == [LARGE]
    assert key not in site.artifacts.objects
    assert site.leftovers() == []
    assert (await site.viewer.get(f"{VERSIONS}/1.0.0/download")).content == LARGE
    assert (await complete(site, begun["uploadId"])).json() == version  # an answer that was lost is given again


@pytest.mark.parametrize(
    ("content", "changes", "body", "status"),
    [
        (b"not a zip at all", {}, {}, 400),
        (LARGE, {"version": "1.0.1"}, {}, 400),  # the manifest says 1.0.0
        (bundle("somebody-else"), {}, {}, 400),
        (LARGE, {}, {"manifest": json.dumps(manifest("greeter", author="me"))}, 400),
        (LARGE, {}, {"signature": "x", "keyId": "y"}, 400),
        (LARGE, {"digest": "0" * 64}, {}, 500),  # other bytes than were promised: never used
        (LARGE, {"sizeBytes": len(LARGE) - 1}, {}, 413),
    ],
)
async def test_what_is_refused_leaves_nothing_behind(
    site: Site, content: bytes, changes: dict[str, Any], body: dict[str, Any], status: int
) -> None:
    await site.register()
    upload_id = await sent(site, content, **changes)
    answer = await complete(site, upload_id, **body)
    assert answer.status_code == status, answer.text
    assert site.artifacts.objects == {}
    assert site.leftovers() == []
    assert (await site.viewer.get(VERSIONS)).json()["total"] == 0


async def test_an_upload_is_its_beginners_alone_and_ends_with_its_url(site: Site) -> None:
    await site.register()
    await site.register("other")
    upload_id = await sent(site)
    error_of(await complete(site, upload_id, user="admin"), 403, "FORBIDDEN")
    elsewhere = await site.developer.post(f"{API}/plugins/other/versions/complete", json={"uploadId": upload_id})
    error_of(elsewhere, 404, "NOT_FOUND")
    error_of(await complete(site, f"upl_{'0' * 32}"), 404, "NOT_FOUND")
    clock = site.records.clock
    site.records.clock = lambda: clock() + timedelta(hours=2)
    assert "expired at" in error_of(await complete(site, upload_id), 409, "CONFLICT")["message"]
    assert (await site.admin.post(f"{API}/retention/sweep")).json()["uploads"] == 1
    assert site.artifacts.objects == {}
    error_of(await complete(site, upload_id), 404, "NOT_FOUND")


async def test_while_the_store_is_away_an_upload_can_be_completed_later(site: Site) -> None:
    await site.register()
    upload_id = await sent(site)
    site.artifacts.reachable = False
    error_of(await complete(site, upload_id), 503, "SERVICE_UNAVAILABLE")
    site.artifacts.reachable = True
    assert (await complete(site, upload_id)).status_code == 201


async def test_an_upload_is_begun_only_for_what_can_be_registered(site: Site) -> None:
    error_of(await begin(site), 404, "NOT_FOUND")
    await site.ship()
    error_of(await begin(site), 409, "CONFLICT")
    most = site.container.settings.max_presigned_bytes
    error_of(await begin(site, version="2.0.0", sizeBytes=most + 1), 413, "PAYLOAD_TOO_LARGE")
    for field, wrong in (("version", "two"), ("digest", "ABC"), ("sizeBytes", 0)):
        more: dict[str, Any] = {field: wrong}
        assert field in fields_of(error_of(await begin(site, **more), 400, "VALIDATION_ERROR"))
    assert site.records.committed.uploads == {}
