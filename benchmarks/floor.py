"""The yardstick of benchmarks.invoke: a raw uvloop + httptools server that calls the plugin's method in process.

No isolation, no routes, no figures, no limits: what a hot path in this language can do at best. It decodes the body,
calls the method and encodes the result, as a plugin host does.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httptools

Method = Callable[[dict[str, Any], Any], Coroutine[Any, Any, Any]]

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


class FloorConnection(asyncio.Protocol):
    def __init__(self, method: Method) -> None:
        self._method = method
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        parameters = json.loads(self._body)
        self._body = b""
        try:
            self._method(parameters, None).send(None)
        except StopIteration as done:
            body = _encode(done.value).encode()
        else:
            raise RuntimeError("the floor calls only what never waits")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
        self._transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))


async def serve_floor(method: Method) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(lambda: FloorConnection(method), "127.0.0.1", 0)
