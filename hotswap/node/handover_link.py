"""What the two processes of a node that is being replaced say to each other, and the socket they say it over.

Neighbour: hotswap.node.handover, which knows the order of it.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from hotswap.domain.base import Model
from hotswap.node.figures import ToldCounter

SOCKET = "replace.sock"
"""In the data directory."""

PROTOCOL = 1

MAX_LINE = 16 * 1024 * 1024
"""One version's counters: 300 seconds and 1,500 minutes with every latency there is are 5 MB."""

MAX_SOCKETS = 16


class Listeners(Model):
    kind: Literal["listeners"] = "listeners"
    protocol: int
    node_id: str
    environment: str
    router: int
    admin: int


class Word(Model):
    kind: Literal["ready", "yours", "taken", "released", "gone"]


class Refused(Model):
    kind: Literal["refused"] = "refused"
    reason: str


class Counted(Model):
    """What one version did and how often its processes died, as the process before knows it."""

    kind: Literal["counted"] = "counted"
    plugin: str
    version: str
    crashes: int
    told: ToldCounter


Said = Annotated[Listeners | Word | Refused | Counted, Field(discriminator="kind")]
said_by: TypeAdapter[Listeners | Word | Refused | Counted] = TypeAdapter(Said)


class Silent(Exception):
    """The other process is gone, or does not keep to the protocol."""


class Link:
    """Lines to and from the other process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connection: socket.socket) -> "Link":
        return cls(*await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE))

    async def say(self, message: Model) -> int:
        """Returns the bytes. Raises Silent."""
        line = message.model_dump_json().encode() + b"\n"
        try:
            self._writer.write(line)
            await self._writer.drain()
        except OSError as fault:
            raise Silent(f"it does not listen: {fault}") from fault
        return len(line)

    async def hear(self) -> Listeners | Word | Refused | Counted:
        """Raises Silent."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError) as fault:  # ValueError: a line over the limit
            raise Silent(f"it cannot be heard: {fault}") from fault
        if not line.endswith(b"\n"):
            raise Silent("it is gone")
        try:
            return said_by.validate_json(line)
        except ValidationError as fault:
            raise Silent(f"it says what nobody understands: {fault.errors(include_url=False)[0]['msg']}") from fault

    async def expect(self, word: str) -> None:
        """Raises Silent."""
        heard = await self.hear()
        if heard.kind != word:
            raise Silent(f"it said '{heard.kind}', not '{word}'")

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextmanager
def reached(folder: Path) -> Iterator[str]:
    """A short name for a folder: the address of a unix socket holds 107 characters."""
    if not Path("/proc/self/fd").is_dir():
        yield str(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


async def connect(data_dir: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        with reached(data_dir) as folder:
            await asyncio.get_running_loop().sock_connect(connection, f"{folder}/{SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):  # never started here, or killed
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


async def receive_sockets(connection: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """The first line and the sockets that come with it: nothing follows before it is answered. b"" when nobody is there."""
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(connection.fileno(), there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(connection.fileno())
    try:
        line, descriptors, _, _ = socket.recv_fds(connection, 65536, MAX_SOCKETS)
    except ConnectionResetError:
        return b"", []
    for one in descriptors:
        os.set_inheritable(one, False)
    return line, [socket.socket(fileno=one) for one in descriptors]


def uid_of(connection: socket.socket) -> int:
    """Whose process is at the other end."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)
