"""Routes of logins, of machines' tokens and of signing keys: /api/v1/authentication, /api/v1/service-tokens, the key set."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response

from api.dependencies import ContainerDep, IdempotencyKey, once
from api.errors import DOCUMENTED
from api.schemas.accounts import (
    KeySetOut,
    LoginIn,
    LoginOut,
    PasswordIn,
    RefreshIn,
    RotateIn,
    ServiceTokenIn,
    ServiceTokenMade,
    ServiceTokenOut,
    SigningKeyOut,
    SigningKeysOut,
    WhoOut,
)
from api.schemas.common import ListOf
from api.security import anyone, bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.deployment import Role
from hotswap.domain.registry import Page

router = APIRouter(tags=["authentication"], route_class=StrictRoute, responses=DOCUMENTED)

BASE = "/api/v1/authentication"
SERVICE_TOKENS = "/api/v1/service-tokens"
KNOWN = [Depends(bearer)]

Anyone = Annotated[Actor, Depends(require())]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
TokenId = Annotated[str, Path(alias="tokenId", pattern=r"^svc_[0-9a-f]{32}$")]


@router.post(f"{BASE}/login", dependencies=[Depends(anyone(limit=10))])
async def login(body: LoginIn, request: Request, services: ContainerDep) -> LoginOut:
    """A bearer token for a user and a password. 401 says no more than that they are wrong, 429 after many of those."""
    address = services.limits.address_of(request.scope)
    return await services.authentication.login(body, address, request.scope["state"]["trace_id"])


@router.post(f"{BASE}/refresh", dependencies=[Depends(anyone(limit=60))])
async def refresh(body: RefreshIn, services: ContainerDep) -> LoginOut:
    """The next bearer token. A refresh token is used once; one that comes again ends the login."""
    return await services.authentication.refresh(body)


@router.post(f"{BASE}/logout", status_code=204, dependencies=KNOWN)
async def logout(actor: Anyone, services: ContainerDep) -> None:
    """End the login that the presented token belongs to, in every api process within seconds."""
    await services.authentication.logout(actor)


@router.get(f"{BASE}/me", dependencies=KNOWN)
async def who_am_i(actor: Anyone) -> WhoOut:
    """Who the presented token is, and what it may."""
    return WhoOut.of(actor)


@router.post(f"{BASE}/password", status_code=204, dependencies=KNOWN)
async def change_password(body: PasswordIn, actor: Anyone, request: Request, services: ContainerDep) -> None:
    """Change one's own password. Every login of the user ends."""
    await services.authentication.change_password(body, actor, services.limits.address_of(request.scope))


@router.get(f"{BASE}/signing-keys", dependencies=KNOWN)
async def signing_keys(actor: Admin, services: ContainerDep) -> SigningKeysOut:
    """The keys that verify tokens now, oldest first."""
    return SigningKeysOut(items=tuple(await services.tokens.keys()))


@router.post(f"{BASE}/signing-keys/rotate", status_code=201, dependencies=KNOWN)
async def rotate_keys(
    actor: Admin, services: ContainerDep, body: Annotated[RotateIn | None, Body()] = None
) -> SigningKeysOut:
    """New signing keys. What the old ones signed verifies until it expires, unless `revoke` ends it at once."""
    made: list[SigningKeyOut] = await services.tokens.rotate(body or RotateIn(), actor)
    return SigningKeysOut(items=tuple(made))


@router.post(SERVICE_TOKENS, status_code=201, dependencies=KNOWN)
async def make_service_token(
    body: ServiceTokenIn, actor: Admin, services: ContainerDep, response: Response, key: IdempotencyKey = None
) -> ServiceTokenMade:
    """A token for a machine. It is told in this answer and never again."""
    made = await services.tokens.make(body, actor, once(actor, "service-tokens.make", key))
    response.headers["Location"] = f"{SERVICE_TOKENS}/{made.service_token.token_id}"
    return made


@router.get(SERVICE_TOKENS, dependencies=KNOWN)
async def list_service_tokens(
    query: Annotated[Page, Query()], actor: Admin, services: ContainerDep
) -> ListOf[ServiceTokenOut]:
    """Machines' tokens, newest first, revoked ones included. None holds the token itself."""
    items, total = await services.tokens.list_all(query)
    return ListOf[ServiceTokenOut].of(items, total, query)


@router.delete(f"{SERVICE_TOKENS}/{{tokenId}}", status_code=204, dependencies=KNOWN)
async def revoke_service_token(token_id: TokenId, actor: Admin, services: ContainerDep) -> None:
    """Revoke it, in every api process within seconds. A repeat changes nothing."""
    await services.tokens.revoke(token_id, actor)


@router.get("/.well-known/jwks.json", dependencies=[Depends(anyone(limit=60))])
async def key_set(services: ContainerDep, response: Response) -> KeySetOut:
    """The public keys that verify our tokens (RFC 7517)."""
    response.headers["Cache-Control"] = "public, max-age=15"
    return KeySetOut.model_validate(await services.trust.jwks())
