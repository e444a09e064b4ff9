"""A small keep-alive HTTP/1.1 client for one purpose: many cheap POSTs to a node's router, every failure told apart.

Not a general client: bodies have a Content-Length, nothing is redirected, compressed or chunked. hotswap.demo.traffic uses it.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_HEAD = 64 * 1024


class CannotConnect(Exception):
    """Nothing was sent: another node may be asked."""


class ConnectionLost(Exception):
    """The connection broke after the request was sent: it may have been executed, nobody may repeat it blindly."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers (names in lower case) and body of one answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def usable(self) -> bool:
        return not self.reader.at_eof() and not self.writer.is_closing()

    async def exchange(self, request: bytes) -> tuple[HttpAnswer, bool]:
        """Send and read one answer; True when the connection can be used again."""
        self.writer.write(request)
        await self.writer.drain()
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        body = await self.reader.readexactly(int(headers["content-length"]))
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return HttpAnswer(int(status), headers, body), keep

    def close(self) -> None:
        self.writer.close()


class Node:
    """One node's router and the idle connections to it. Belongs to one event loop."""

    def __init__(self, url: str, token: str, connect_timeout: float = 1.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError(f"'{url}' must read http://host:port")
        self.url = url
        self._host, self._port = parts.hostname, parts.port
        self._connect_timeout = connect_timeout
        self._fixed = (
            f"Host: {parts.hostname}:{parts.port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._idle: list[_Line] = []
        self._busy = 0

    @property
    def connections(self) -> int:
        """Open now: idle ones, of which the router may have closed its end, and those with a request under way."""
        return len(self._idle) + self._busy

    async def post(self, path: str, body: bytes, timeout: float) -> HttpAnswer:
        """Raises CannotConnect (nothing was sent), ConnectionLost, TimeoutError (`timeout` seconds passed)."""
        line = await self._line()
        self._busy += 1
        request = b"POST %s HTTP/1.1\r\n%s%d\r\n\r\n%s" % (path.encode(), self._fixed, len(body), body)
        try:
            async with asyncio.timeout(timeout):
                answer, keep = await line.exchange(request)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError) as fault:
            line.close()
            if isinstance(fault, TimeoutError):
                raise
            raise ConnectionLost(f"{type(fault).__name__}: {fault}") from None
        except BaseException:
            line.close()
            raise
        finally:
            self._busy -= 1
        if keep:
            self._idle.append(line)
        else:
            line.close()
        return answer

    async def _line(self) -> _Line:
        while self._idle:
            line = self._idle.pop()
            if line.usable:
                return line
            line.close()
        try:
            async with asyncio.timeout(self._connect_timeout):
                return _Line(*await asyncio.open_connection(self._host, self._port, limit=MAX_HEAD))
        except OSError as fault:  # TimeoutError is one
            raise CannotConnect(f"{self.url}: {fault or 'no answer in time'}") from None

    async def close(self) -> None:
        """Close the idle connections and wait until they are."""
        lines, self._idle = self._idle, []
        for line in lines:
            line.close()
        for line in lines:
            try:
                await line.writer.wait_closed()
            except OSError:
                continue  # the other side was faster; closed all the same
