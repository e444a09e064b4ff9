"""Where a request came from, for the audit: one contextvar, set around every request by a thin ASGI layer.

Neighbours: api.services.limits says which proxies are believed, api.services.plugins.entry reads it.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from api.services.actor import caller_address
from api.services.limits import RouteLimits


class CallerAddress:
    """The rest of the request's task, and what it starts, sees the address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits: RouteLimits = scope["app"].state.limits
        token = caller_address.set(limits.address_of(scope)[:255])
        try:
            await self._app(scope, receive, send)
        finally:
            caller_address.reset(token)
