"""Answers that a client may keep and ask for again: an ETag over the body, 304 while it is the same (RFC 9110, 13).

What is read stays read: the saving is the body on the wire, not the query. Routes of single resources use it.
"""

import hashlib
from typing import Annotated, Any

from fastapi import Header
from pydantic import BaseModel
from starlette.responses import Response

IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="ETags that are there already: 304")]

CACHED: dict[int | str, dict[str, Any]] = {
    304: {"description": "it is still what the ETag in If-None-Match stands for"}
}
"""For the OpenAPI document."""


def conditional(document: BaseModel, if_none_match: str | None) -> Response:
    """The document as JSON with its ETag, or 304 without a body. It is the caller's own: no shared cache may keep it."""
    body = document.model_dump_json(by_alias=True).encode()
    etag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if if_none_match is not None and matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison: the W/ does not count."""
    given = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in ("*", etag.removeprefix("W/")) for tag in given)
