"""Routes of tenants' tokens for the data plane: /api/v1/tenants/{tenant}/tokens."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from api.dependencies import ContainerDep, IdempotencyKey, once
from api.errors import DOCUMENTED
from api.schemas.accounts import TenantTokenIn, TenantTokenMade
from api.schemas.common import ListOf
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.accounts import TenantToken
from hotswap.domain.base import TenantId
from hotswap.domain.deployment import Role
from hotswap.domain.registry import Page

router = APIRouter(
    prefix="/api/v1/tenants/{tenant}/tokens",
    tags=["tenants"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Owner = Annotated[Actor, Depends(require(Role.ADMIN, Role.TENANT_OWNER))]
Tenant = Annotated[TenantId, Path(alias="tenant")]
TokenId = Annotated[str, Path(alias="tokenId", pattern=r"^tnt_[0-9a-f]{32}$")]


@router.post("", status_code=201)
async def make_tenant_token(
    tenant: Tenant,
    actor: Owner,
    services: ContainerDep,
    response: Response,
    body: Annotated[TenantTokenIn | None, Body()] = None,
    key: IdempotencyKey = None,
) -> TenantTokenMade:
    """A token that calls this tenant's plugins on the nodes (a TenantOwner: of their own tenants)."""
    keyed = once(actor, "tenant-tokens.make", key)
    made = await services.tokens.make_for_tenant(tenant, body or TenantTokenIn(), actor, keyed)
    response.headers["Location"] = f"/api/v1/tenants/{tenant}/tokens/{made.tenant_token.token_id}"
    return made


@router.get("")
async def list_tenant_tokens(
    tenant: Tenant, query: Annotated[Page, Query()], actor: Owner, services: ContainerDep
) -> ListOf[TenantToken]:
    """Tokens made for the tenant, newest first. None holds the token itself."""
    items, total = await services.tokens.list_of_tenant(tenant, actor, query)
    return ListOf[TenantToken].of(items, total, query)


@router.delete("/{tokenId}", status_code=204)
async def revoke_tenant_token(tenant: Tenant, token_id: TokenId, actor: Owner, services: ContainerDep) -> None:
    """Revoke it: nodes refuse it within their reconcile beat (5 s). A repeat changes nothing."""
    await services.tokens.revoke_of_tenant(tenant, token_id, actor)
