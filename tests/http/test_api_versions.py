"""Uploading, reading and downloading versions; whatever is refused leaves no row, no object and no file."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from hotswap.adapters.memory.records import MemoryUnitOfWork
from hotswap.domain.errors import InvalidInput, Unavailable
from hotswap.domain.lifecycle import PluginStatus
from tests.http.bundles import bundle, manifest, sha256
from tests.http.site import API, MAX_BYTES, Site, error_of, fields_of

VERSIONS = f"{API}/plugins/greeter/versions"


async def send(site: Site, binary: bytes, client: httpx.AsyncClient | None = None, **fields: Any) -> httpx.Response:
    data = {"version": "1.0.0", **fields}
    files = {"binary": ("plugin.zip", binary, "application/zip")}
    return await (client or site.admin).post(VERSIONS, data=data, files=files)


async def nothing_was_kept(site: Site) -> None:
    assert (await site.admin.get(VERSIONS)).json()["total"] == 0
    assert site.artifacts.objects == {}
    assert site.leftovers() == []
    log = (await site.admin.get(f"{API}/audit-logs")).json()["items"]
    assert [item["eventType"] for item in log] == ["plugin.registered"]


async def test_what_only_the_registry_refuses_leaves_no_object(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(unit: MemoryUnitOfWork) -> None:
        raise InvalidInput("cannot be stored: manifest.description holds a NUL character")

    await site.register()
    with monkeypatch.context() as patch:
        patch.setattr(MemoryUnitOfWork, "commit", refuse)
        error_of(await site.upload(), 400, "VALIDATION_ERROR")
    await nothing_was_kept(site)


async def test_a_version_is_stored_registered_and_read_back(site: Site) -> None:
    await site.register()
    content = bundle("greeter")
    made = await send(
        site, content, client=site.developer, releaseNotes="first", manifest=json.dumps(manifest("greeter"))
    )
    assert made.status_code == 201, made.text
    version = made.json()
    assert (
        version
        | {
            "pluginId": "greeter",
            "version": "1.0.0",
            "digest": sha256(content),
            "sizeBytes": len(content),
            "status": "PendingApproval",
            "createdBy": "developer",
            "releaseNotes": "first",
        }
        == version
    )
    assert version["manifest"]["entryPoint"] == "greeter:Plugin"
    assert list(site.artifacts.objects.values()) == [content]
    assert (await site.viewer.get(made.headers["Location"])).json() == version
    assert site.leftovers() == []
    plugin = (await site.viewer.get(f"{API}/plugins/greeter")).json()
    assert (plugin["status"], plugin["currentVersion"]) == (PluginStatus.ACTIVE, "1.0.0")


async def test_versions_are_listed_newest_first(site: Site) -> None:
    await site.ship("greeter", "1.9.0", "1.10.0", "1.2.0")
    page = (await site.viewer.get(VERSIONS, params={"limit": 2})).json()
    assert [item["version"] for item in page["items"]] == ["1.10.0", "1.9.0"]
    assert (page["total"], page["hasMore"], page["nextOffset"]) == (3, True, 2)
    error_of(await site.viewer.get(f"{API}/plugins/ghost/versions"), 404, "NOT_FOUND")
    error_of(await site.viewer.get(f"{VERSIONS}/9.9.9"), 404, "NOT_FOUND")
    error_of(await site.viewer.get(f"{VERSIONS}/newest"), 400, "VALIDATION_ERROR")


async def test_a_download_gives_the_same_bytes_with_their_digest(site: Site) -> None:
    await site.ship()
    content = bundle("greeter")
    answer = await site.viewer.get(f"{VERSIONS}/1.0.0/download")
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="greeter-1.0.0.zip"'
    assert answer.headers["ETag"] == f'"{sha256(content)}"'
    assert answer.headers["Content-Length"] == str(len(content))
    assert site.leftovers() == []
    unchanged = await site.viewer.get(f"{VERSIONS}/1.0.0/download", headers={"If-None-Match": answer.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_a_corrupt_artifact_is_never_handed_out(site: Site) -> None:
    await site.ship()
    site.artifacts.objects[site.artifact()] = b"something else"
    error = error_of(await site.viewer.get(f"{VERSIONS}/1.0.0/download"), 500, "INTERNAL_ERROR")
    assert "artifacts/" not in json.dumps(error)
    del site.artifacts.objects[site.artifact()]
    error_of(await site.viewer.get(f"{VERSIONS}/1.0.0/download"), 404, "NOT_FOUND")
    assert site.leftovers() == []


async def test_a_version_that_is_there_is_refused_whatever_its_bytes(site: Site) -> None:
    await site.ship()
    same = error_of(await site.upload(), 409, "CONFLICT")
    assert sha256(bundle("greeter")) in same["message"]
    error_of(await send(site, bundle("greeter", padding=10)), 409, "CONFLICT")
    assert list(site.artifacts.objects) == [site.artifact()]
    assert (await site.admin.get(VERSIONS)).json()["total"] == 1


async def test_of_ten_twins_at_once_one_is_stored_and_its_artifact_stays(site: Site) -> None:
    await site.register()
    answers = await asyncio.gather(*(site.upload() for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert list(site.artifacts.objects) == [site.artifact()]


async def test_of_rivals_with_other_bytes_only_the_winners_artifact_stays(site: Site) -> None:
    await site.register()
    answers = await asyncio.gather(*(send(site, bundle("greeter", padding=index)) for index in range(1, 8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 6
    winner = next(answer.json() for answer in answers if answer.status_code == 201)
    assert [key.endswith(f"{winner['digest']}.zip") for key in site.artifacts.objects] == [True]


async def test_a_lying_digest_is_named_and_nothing_is_kept(site: Site) -> None:
    await site.register()
    content = bundle("greeter")
    error = error_of(await send(site, content, digest="0" * 64), 400, "VALIDATION_ERROR")
    assert sha256(content) in fields_of(error)["digest"]
    await nothing_was_kept(site)
    assert (await send(site, content, digest=f"sha256:{sha256(content).upper()}")).status_code == 201


@pytest.mark.parametrize(
    "binary",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a zip at all", id="no zip"),
        pytest.param(bundle("greeter")[:-30], id="cut off"),
        pytest.param(bundle("greeter")[:60] + b"\xff" * 20 + bundle("greeter")[80:], id="damaged"),
        pytest.param(b"MZ junk before it" + bundle("greeter"), id="prepended junk"),
    ],
)
async def test_a_broken_zip_is_refused_and_nothing_is_kept(site: Site, binary: bytes) -> None:
    await site.register()
    error = error_of(await send(site, binary), 400, "VALIDATION_ERROR")
    assert error["details"]
    await nothing_was_kept(site)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"entryPoint": "nonsense"}, "manifest.entryPoint"),
        ({"colour": "red"}, "manifest.colour"),
        ({"methods": []}, "manifest.methods"),
        ({"smokeTests": [{"method": "ghost"}]}, "manifest.smokeTests.0.method"),
    ],
)
async def test_manifest_faults_are_named(site: Site, changes: dict[str, Any], field: str) -> None:
    await site.register()
    error = error_of(await send(site, bundle("greeter", **changes)), 400, "VALIDATION_ERROR")
    assert field in fields_of(error), error
    await nothing_was_kept(site)


async def test_url_fields_and_manifest_must_agree(site: Site) -> None:
    await site.register()
    error = error_of(await send(site, bundle("other")), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"manifest.name"}
    error = error_of(await send(site, bundle("greeter", "2.0.0")), 400, "VALIDATION_ERROR")
    assert "2.0.0" in fields_of(error)["version"]
    told = manifest("greeter", description="not what is in the zip")
    error = error_of(await send(site, bundle("greeter"), manifest=json.dumps(told)), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"manifest.description"}
    error = error_of(await send(site, bundle("greeter"), manifest="{"), 400, "VALIDATION_ERROR")
    assert all(field.startswith("manifest.") for field in fields_of(error))
    await nothing_was_kept(site)


@pytest.mark.parametrize("version", ["", "1.0", "latest", "01.0.0", "1.0.0 "])
async def test_a_version_that_is_no_semver_is_refused(site: Site, version: str) -> None:
    await site.register()
    error = error_of(await send(site, bundle("greeter"), version=version), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {"version"}
    await nothing_was_kept(site)


async def test_an_oversized_binary_is_refused_at_the_first_byte_too_many(site: Site) -> None:
    await site.register()
    error = error_of(await send(site, b"\x00" * (MAX_BYTES + 1)), 413, "PAYLOAD_TOO_LARGE")
    assert str(MAX_BYTES) in error["message"]
    await nothing_was_kept(site)


async def test_a_declared_size_over_the_limit_is_refused_before_a_byte_is_read(site: Site) -> None:
    await site.register()

    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"--x"

    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(100 * 1024 * 1024)}
    error_of(await site.admin.post(VERSIONS, content=body(), headers=headers), 413, "PAYLOAD_TOO_LARGE")
    assert not read


async def test_an_endless_body_is_cut_off(site: Site) -> None:
    await site.register()
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="binary"; filename="a.zip"\r\n\r\n'
        while True:
            sent += 8192
            yield b"\x00" * 8192

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    error_of(await site.admin.post(VERSIONS, content=endless(), headers=headers), 413, "PAYLOAD_TOO_LARGE")
    assert sent < 2 * MAX_BYTES
    await nothing_was_kept(site)


async def test_an_upload_that_stands_still_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.register()
    monkeypatch.setattr("api.services.uploads.IDLE_SECONDS", 0.05)

    async def stuck() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="binary"; filename="a.zip"\r\n\r\nPK'
        await asyncio.Event().wait()

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await asyncio.wait_for(site.admin.post(VERSIONS, content=stuck(), headers=headers), 5)
    assert "stood still" in error_of(answer, 400, "VALIDATION_ERROR")["message"]
    await nothing_was_kept(site)


async def test_a_start_sweeps_what_a_killed_process_left_and_nothing_younger(site: Site) -> None:
    for name, age in (("uploads/old", 7200), ("downloads/old", 7200), ("uploads/young", 60)):
        directory = site.work_dir / name
        directory.mkdir(parents=True)
        (directory / "binary.zip").write_bytes(b"x")
        then = time.time() - age
        os.utime(directory, (then, then))
    async with site.app.router.lifespan_context(site.app):
        left = {str(path.relative_to(site.work_dir)) for path in site.work_dir.glob("*/*")}
    assert left == {"uploads/young"}


def part(name: str, content: str = "x") -> str:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{content}\r\n'


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param(part("version", "1.0.0") + "--x--\r\n", "binary", id="no binary"),
        pytest.param(part("version", "1.0.0") * 2 + "--x--\r\n", "version", id="twice"),
        pytest.param(part("colour") + "--x--\r\n", "colour", id="unknown"),
        pytest.param(part("version", "1.0.0"), "(body)", id="no end"),
        pytest.param(part("manifest", "x" * 300_000) + "--x--\r\n", "manifest", id="field too long"),
        pytest.param(part("releaseNotes", "a\x00b") + "--x--\r\n", "releaseNotes", id="NUL"),
        pytest.param("--x\r\n\r\nno header\r\n--x--\r\n", "(unnamed)", id="no name"),
        pytest.param("--y\r\nbad", "(body)", id="other boundary"),
        pytest.param("", "(body)", id="nothing"),
    ],
)
async def test_a_broken_multipart_body_is_refused_by_field(site: Site, body: str, field: str) -> None:
    await site.register()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    error = error_of(await site.admin.post(VERSIONS, content=body, headers=headers), 400, "VALIDATION_ERROR")
    assert fields_of(error).keys() == {field}
    await nothing_was_kept(site)


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "", f"multipart/form-data; boundary={'x' * 999}"]
)
async def test_another_content_type_is_refused(site: Site, kind: str) -> None:
    await site.register()
    error = error_of(
        await site.admin.post(VERSIONS, content=b"x", headers={"Content-Type": kind}), 400, "VALIDATION_ERROR"
    )
    assert fields_of(error).keys() == {"Content-Type"}


async def test_an_unknown_plugin_is_told_before_the_upload(site: Site) -> None:
    error_of(await site.upload("ghost"), 404, "NOT_FOUND")
    assert site.artifacts.objects == {}


async def test_a_repeat_with_the_same_key_gets_the_first_answer(site: Site) -> None:
    await site.register()
    keyed = {"Idempotency-Key": "upload-1"}

    async def push(binary: bytes) -> httpx.Response:
        files = {"binary": ("plugin.zip", binary, "application/zip")}
        return await site.admin.post(VERSIONS, data={"version": "1.0.0"}, files=files, headers=keyed)

    first, again = await push(bundle("greeter")), await push(bundle("greeter"))
    assert (again.status_code, again.json()) == (201, first.json())
    error_of(await push(bundle("greeter", padding=5)), 409, "CONFLICT")


async def test_an_object_store_that_is_away_is_a_503_and_leaves_no_row(site: Site) -> None:
    await site.register()
    site.artifacts.reachable = False
    error_of(await site.upload(), 503, "SERVICE_UNAVAILABLE")
    site.artifacts.reachable = True
    await nothing_was_kept(site)


async def test_an_artifact_whose_registration_is_unsure_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit's answer was lost: the row may be there a moment later, so its bytes must be."""
    await site.register()

    async def lost(unit: MemoryUnitOfWork) -> None:
        raise Unavailable("the connection broke during commit")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryUnitOfWork, "commit", lost)
        error_of(await site.upload(), 503, "SERVICE_UNAVAILABLE")
    assert list(site.artifacts.objects) == [site.artifact()]
    assert (await site.admin.get(VERSIONS)).json()["total"] == 0
    assert (await site.upload()).status_code == 201


async def test_outcomes_of_uploads_are_counted(site: Site) -> None:
    await site.ship()
    await site.upload()
    figures = (await site.nobody.get("/metrics")).text
    assert 'plugin_versions_uploaded_total{outcome="stored"} 1.0' in figures
    assert 'plugin_versions_uploaded_total{outcome="Conflict"} 1.0' in figures


async def test_a_manifest_that_asks_for_more_than_there_is_is_refused_by_field(site: Site) -> None:
    await site.register()
    greedy = bundle("greeter", resources={"memoryMb": 8192, "scratchMb": 4096})
    error = error_of(await send(site, greedy), 400, "VALIDATION_ERROR")
    assert {"manifest.resources.memoryMb", "manifest.resources.scratchMb"} <= set(fields_of(error))
    assert "HOTSWAP_SANDBOX__MAX_MEMORY_MB" in json.dumps(error)
    await nothing_was_kept(site)
