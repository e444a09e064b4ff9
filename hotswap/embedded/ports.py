"""Chooses loopback ports once and keeps them, so that a restart serves where clients still look.

Ports come from below the ephemeral range: a port inside it can be taken while its server is down by any outgoing
connection, even by a client's own attempt to reconnect (on loopback it then connects to itself and keeps the port).
"""

import asyncio
import random
import socket
from pathlib import Path

from hotswap.embedded.data_dir import DataDir, StackError, read_json, write_private

LOOPBACK = "127.0.0.1"

LOWEST = 10240
"""Below live the well-known ports of services people run on a laptop."""

_DEFAULT_EPHEMERAL_START = 32768
_TRIES = 2000


class Ports:
    """Names to port numbers, remembered in the data directory. Raises StackError when what is remembered is none."""

    def __init__(self, data: DataDir) -> None:
        self._path = data.root / "ports.json"
        self._known: dict[str, int] = read_json(self._path)
        wrong = [name for name, port in self._known.items() if type(port) is not int or not 0 < port < 65536]
        if wrong:
            raise StackError(f"{self._path} gives {wrong[0]} no port; remove it to have them chosen anew")

    async def settle(self, names: list[str], patience: float) -> list[str]:
        """Give every name a free port: the remembered one where it still is free. Returns the names that had to move.

        `patience` seconds are spent on a remembered port that is taken: servers of a killed supervisor need a moment.
        """
        moved = []
        deadline = asyncio.get_running_loop().time() + patience
        for name in names:
            port = self._known.get(name)
            # No kernel event tells that a port became free, so look.
            while port is not None and not is_free(port) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if port is None or not is_free(port):
                if port is not None:
                    moved.append(name)
                self._known[name] = choose(set(self._known.values()))
        write_private(self._path, dict(self._known))
        return moved

    def __getitem__(self, name: str) -> int:
        return self._known[name]


def choose(taken: set[int]) -> int:
    """A free port that is not in `taken`. Raises StackError when none is found."""
    top = _ephemeral_start()
    for _ in range(_TRIES):
        port = random.randrange(LOWEST, top)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {LOWEST} and {top} on {LOOPBACK}; stop something that listens there")


def is_free(port: int) -> bool:
    """Nobody listens there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier server that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def _ephemeral_start() -> int:
    try:
        start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        start = _DEFAULT_EPHEMERAL_START
    return start if start > LOWEST + _TRIES else 65536
