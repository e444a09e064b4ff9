"""Lets pages of one other origin call one part of the api: the Temporal Web UI the codec server. Nobody else, nothing else.

Outermost, so that a refusal too can be read by the page. No cookies: who asks is said by the Authorization header alone.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Namespace",
    "Access-Control-Max-Age": "600",
    "Content-Length": "0",
}


def origin_of_page(url: str) -> str:
    """`https://host[:port]` of a page, as a browser writes it in Origin; "" for none."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.scheme and parts.netloc else ""


class CrossOrigin:
    """Without an `origin` nothing is let in."""

    def __init__(self, app: ASGIApp, prefix: str, origin: str) -> None:
        self._app, self._prefix, self._origin = app, f"{prefix}/", origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        ours = bool(self._origin) and headers.get("origin") == self._origin

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.add_vary_header("Origin")
                if ours:
                    answer["Access-Control-Allow-Origin"] = self._origin
            await send(message)

        if ours and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            raw = [(name.lower().encode(), value.encode()) for name, value in _PREFLIGHT.items()]
            await send_on({"type": "http.response.start", "status": 204, "headers": raw})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send_on)
