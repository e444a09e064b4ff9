"""The console's files: what is served, under which policy, and that nothing else can be had through them."""

import asyncio
import re
import socket
from pathlib import Path

import pytest
import uvicorn

from api.routers.console import FILES
from tests.http.site import Site, error_of

FOLDER = Path(__file__).resolve().parents[2] / "api" / "console"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def policy_of(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (part.strip().partition(" ") for part in text.split(";"))}


def test_every_file_of_the_folder_is_served_and_no_other() -> None:
    assert set(FILES) == {path.name for path in FOLDER.iterdir()}


async def test_every_file_comes_with_its_type_a_strict_policy_and_an_etag(site: Site) -> None:
    for name in ("", *sorted(set(FILES) - {"index.html"})):
        path = f"/console/{name}".rstrip("/")
        answer = await site.nobody.get(path)
        assert answer.status_code == 200, path
        headers = answer.headers
        assert headers["Content-Type"] == f"{TYPES[(name or 'index.html').rpartition('.')[2]]}; charset=utf-8"
        policy = policy_of(headers["Content-Security-Policy"])
        for none in ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"):
            assert policy[none] == "'none'", none
        for own in ("script-src", "style-src", "connect-src", "img-src"):
            assert policy[own] == "'self'", own
        assert policy["require-trusted-types-for"] == "'script'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-cache"
        again = await site.nobody.get(path, headers={"If-None-Match": headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == headers["ETag"]
        other = await site.nobody.get(path, headers={"If-None-Match": '"another"'})
        assert other.content == answer.content


async def test_the_page_loads_nothing_from_elsewhere_and_holds_nothing_inline(site: Site) -> None:
    page = (await site.nobody.get("/console")).text
    assert not re.search(r"<script(?![^>]* src=)|<style|\son[a-z]+=|\sstyle=", page)
    for address in re.findall(r"(?:src|href)=\"([^\"]*)\"", page):
        assert address == "#main" or (await site.nobody.get(f"/{address}")).status_code == 200, address
    for name, file in FILES.items():
        text = file.content.decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage", text), (
            name
        )
        for imported in re.findall(r"from \"([^\"]+)\"", text):
            assert imported.removeprefix("./") in FILES, imported


async def test_there_is_no_listing_and_no_way_out_of_the_folder(site: Site) -> None:
    slash = await site.nobody.get("/console/")
    assert (slash.status_code, slash.headers["Location"]) == (308, "../console")
    for wrong in (
        "app.py",
        "index.html",
        "..%2fapp.py",
        "..%2f..%2fpyproject.toml",
        "%00",
        "a/b",
        "app.js/",
    ):
        error_of(await site.nobody.get(f"/console/{wrong}"), 404, "NOT_FOUND")
    error_of(await site.nobody.post("/console"), 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    "target",
    [
        "/console/../app.py",
        "/console/..%2fapp.py",
        "/console/%2e%2e/app.py",
        "/console/.",
        "/console/..",
        "//console/app.py",
        "/console/..\\app.py",
    ],
)
async def test_a_path_that_no_client_tidied_is_refused_too(site: Site, target: str) -> None:
    """httpx and browsers resolve `..` themselves; a socket does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        server = uvicorn.Server(uvicorn.Config(site.app, lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(f"GET {target} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        await writer.wait_closed()
        server.should_exit = True
        await serving
    assert answer.startswith(b"HTTP/1.1 404 "), answer[:200]
    assert b"import" not in answer


async def test_what_the_page_shows_is_kept_by_no_cache(site: Site) -> None:
    await site.ship()
    deployment = (await site.deploy()).json()["deploymentId"]
    for path in ("deployments", f"deployments/{deployment}", "nodes", "authentication/me"):
        answer = await site.viewer.get(f"/api/v1/{path}")
        assert answer.headers["Cache-Control"] == "no-store", path
