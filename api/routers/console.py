"""The console at /console: a page for people, out of a handful of files that are read once, when the api starts.

No path of a request ever reaches the file system: a name is in the table or it is a 404. The files hold no data; what the
page shows it asks of /api/v1 with its user's token. Neighbours: api/console holds the files, docs/console.md tells about them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from api.conditional import matches

router = APIRouter(tags=["console"], include_in_schema=False)

INDEX = "index.html"
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Nothing inline, nothing from elsewhere; with no trusted type at all, no script can turn text into markup."""


@dataclass(frozen=True, slots=True)
class PageFile:
    content: bytes
    media_type: str
    etag: str


def _read() -> Mapping[str, PageFile]:
    found: dict[str, PageFile] = {}
    for file in files("api").joinpath("console").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[file.name] = PageFile(content, f"{kind}; charset=utf-8", etag)
    return found


FILES = _read()

IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match")]


@router.get("/console")
async def console(if_none_match: IfNoneMatch = None) -> Response:
    """The page."""
    return _answer(FILES[INDEX], if_none_match)


@router.get("/console/")
async def console_with_slash() -> Response:
    """The page's addresses are relative to /console, so that a proxy may put the api below a path of its own."""
    return RedirectResponse("../console", status_code=308)


@router.get("/console/{name}")
async def console_file(name: str, if_none_match: IfNoneMatch = None) -> Response:
    """One of its files."""
    found = FILES.get(name)
    if found is None or name == INDEX:
        raise HTTPException(404)
    return _answer(found, if_none_match)


def _answer(file: PageFile, if_none_match: str | None) -> Response:
    """Kept by a browser, but asked for again each time: an api of another version brings another page."""
    headers = {
        "ETag": file.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
    if if_none_match is not None and matches(if_none_match, file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
