"""The socket between a node and one of its router processes: JSON messages in order, some with descriptors.

Neighbours: hotswap.node.router_process has the node's end, hotswap.node.router_worker the other; docs/data-plane.md lists
the messages. Each message is a header (length of the JSON u32, number of descriptors u8, network order) and the JSON.
Descriptors travel with a message's first byte (SCM_RIGHTS), so they are here when the message is. Sending never blocks.
"""

import array
import asyncio
import json
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

log = logging.getLogger(__name__)

Message = dict[str, Any]

_HEADER = struct.Struct("!IB")
_READ_BYTES = 256 * 1024
_MOST_DESCRIPTORS = 8
"""With one message."""


class ControlChannel:
    """One end. Belongs to one event loop; works on uvloop too, whose transports pass no descriptors."""

    def __init__(
        self, end: socket.socket, heard: Callable[[Message, list[int]], None], ended: Callable[[], None]
    ) -> None:
        """`heard(message, descriptors)` owns the descriptors; `ended` is called once, when the peer has gone."""
        self._socket: socket.socket | None = end
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        end.setblocking(False)
        self._loop.add_reader(end, self._readable)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Takes over the descriptors. Nothing is sent to a peer that has gone: `ended` tells."""
        if self._socket is None:
            _close_all(descriptors)
            return
        payload = json.dumps(message, separators=(",", ":")).encode()
        self._unsent.append(
            (memoryview(_HEADER.pack(len(payload), len(descriptors)) + payload), list(descriptors)),
        )
        if len(self._unsent) == 1:
            self._flush()

    def read_rest(self) -> None:
        """Hear what a peer that has ended said before."""
        while self._socket is not None and self._read():
            pass

    def close(self) -> None:
        """Repeats are fine. `ended` is not called any more."""
        end, self._socket = self._socket, None
        if end is None:
            return
        self._loop.remove_reader(end)
        self._loop.remove_writer(end)
        end.close()
        for _, descriptors in self._unsent:
            _close_all(descriptors)
        self._unsent.clear()
        _close_all(self._descriptors)
        self._descriptors.clear()

    def _flush(self) -> None:
        end = self._socket
        assert end is not None
        while self._unsent:
            data, descriptors = self._unsent[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            try:
                sent = end.sendmsg([data], rights)
            except BlockingIOError:
                self._loop.add_writer(end, self._flush)
                return
            except OSError:
                self._lost()
                return
            _close_all(descriptors)
            if sent < len(data):
                self._unsent[0] = (data[sent:], [])
            else:
                self._unsent.popleft()
        self._loop.remove_writer(end)

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """False when there was nothing to read."""
        assert self._socket is not None
        room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(_READ_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data, ancillary, flags = b"", [], 0
        if flags & socket.MSG_CTRUNC:
            log.error("descriptors of a message are lost: this process may open no more (RLIMIT_NOFILE); hanging up")
            data = b""  # which of them is whose cannot be told any more
        for _, _, content in ancillary:
            got = array.array("i")
            got.frombytes(content[: len(content) - len(content) % got.itemsize])
            self._descriptors.extend(got)
        if not data:
            self._lost()
            return False
        self._received += data
        while self._socket is not None and len(self._received) >= _HEADER.size:
            length, count = _HEADER.unpack_from(self._received)
            end = _HEADER.size + length
            if len(self._received) < end:
                break
            message = json.loads(self._received[_HEADER.size : end])
            del self._received[:end]
            self._heard(message, [self._descriptors.popleft() for _ in range(count)])
        return True

    def _lost(self) -> None:
        self.close()
        self._ended()


def _close_all(descriptors: Sequence[int] | deque[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
