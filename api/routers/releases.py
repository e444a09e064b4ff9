"""Routes of what people do to versions: their moves, signatures, presigned uploads, adoption, dependencies, retention."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from activities.retention import SweepReport
from api.dependencies import ContainerDep, IdempotencyKey, PluginId, VersionId, once
from api.errors import DOCUMENTED
from api.openapi import REASON_REQUIRED
from api.schemas.common import ListOf
from api.schemas.plugins import VersionOut
from api.schemas.versions import (
    CompleteIn,
    DependenciesOut,
    MoveIn,
    PresignIn,
    PresignOut,
    PublisherKeyIn,
    PublisherKeyOut,
    RevokeIn,
    SignIn,
    ValidateIn,
    ValidateOut,
)
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.deployment import Environment, Role
from hotswap.domain.lifecycle import VersionEvent
from hotswap.domain.manifest import SemVer
from hotswap.domain.registry import Page
from hotswap.domain.signatures import KeyId
from hotswap.routing.adoption import Adoption

router = APIRouter(
    prefix="/api/v1",
    tags=["versions"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Anyone = Annotated[Actor, Depends(require())]
Author = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER))]
Uploader = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER, limit=5))]
Checker = Annotated[Actor, Depends(require(limit=60))]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
Operator = Annotated[Actor, Depends(require(Role.ADMIN, Role.DEVELOPER, Role.APPROVER, Role.VIEWER))]
"""Everybody but tenants: what names tenants is not for other tenants."""
Move = Annotated[MoveIn | None, Body()]
VERSION = "/plugins/{pluginId}/versions/{version}"


@router.post("/plugins/{pluginId}/versions/presigned", status_code=201)
async def begin_presigned_upload(
    plugin_id: PluginId, body: PresignIn, actor: Uploader, services: ContainerDep
) -> PresignOut:
    """A place in the object store for exactly these bytes. Send the zip there, then complete."""
    return await services.presigned.begin(plugin_id, body, actor)


@router.post("/plugins/{pluginId}/versions/complete", status_code=201)
async def complete_presigned_upload(
    plugin_id: PluginId,
    body: CompleteIn,
    actor: Uploader,
    services: ContainerDep,
    response: Response,
    key: IdempotencyKey = None,
) -> VersionOut:
    """Judge what was sent to the object store, as any upload, and register it. What is refused is removed there."""
    keyed = once(actor, "versions.complete", key)
    version = await services.presigned.complete(plugin_id, body, actor, keyed)
    response.headers["Location"] = version.links.self
    return version


@router.post(f"{VERSION}/submit")
async def submit_version(
    plugin_id: PluginId, version: VersionId, actor: Author, services: ContainerDep, key: IdempotencyKey = None
) -> VersionOut:
    """Offer a Draft for approval: from then on it may go to QA and Staging."""
    keyed = once(actor, "versions.move", key)
    return await services.releases.move(plugin_id, version, VersionEvent.SUBMIT, MoveIn(), actor, keyed)


@router.post(f"{VERSION}/approve")
async def approve_version(
    plugin_id: PluginId,
    version: VersionId,
    actor: Admin,
    services: ContainerDep,
    body: Move = None,
    key: IdempotencyKey = None,
) -> VersionOut:
    """Let a version into Production. Never one's own upload (403)."""
    keyed = once(actor, "versions.move", key)
    return await services.releases.move(plugin_id, version, VersionEvent.APPROVE, body or MoveIn(), actor, keyed)


@router.post(f"{VERSION}/deprecate", openapi_extra=REASON_REQUIRED)
async def deprecate_version(
    plugin_id: PluginId,
    version: VersionId,
    actor: Admin,
    services: ContainerDep,
    body: Move = None,
    key: IdempotencyKey = None,
) -> VersionOut:
    """Advise against a version and tell its tenants; what serves it goes on. A reason is required."""
    keyed = once(actor, "versions.move", key)
    return await services.releases.move(plugin_id, version, VersionEvent.DEPRECATE, body or MoveIn(), actor, keyed)


@router.post(f"{VERSION}/reinstate", openapi_extra=REASON_REQUIRED)
async def reinstate_version(
    plugin_id: PluginId,
    version: VersionId,
    actor: Admin,
    services: ContainerDep,
    body: Move = None,
    key: IdempotencyKey = None,
) -> VersionOut:
    """Take a deprecation back. The version has to be approved anew. A reason is required."""
    keyed = once(actor, "versions.move", key)
    return await services.releases.move(plugin_id, version, VersionEvent.REINSTATE, body or MoveIn(), actor, keyed)


@router.post(f"{VERSION}/archive", openapi_extra=REASON_REQUIRED)
async def archive_version(
    plugin_id: PluginId,
    version: VersionId,
    actor: Admin,
    services: ContainerDep,
    body: Move = None,
    key: IdempotencyKey = None,
) -> VersionOut:
    """Close a version for good; retention removes its artifact later. 409 while anything needs it. A reason is required."""
    keyed = once(actor, "versions.move", key)
    return await services.releases.move(plugin_id, version, VersionEvent.ARCHIVE, body or MoveIn(), actor, keyed)


@router.post(f"{VERSION}/sign")
async def sign_version(
    plugin_id: PluginId, version: VersionId, body: SignIn, actor: Author, services: ContainerDep
) -> VersionOut:
    """Add a publisher's signature to a version that is there already; it counts at the next load."""
    return await services.releases.sign(plugin_id, version, body, actor)


@router.get(f"{VERSION}/adoption")
async def version_adoption(
    plugin_id: PluginId, version: VersionId, actor: Operator, services: ContainerDep
) -> Adoption:
    """Who gets this version now, by environment: exact for tenants on record and pins, by weight for all others."""
    return await services.releases.adoption(plugin_id, version)


@router.get("/plugins/{pluginId}/dependencies")
async def plugin_dependencies(
    plugin_id: PluginId,
    actor: Anyone,
    services: ContainerDep,
    version: Annotated[SemVer | None, Query(description="default: what serves, else the newest")] = None,
    environment: Annotated[Environment | None, Query(description="default: all")] = None,
) -> DependenciesOut:
    """What the plugin needs, as a tree with what serves of it in each environment, and who needs the plugin."""
    return await services.dependency_desk.dependencies(plugin_id, version, environment)


@router.post("/plugins/{pluginId}/validate-dependencies")
async def validate_dependencies(
    plugin_id: PluginId, body: ValidateIn, actor: Checker, services: ContainerDep
) -> ValidateOut:
    """Whether dependencies would let a deployment in, why not, and what to deploy first."""
    return await services.dependency_desk.validate(plugin_id, body)


@router.get("/publisher-keys", tags=["signatures"])
async def list_publisher_keys(
    query: Annotated[Page, Query()], actor: Anyone, services: ContainerDep
) -> ListOf[PublisherKeyOut]:
    """Keys that may sign artifacts, newest first, revoked ones included."""
    items, total = await services.publishers.list(query)
    return ListOf[PublisherKeyOut].of(items, total, query)


@router.post("/publisher-keys", status_code=201, tags=["signatures"])
async def register_publisher_key(body: PublisherKeyIn, actor: Admin, services: ContainerDep) -> PublisherKeyOut:
    """Let a publisher sign artifacts. 409 for a key that is there, or was revoked."""
    return await services.publishers.register(body, actor)


@router.post("/publisher-keys/{keyId}/revoke", tags=["signatures"], openapi_extra=REASON_REQUIRED)
async def revoke_publisher_key(
    key_id: Annotated[KeyId, Path(alias="keyId")],
    actor: Admin,
    services: ContainerDep,
    body: Annotated[RevokeIn | None, Body()] = None,
) -> PublisherKeyOut:
    """For good. 409 while it would keep nodes from loading what serves, unless forced. A reason is required."""
    return await services.publishers.revoke(key_id, body or RevokeIn(), actor)


@router.get("/retention", tags=["retention"])
async def retention_preview(actor: Admin, services: ContainerDep) -> SweepReport:
    """What a sweep would remove now, and what it keeps and why. Removes nothing."""
    return await services.sweep(actor, dry_run=True)


@router.post("/retention/sweep", tags=["retention"])
async def retention_sweep(actor: Admin, services: ContainerDep) -> SweepReport:
    """Remove artifacts of Archived versions that nothing needs, and uploads that nobody completed."""
    return await services.sweep(actor, dry_run=False)
