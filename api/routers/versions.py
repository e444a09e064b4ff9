"""Routes of versions: /api/v1/plugins/{pluginId}/versions. The upload streams; FastAPI never sees its body."""

import base64
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from api.conditional import CACHED, IfNoneMatch, conditional, matches
from api.dependencies import ContainerDep, IdempotencyKey, PluginId, VersionId, once
from api.errors import DOCUMENTED
from api.schemas.common import ListOf
from api.schemas.plugins import VersionOut
from api.security import bearer, require
from api.services.actor import Actor
from api.services.uploads import received_upload
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from hotswap.domain.registry import Page

router = APIRouter(
    prefix="/api/v1/plugins/{pluginId}/versions",
    tags=["versions"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]
Uploader = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER, limit=5))]

_UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["version", "binary"],
                    "additionalProperties": False,
                    "properties": {
                        "version": {"type": "string", "description": "SemVer; must be the manifest's"},
                        "releaseNotes": {"type": "string", "maxLength": 20000},
                        "manifest": {"type": "string", "description": "JSON; must equal the manifest in the zip"},
                        "digest": {"type": "string", "description": "SHA-256 of the zip, checked when given"},
                        "signature": {"type": "string", "description": "Ed25519 over the digest, base64; with keyId"},
                        "keyId": {"type": "string", "description": "the publisher key that signed, SHA-256"},
                        "draft": {"type": "string", "enum": ["true", "false"], "description": "for Development only"},
                        "binary": {"type": "string", "format": "binary", "description": "the plugin's zip"},
                    },
                }
            }
        },
    }
}


@router.post("", status_code=201, openapi_extra=_UPLOAD_BODY)
async def upload_version(
    request: Request,
    response: Response,
    plugin_id: PluginId,
    actor: Uploader,
    services: ContainerDep,
    key: IdempotencyKey = None,
) -> VersionOut:
    """Upload an immutable version. 413 over the size limit, 409 when the version is there already."""
    await services.versions.expect_open(plugin_id)
    async with received_upload(
        request.headers.get("content-type", ""),
        request.headers.get("content-length"),
        request.stream(),
        services.settings.work_dir,
        services.settings.max_plugin_bytes,
    ) as upload:
        version = await services.versions.upload(plugin_id, upload, actor, once(actor, "versions.upload", key))
    response.headers["Location"] = version.links.self
    return version


@router.get("")
async def list_versions(
    plugin_id: PluginId, query: Annotated[Page, Query()], actor: Anyone, services: ContainerDep
) -> ListOf[VersionOut]:
    """Versions of a plugin, newest SemVer first."""
    items, total = await services.versions.list(plugin_id, query)
    return ListOf[VersionOut].of(items, total, query)


@router.get("/{version}", response_model=VersionOut, responses=CACHED)
async def get_version(
    plugin_id: PluginId, version: VersionId, actor: Anyone, services: ContainerDep, if_none_match: IfNoneMatch = None
) -> Response:
    """One version. With If-None-Match: 304 while nothing has changed."""
    return conditional(await services.versions.get(plugin_id, version), if_none_match)


@router.get("/{version}/download", response_class=FileResponse)
async def download_version(
    plugin_id: PluginId,
    version: VersionId,
    actor: Anyone,
    services: ContainerDep,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The zip, its digest checked against the registry's just now. ETag is the SHA-256."""
    found = await services.versions.get(plugin_id, version)
    digest = base64.b64encode(bytes.fromhex(found.digest)).decode()
    headers = {"ETag": f'"{found.digest}"', "Repr-Digest": f"sha-256=:{digest}:"}
    if if_none_match and matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(services.versions.fetched(found))
        kept = stack.pop_all()  # the file lives until the response is sent
    return FileResponse(
        path,
        media_type="application/zip",
        filename=f"{plugin_id}-{version}.zip",
        headers=headers,
        background=BackgroundTask(kept.aclose),
    )
