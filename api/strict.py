"""The routers' route class: the gate is asked first, then query and JSON body are taken strictly:
no parameter and no key twice, 1 MiB in 30 s, no NaN.

Uploads do not pass here: they stream (api.services.uploads) under their own limit.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.facts import facts_of_path
from api.methods import Methods
from api.security import Gate
from hotswap.log_fields import log_fields

MAX_JSON_BYTES = 1024 * 1024

BODY_SECONDS = 30.0
"""For all of a JSON body: 1 MiB at 280 kbit/s. Whoever drips bytes for longer holds a connection and our memory for nothing."""


class StrictRequest(Request):
    """A request whose `body` is limited and whose `json` refuses what RFC 8259 leaves open."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            declared = self.headers.get("content-length", "0")
            if declared.isdigit() and int(declared) > MAX_JSON_BYTES:
                raise _too_large()
            content = bytearray()
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    async for chunk in self.stream():
                        content += chunk
                        if len(content) > MAX_JSON_BYTES:
                            raise _too_large()
            except TimeoutError:
                raise HTTPException(400, f"the body was not here within {BODY_SECONDS:g} s; send it again") from None
            self._body = bytes(content)
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = strict_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        gates = list(gates_of(self.dependant))

        async def strictly(request: Request) -> Response:
            methods: Methods = request.app.state.methods
            methods.check(request.method, request.scope["path"])
            with log_fields(**facts_of_path(request.scope)):
                for gate in gates:
                    await gate.admit(request)
                _no_twin_parameters(request)
                return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def gates_of(dependant: Any) -> Iterator[Gate]:
    """The gates that a route declares, wherever among its dependencies."""
    if isinstance(dependant.call, Gate):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from gates_of(inner)


def strict_json(content: bytes) -> Any:
    """Raises json.JSONDecodeError (as the standard library) or HTTPException 400 naming the fault."""
    try:
        return json.loads(content, parse_constant=_no_constant, object_pairs_hook=_no_twin_keys)
    except UnicodeDecodeError:
        raise HTTPException(400, "the body is not UTF-8") from None
    except RecursionError:
        raise HTTPException(400, "the body is nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise HTTPException(400, f"the body holds {name}, which is not JSON")


def _no_twin_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise HTTPException(400, f"{twin[:100]}: is given twice in one object")
    return found


def _no_twin_parameters(request: Request) -> None:
    """Which of two would count, nobody but us knows: no route takes a parameter more than once."""
    names = [name for name, _ in request.query_params.multi_items()]
    if twin := next((name for name in names if names.count(name) > 1), None):
        raise HTTPException(400, f"{twin[:100]}: is given twice in the query")


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body is over {MAX_JSON_BYTES} bytes")
