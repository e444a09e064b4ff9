"""Routes of users: /api/v1/users. For Admins."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from api.dependencies import ContainerDep, IdempotencyKey, once
from api.errors import DOCUMENTED
from api.schemas.accounts import NewPasswordIn, UserChange, UserIn, UserMade, UserOut
from api.schemas.common import ListOf
from api.security import bearer, require
from api.services.actor import Actor
from api.strict import StrictRoute
from hotswap.domain.accounts import USER_NAME
from hotswap.domain.deployment import Role
from hotswap.domain.registry import Page

router = APIRouter(
    prefix="/api/v1/users",
    tags=["authentication"],
    route_class=StrictRoute,
    responses=DOCUMENTED,
    dependencies=[Depends(bearer)],
)

Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
Name = Annotated[str, Path(alias="user", pattern=USER_NAME)]


@router.post("", status_code=201)
async def make_user(
    body: UserIn, actor: Admin, services: ContainerDep, response: Response, key: IdempotencyKey = None
) -> UserMade:
    """A user with a password. A made password is told in this answer and never again. 409 when the name is taken."""
    made = await services.accounts.make(body, actor, once(actor, "users.make", key))
    response.headers["Location"] = f"/api/v1/users/{made.user.name}"
    return made


@router.get("")
async def list_users(query: Annotated[Page, Query()], actor: Admin, services: ContainerDep) -> ListOf[UserOut]:
    """Users by name, disabled ones included."""
    items, total = await services.accounts.list(query)
    return ListOf[UserOut].of(items, total, query)


@router.get("/{user}")
async def get_user(user: Name, actor: Admin, services: ContainerDep) -> UserOut:
    return await services.accounts.get(user)


@router.put("/{user}")
async def change_user(user: Name, body: UserChange, actor: Admin, services: ContainerDep) -> UserOut:
    """Change name, roles, tenants, or disable. Logins end when rights changed. 409 for the last Admin."""
    return await services.accounts.change(user, body, actor)


@router.put("/{user}/password")
async def set_password(
    user: Name, actor: Admin, services: ContainerDep, body: Annotated[NewPasswordIn | None, Body()] = None
) -> UserMade:
    """Set a password, or have one made. Every login of the user ends."""
    return await services.accounts.set_password(user, body or NewPasswordIn(), actor)
