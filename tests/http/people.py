"""Users of a site with passwords, and their logins; keys of a stranger, for forging."""

import base64
import json
from typing import Any

import httpx

from tests.http.site import API, Site

PASSWORD = "correct horse battery staple"


async def make_user(site: Site, name: str, *roles: str, **more: Any) -> None:
    body = {"name": name, "roles": list(roles), "password": PASSWORD, **more}
    answer = await site.admin.post(f"{API}/users", json=body)
    assert answer.status_code == 201, answer.text


async def login(site: Site, name: str, password: str = PASSWORD) -> httpx.Response:
    return await site.nobody.post(f"{API}/authentication/login", json={"user": name, "password": password})


async def logged_in(site: Site, name: str, *roles: str, **more: Any) -> dict[str, Any]:
    """A user of these roles, and what the login answered."""
    await make_user(site, name, *roles, **more)
    answer = await login(site, name)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def me(site: Site, token: str) -> httpx.Response:
    return await site.nobody.get(f"{API}/authentication/me", headers=bearer(token))


def part_of(token: str, index: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a JWT, unverified."""
    text = token.split(".")[index]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
