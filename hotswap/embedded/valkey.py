"""Embedded Valkey (speaks Redis): loopback, password, append-only file so that a kill loses nothing that was answered."""

import asyncio
from functools import cached_property

from hotswap.embedded.binaries import VALKEY, Binary, resolve
from hotswap.embedded.data_dir import DataDir, write_private
from hotswap.embedded.parts import NotReady, Part
from hotswap.embedded.ports import LOOPBACK, Ports
from hotswap.embedded.servers import clean_environment

URL = "HOTSWAP_REDIS__URL"


class ValkeyServer:
    name = "valkey"
    ports: tuple[str, ...] = ("valkey",)

    def __init__(self, data: DataDir, ports: Ports) -> None:
        self._data = data
        self._ports = ports

    @cached_property
    def binary(self) -> Binary:
        return resolve(VALKEY)

    async def prepare(self) -> Part:
        folder = self._data.folder(self.name)
        # A file, since a password among the arguments could be read by every user of the machine.
        configuration = self._data.root / "valkey.conf"
        lines = [
            f"bind {LOOPBACK}",
            f"port {self._port}",
            f"requirepass {self._password}",
            f'dir "{folder}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
        ]
        write_private(configuration, "\n".join(lines) + "\n")
        return Part(
            name=self.name,
            command=(str(self.binary.path), str(configuration)),
            environment=clean_environment(self._data.root),
            log=self._data.log(self.name),
            probe=self._probe,
            address=f"{LOOPBACK}:{self._port}",
        )

    async def provision(self) -> None:
        """Nothing has to exist in it."""

    def settings(self) -> dict[str, str]:
        return {URL: f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"}

    @property
    def _port(self) -> int:
        return self._ports["valkey"]

    @property
    def _password(self) -> str:
        return self._data.secret("valkey")

    async def _probe(self) -> None:
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
        except OSError as fault:
            raise NotReady(fault.strerror or str(fault)) from None
        try:
            writer.write(f"AUTH {self._password}\r\nPING\r\n".encode("ascii"))
            answers = [await reader.readline(), await reader.readline()]
        except ConnectionError as fault:
            raise NotReady(str(fault)) from None
        finally:
            writer.close()
        if answers != [b"+OK\r\n", b"+PONG\r\n"]:
            raise NotReady(b" ".join(answers).decode("ascii", "replace").strip() or "the connection was closed")
