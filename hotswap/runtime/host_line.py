"""One channel of a plugin host, seen from inside: frames in, frames out, and what is under way on it. Standard library only.

Used by hotswap.runtime.host_server. Line 0 is the node's own: when it closes, the process ends. The others are those of
routers in processes of their own (hotswap.node.router_worker): when one closes, nobody waits for what came on it any more.
"""

import asyncio
import mmap
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hotswap.runtime import protocol
from hotswap.runtime.tenant_views import TenantViews

_READ_BYTES = 256 * 1024


@dataclass(slots=True)
class Job:
    """One call for the thread pool."""

    line: "HostLine"
    request_id: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    is_health: bool = False
    running: bool = False
    cancelled: bool = False


class HostLine:
    """Belongs to the host's loop. Request ids, settings and marks are each line's own."""

    __slots__ = (
        "_channel",
        "_ended",
        "_heard",
        "_index",
        "_loop",
        "_outgoing",
        "_unsent",
        "_watermark",
        "answered",
        "begun",
        "decoder",
        "jobs",
        "marks_at",
        "tasks",
        "tenants",
        "unbegun",
    )

    def __init__(
        self,
        index: int,
        channel: socket.socket,
        watermark: mmap.mmap,
        loop: asyncio.AbstractEventLoop,
        tenants: TenantViews,
        heard: Callable[["HostLine", bytes], None],
        ended: Callable[["HostLine"], None],
    ) -> None:
        """`heard` is given what came; `ended` is called once, when a line but the first has closed."""
        self.marks_at = protocol.marks_at(index)
        self.decoder = protocol.FrameDecoder(protocol.node_caps())
        self.tenants = tenants
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.unbegun: set[int] = set()
        """Calls whose task has not run yet: cancelled now, they would end without an answer."""
        self.jobs: dict[int, Job] = {}
        self.begun = self.answered = 0
        self._index = index
        self._watermark = watermark
        self._channel: socket.socket | None = channel
        self._loop = loop
        self._heard = heard
        self._ended = ended
        self._outgoing: list[bytes] = []
        self._unsent = bytearray()
        channel.setblocking(False)
        loop.add_reader(channel, self._readable)

    def send(self, frame: bytes) -> None:
        """Gather what one turn of the loop answers into one write. Loop thread only."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(frame)
        if self._index:  # so that every router sees how fast all of them together are served
            self.answered += 1
            at = self.marks_at + protocol.ANSWERED_AT
            protocol.ANSWERED.pack_into(self._watermark, at, self.answered & protocol.REQUEST_ID_MASK)

    def _readable(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data:
            self._heard(self, data)
        else:
            self._hang_up()

    def _flush(self) -> None:
        frames = b"".join(self._outgoing)
        self._outgoing.clear()
        if self._channel is None:
            return
        if self._unsent:
            self._unsent += frames
            return
        sent = self._write(frames)
        if self._channel is not None and sent < len(frames):
            self._unsent += memoryview(frames)[sent:]
            self._loop.add_writer(self._channel, self._writable)

    def _writable(self) -> None:
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent and self._channel is not None:
            self._loop.remove_writer(self._channel)

    def _write(self, data: bytes | bytearray) -> int:
        assert self._channel is not None
        try:
            return self._channel.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._hang_up()
            return len(data)

    def _hang_up(self) -> None:
        if self._index == 0:
            os._exit(0)  # the node is gone
        channel, self._channel = self._channel, None
        if channel is not None:
            self._loop.remove_reader(channel)
            self._loop.remove_writer(channel)
            channel.close()
            self._ended(self)
