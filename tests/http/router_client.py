"""A router over fake hosts, and a client that writes raw bytes: what a well-behaved HTTP library would never send."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hotswap.domain.quota import QuotaOverride
from hotswap.node.call_spans import CallSpans
from hotswap.node.figures import FigureBook
from hotswap.node.limits import RouterLimits
from hotswap.node.quotas import Meters
from hotswap.node.router import Router
from hotswap.node.supervisor import NodeSupervisor
from hotswap.node.tenant_auth import TenantAuth
from tests.unit.node_fakes import FakeLauncher, eventually, make_supervisor

TOKEN = "tenant-secret"
QUICK = RouterLimits(
    head_bytes=4096,
    body_bytes=64 * 1024,
    connections=50,
    read_seconds=0.6,
    write_seconds=0.6,
    idle_seconds=1.0,
    linger_seconds=0.3,
    wait_seconds=0.4,
    waiting=5,
    sweep_seconds=0.05,
)


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])


class Wire:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def receive(self) -> Response:
        """One response. Raises EOFError when the connection ends before one begins."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode().split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Response(int(status_line.split(" ")[1]), headers, body)

    async def ended(self, within: float = 5.0) -> bool:
        """Wait for the peer to end the connection; False when bytes came instead."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    def reset(self) -> None:
        """Go away without a goodbye, as a killed client's kernel does with unread data."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.transport.abort()  # whatever was not sent yet: nobody may be reading it
        with contextlib.suppress(ConnectionError):  # the router may have cut it first
            await self.writer.wait_closed()


@dataclass
class Bench:
    supervisor: NodeSupervisor
    launcher: FakeLauncher
    router: Router
    book: FigureBook
    port: int
    meters: Meters | None = None
    wires: list[Wire] = field(default_factory=list)
    hangs = "late"

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire

    async def call(self, method: str = "echo", tenant: str = "acme", body: bytes = b"{}") -> Response:
        """One request on a connection of its own."""
        wire = await self.wire()
        await wire.send(request(method, tenant, body))
        return await wire.receive()

    # -- as tests.http.router_contract wants it

    async def ran(self) -> int:
        return sum(len(host.calls) for host in self.launcher.hosts)

    async def no_clients(self) -> None:
        await eventually(lambda: self.router.connections == 0)

    async def limit(self, tenant: str, quota: QuotaOverride) -> None:
        assert self.meters is not None
        self.meters.set_overrides({(tenant, "invoice"): quota})

    @asynccontextmanager
    async def stalled(self) -> AsyncIterator[str]:
        [host] = self.launcher.live()
        yield "hold"
        host.begins = 1000
        await eventually(lambda: self.router.queued == 0)
        host.release()


def request(
    method: str = "echo",
    tenant: str = "acme",
    body: bytes = b"{}",
    *,
    plugin: str = "invoice",
    token: str = TOKEN,
    extra: bytes = b"",
) -> bytes:
    return (
        f"POST /invoke/{tenant}/{plugin}/{method} HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(body)}\r\n"
    ).encode() + (extra + b"\r\n" + body)


@asynccontextmanager
async def bench(
    limits: RouterLimits = QUICK,
    timeout: timedelta = timedelta(seconds=5),
    meters: Meters | None = None,
    tenant_auth: TenantAuth | None = None,
    disabled: Set[tuple[str, str]] = frozenset(),
    spans: CallSpans | None = None,
) -> AsyncIterator[Bench]:
    launcher = FakeLauncher()
    book = FigureBook()
    supervisor = make_supervisor(launcher, book=book)
    router = Router("node-t", supervisor.routes, TOKEN, timeout, limits, meters, tenant_auth, disabled, spans)
    supervisor.on_change(router.wake)
    port = await router.bind("127.0.0.1", 0)
    await router.serve()
    made = Bench(supervisor, launcher, router, book, port, meters)
    try:
        yield made
    finally:
        for wire in made.wires:
            await wire.close()
        await router.close()
        await supervisor.close()
