"""Network in a plugin host: ordinary sockets whose `connect` asks the node. Host side; standard library only.

Put in place by hotswap.runtime.host before the plugin is imported, for hosts whose manifest grants something: then
socket.create_connection, http.client, urllib, urllib3, asyncio and what stands on them reach the granted hosts. Names are
looked up by the node as it connects, so `getaddrinfo` gives back the name itself where an address would stand. This is
convenience, not isolation: seccomp refuses socket and connect, and hotswap.runtime.egress decides.
"""

import asyncio
import errno
import json
import os
import socket
import threading
from asyncio import base_events, selector_events
from concurrent.futures import Future
from itertools import count
from typing import Any

from hotswap.runtime.egress_wire import MAX_ANSWER_BYTES, MAX_ASK_BYTES

_Socket = socket.socket
_getaddrinfo = socket.getaddrinfo
_SERVICES = {"http": 80, "https": 443}
_PATIENCE = 15.0
"""Seconds to wait for an answer of a node that gives one within 10."""


class EgressClient:
    """Asks over `channel` and hands out descriptors of connected sockets. Any thread may ask."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._numbers = count(1)
        self._waiting: dict[int, Future[int]] = {}
        self._starting = threading.Lock()
        self._reading = False

    def begin(self, host: str, port: int, timeout: float | None) -> "Future[int]":
        """Never blocks. The future gives a descriptor that is then the caller's, or raises OSError."""
        answer: Future[int] = Future()
        number = next(self._numbers)
        ask = json.dumps({"id": number, "host": host, "port": port, "timeout": timeout or 0}).encode()
        if len(ask) > MAX_ASK_BYTES:
            answer.set_exception(socket.gaierror(socket.EAI_NONAME, "the host's name is too long"))
            return answer
        self._waiting[number] = answer
        try:
            self._start()
            self._channel.send(ask, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._fail(number, ConnectionError("this plugin asks for connections faster than its node makes any"))
        except OSError as fault:
            self._fail(number, ConnectionError(f"the node makes no more connections for this plugin: {fault}"))
        return answer

    def ask(self, host: str, port: int, timeout: float | None) -> int:
        """As `begin`, and wait. Raises OSError (TimeoutError, PermissionError, ConnectionError, gaierror among them)."""
        answer = self.begin(host, port, timeout)
        try:
            return answer.result(min(timeout or _PATIENCE, _PATIENCE))
        except TimeoutError:
            if not answer.cancel() and answer.exception() is None:  # it came at the last moment
                os.close(answer.result())
            raise TimeoutError(errno.ETIMEDOUT, f"no connection to {host}:{port} in time") from None

    def _start(self) -> None:
        with self._starting:
            if not self._reading:
                threading.Thread(target=self._read, name="egress", daemon=True).start()
                self._reading = True

    def _read(self) -> None:
        while True:
            try:
                data, fds, flags, _ = socket.recv_fds(self._channel, MAX_ANSWER_BYTES, 1)
            except OSError:
                data, fds, flags = b"", [], 0
            if not data:
                for number in list(self._waiting):
                    self._fail(number, ConnectionError("the node makes no more connections for this plugin"))
                return
            answer = json.loads(data)
            number, kind = answer["id"], answer["fault"]
            if kind:
                self._fail(number, _fault(kind, answer["message"]))
            elif not fds or flags & socket.MSG_CTRUNC:
                self._fail(number, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            else:
                future = self._waiting.pop(number)
                if future.set_running_or_notify_cancel():
                    future.set_result(fds[0])
                else:
                    os.close(fds[0])  # nobody waits any more

    def _fail(self, number: int, fault: OSError) -> None:
        future = self._waiting.pop(number, None)
        if future is not None and future.set_running_or_notify_cancel():
            future.set_exception(fault)


_client: EgressClient | None = None


class GrantedSocket(socket.socket):
    """A TCP socket that is made when it is connected, by the node. Until then one end of a closed pair holds its place."""

    _asks = False
    _made_by_node = False

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        kind = socket.SOCK_STREAM if type == -1 else type & ~(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        internet = family in (-1, socket.AF_INET, socket.AF_INET6)
        tcp = internet and kind == socket.SOCK_STREAM and proto in (-1, 0, socket.IPPROTO_TCP)
        if fileno is not None or not tcp:
            super().__init__(family, type, proto, fileno)
            return
        place, other = _pair()
        os.close(other)
        super().__init__(socket.AF_INET if family == -1 else family, kind, socket.IPPROTO_TCP, place)
        self._asks = self._made_by_node = True
        if type != -1 and type & socket.SOCK_NONBLOCK:
            self.setblocking(False)

    @property
    def asks(self) -> bool:
        """Whether connecting it is the node's."""
        return self._asks

    def connect(self, address: Any) -> None:
        """Waits for the connection, whatever the socket's mode."""
        if not self._asks:
            super().connect(address)
            return
        assert _client is not None
        self.take(_client.ask(*_target(address), self.gettimeout()))

    def connect_ex(self, address: Any) -> int:
        try:
            self.connect(address)
        except OSError as fault:
            return fault.errno or errno.ECONNREFUSED
        return 0

    def take(self, fd: int) -> None:
        """Become the connected socket `fd`, which is closed."""
        try:
            os.dup2(fd, self.fileno(), inheritable=False)
        finally:
            os.close(fd)
        self._asks = False
        self.settimeout(self.gettimeout())  # the mode is the open socket's, and it was the node's

    def setsockopt(self, *args: Any) -> None:
        """Nothing for a socket of the node's, which has set TCP_NODELAY and SO_KEEPALIVE; libraries insist on calling it."""
        if not self._made_by_node:
            super().setsockopt(*args)


def install(channel: socket.socket | None) -> None:
    """Make connections go by way of the node, or with None say plainly that there are none."""
    global _client
    if channel is None:
        socket.getaddrinfo = _no_lookup
        return
    _client = EgressClient(channel)
    socket.socket = GrantedSocket  # type: ignore[misc]
    socket.getaddrinfo = _lookup
    base_events.BaseEventLoop.getaddrinfo = _loop_lookup  # type: ignore[method-assign, assignment]
    selector_events.BaseSelectorEventLoop.sock_connect = _loop_connect  # type: ignore[method-assign, assignment]
    selector_events._HAS_SENDMSG = False  # type: ignore[attr-defined]  # 3.12: its transports would call what seccomp refuses


def _lookup(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[tuple[Any, ...]]:
    """The name where an address would stand. An address as it is: connecting to it is refused by the node, with words."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name is None or _is_address(name):
        return _getaddrinfo(host, port, family, type, proto, flags)
    if family not in (0, socket.AF_INET):
        raise socket.gaierror(socket.EAI_FAMILY, "the node chooses the address family")
    if type not in (0, socket.SOCK_STREAM):
        raise socket.gaierror(socket.EAI_SOCKTYPE, "a plugin has TCP connections only")
    address = (name, _port(port))
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]


def _no_lookup(host: Any, port: Any, *more: Any, **options: Any) -> list[tuple[Any, ...]]:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name is None or _is_address(name):
        return _getaddrinfo(host, port, *more, **options)
    raise PermissionError(
        errno.EPERM,
        f"this plugin may not connect to {name}:{port}; ask for it in requiredPermissions: network.http:{name}",
    )


async def _loop_lookup(
    loop: Any, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[tuple[Any, ...]]:
    return _lookup(host, port, family, type, proto, flags)


_own_connect = selector_events.BaseSelectorEventLoop.sock_connect


async def _loop_connect(loop: Any, sock: socket.socket, address: Any) -> None:
    if not (isinstance(sock, GrantedSocket) and sock.asks):
        await _own_connect(loop, sock, address)
        return
    assert _client is not None
    answer = _client.begin(*_target(address), None)
    try:
        fd = await asyncio.wrap_future(answer, loop=loop)
    except asyncio.CancelledError:
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            os.close(answer.result())
        raise
    sock.take(fd)


def _target(address: Any) -> tuple[str, int]:
    return str(address[0]), int(address[1])


def _port(port: Any) -> int:
    text = port.decode("ascii", "replace") if isinstance(port, bytes) else port
    try:
        return _SERVICES[text] if text in _SERVICES else int(text)
    except (TypeError, ValueError):
        raise socket.gaierror(socket.EAI_SERVICE, f"no such port: {text}") from None


def _is_address(name: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


def _pair() -> tuple[int, int]:
    ours, other = socket.socketpair()
    return ours.detach(), other.detach()


def _fault(kind: str, message: str) -> OSError:
    match kind:
        case "permission":
            return PermissionError(errno.EPERM, message)
        case "name":
            return socket.gaierror(socket.EAI_NONAME, message)
        case "timeout":
            return TimeoutError(errno.ETIMEDOUT, message)
        case "refused":
            return ConnectionRefusedError(errno.ECONNREFUSED, message)
        case _:
            return ConnectionError(message)
