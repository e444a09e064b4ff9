"""What every host does first, done once in the zygote: the code is specialised then, and its pages stay shared by all.

A fork copies a page when either side writes to it, and CPython writes into code it runs for the first times (adaptive
specialisation) and into what it allocates. Measured: 5 to 10 % of a host's own memory. Called by hotswap.runtime.zygote
before it freezes its heap. Standard library only.
"""

import asyncio
import mmap
import socket
from typing import Any

from hotswap.runtime import protocol, seccomp
from hotswap.runtime.host_server import Method, Server
from hotswap.runtime.namespaces import PLUGIN
from hotswap.runtime.protocol import Kind

_CALLS = 20
"""CPython specialises a function from its eighth call on."""


class _Echo:
    async def echo(self, parameters: dict[str, Any], context: object) -> dict[str, Any]:
        del context
        return parameters


def rehearse(machine: str = "") -> None:
    """Serve calls of our own, and leave nothing open. machine: prepare its filter of system calls too, "" = none."""
    if machine:
        seccomp.assemble(machine, PLUGIN, scratch=False, receives_on=None)
    plugin = _Echo()
    ours, theirs = socket.socketpair()
    with ours, theirs, mmap.mmap(-1, protocol.WATERMARK_BYTES) as watermark:
        server = Server(
            theirs,
            watermark,
            plugin,
            {"echo": Method(plugin.echo, is_async=True)},
            plugin_name="rehearsal",
            version="0",
            max_reply_bytes=1024,
            pool_threads=1,
        )
        server.rehearse(_ask(ours))


async def _ask(channel: socket.socket) -> None:
    """Probes and calls, one at a time, as a node's first."""
    channel.setblocking(False)
    loop = asyncio.get_running_loop()
    body = b'{"lines": [1, "a"]}'
    for number in range(1, _CALLS + 1):
        for frame in (
            protocol.encode(number, Kind.PING),
            protocol.encode_call(number, b"echo", b"acme", protocol.MAX_DEADLINE_US, body),
        ):
            await loop.sock_sendall(channel, frame)
            await loop.sock_recv(channel, 4096)
