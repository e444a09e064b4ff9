"""The one way out of a plugin host: it asks its node for a connection, and gets a connected socket or a reason why not.

Node side, one EgressGate a host whose manifest grants something (hotswap.domain.permissions); hotswap.runtime.egress_client
asks. The node checks the grant, resolves the name, refuses addresses that are not public, connects and passes the socket
by SCM_RIGHTS: bytes then cost the node nothing, and TLS ends in the plugin. Everything a host says is hostile.
"""

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from hotswap.config import SandboxSettings
from hotswap.domain.permissions import DEFAULT_PORTS, NETWORK_HTTP, NetworkGrant, normal_host
from hotswap.runtime.egress_wire import FAULTS, MAX_ASK_BYTES
from hotswap.runtime.protocol import printable

logger = logging.getLogger("hotswap.egress")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> its addresses as text. Raises OSError."""

CONNECT_SECONDS = 10.0
"""Longest for one connection, its name looked up included; a plugin may ask for less."""
MAX_ASKING = 16
"""Connections being made for one host at once."""
ASKS_PER_WINDOW = 100
WINDOW_SECONDS = 1.0
_MAX_TRIES = 4
"""Addresses of one name that are tried."""
_AUDIT_SECONDS = 60.0
_AUDIT_LINES = 10
"""Lines about refusals of one host in that time; the rest is counted."""

_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's metadata, in public space; the other clouds' are link-local, private or below
        "192.0.0.0/24",  # protocol assignments, Oracle's metadata among them; Python before 3.12.4 calls most of it global
        "192.88.99.0/24",  # 6to4 relays
        "2002::/16",  # 6to4: leads to any IPv4 address
    )
)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is handed out; NAT64, IPv4-compatible and site-local addresses lie outside."""

_LOOKUPS = ThreadPoolExecutor(32, thread_name_prefix="egress-dns")
"""Apart from the loop's own: plugins with a wildcard grant could fill that with names that nobody answers for."""
LOOKUPS_EACH = 2
"""Threads of those that one host has at once, so that its unanswered names do not hold up other plugins' lookups."""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What an operator decides for all hosts. allow_private: networks that plugins may reach though they are not public."""

    allow_private: tuple[Network, ...] = ()
    connections: int = 32
    """Open at once, one host."""
    resolve: Resolver | None = None
    """None: as the machine resolves names."""

    @classmethod
    def of(cls, settings: SandboxSettings) -> "EgressPolicy":
        return cls(settings.egress_allow_private, settings.egress_connections)

    def allows(self, text: str) -> bool:
        """Whether a connection may go to the address: a public one, or one that the operator named."""
        try:
            address: Address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self.allow_private):
            return True
        if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
            return False
        return address.is_global and not address.is_multicast and not any(address in network for network in _NEVER)


class _Refused(Exception):
    """`kind` is one of FAULTS; the text is for the plugin, `audit` says more to the operator."""

    def __init__(self, kind: str, text: str, audit: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.audit = audit


class EgressGate:
    """One host's. Belongs to one event loop; owns `ours`, the node's end of the pair that the host asks over."""

    def __init__(
        self,
        ours: socket.socket,
        grants: Sequence[NetworkGrant],
        policy: EgressPolicy,
        plugin: str,
        version: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ours = ours
        self._grants = grants
        self._policy = policy
        self._loop = loop
        self._audit = _Audit(plugin, version)
        self._asking: set[asyncio.Task[None]] = set()
        self._open: set[tuple[int, int]] = set()
        """Sockets passed on, by local port and inode; those that were closed since are among them until it matters."""
        self._looking = asyncio.Semaphore(LOOKUPS_EACH)
        self._left = ASKS_PER_WINDOW
        self._window: asyncio.TimerHandle | None = None
        ours.setblocking(False)
        loop.add_reader(ours, self._readable)

    def close(self) -> None:
        """Ask no more and give up what is being made. What was passed on ends with its host. Repeats are fine."""
        if self._ours.fileno() < 0:
            return
        if self._window is not None:
            self._window.cancel()
        self._loop.remove_reader(self._ours)
        for task in self._asking:
            task.cancel()
        self._ours.close()
        self._audit.close()

    # -- hearing -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        while self._left > 0:
            try:
                data = self._ours.recv(MAX_ASK_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            self._left -= 1
            if self._window is None:
                self._window = self._loop.call_later(WINDOW_SECONDS, self._new_window)
            self._hear(data)
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours)  # a flood waits in the host

    def _new_window(self) -> None:
        self._window = None
        if self._left <= 0:
            self._loop.add_reader(self._ours, self._readable)
        self._left = ASKS_PER_WINDOW

    def _hear(self, data: bytes) -> None:
        try:
            ask = json.loads(data)
            number, host, port, seconds = int(ask["id"]), str(ask["host"]), int(ask["port"]), float(ask["timeout"])
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            self._audit.refused("?", "the host does not keep to the protocol; it gets no more connections")
            self.close()
            return
        if len(self._asking) >= MAX_ASKING:
            text = f"{MAX_ASKING} connections of this plugin are being made already"
            self._answer(number, fault=("limit", text))
            return
        task = self._loop.create_task(self._serve(number, host, port, seconds))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _serve(self, number: int, host: str, port: int, seconds: float) -> None:
        limit = min(seconds, CONNECT_SECONDS) if seconds > 0 else CONNECT_SECONDS
        target = f"{printable(host)[:100]}:{port}"
        try:
            async with asyncio.timeout(limit):
                made = await self._connect(host, port)
        except _Refused as fault:
            self._audit.refused(target, fault.audit or str(fault))
            self._answer(number, fault=(fault.kind, str(fault)))
        except TimeoutError:
            self._answer(number, fault=("timeout", f"{target} did not take the connection within {limit:g} s"))
        except socket.gaierror as fault:
            self._answer(number, fault=("name", f"{target}: {fault.strerror or 'no such host'}"))
        except OSError as fault:
            self._answer(number, fault=("refused", f"{target}: {fault.strerror or type(fault).__name__}"))
        else:
            with made:
                self._answer(number, made)

    def _answer(self, number: int, made: socket.socket | None = None, *, fault: tuple[str, str] = ("", "")) -> None:
        assert not fault[0] or fault[0] in FAULTS
        if self._ours.fileno() < 0:
            return
        data = json.dumps({"id": number, "fault": fault[0], "message": fault[1]}).encode()
        try:
            if made is None:
                self._ours.send(data)
            else:
                socket.send_fds(self._ours, [data], [made.fileno()])
                self._open.add((made.getsockname()[1], os.fstat(made.fileno()).st_ino))
        except OSError:  # it does not read what it asked for, or is gone
            self.close()

    # -- connecting ----------------------------------------------------------------------------------------------

    async def _connect(self, host: str, port: int) -> socket.socket:
        """Raises _Refused, OSError."""
        name = self._granted(host, port)
        await self._check_room()
        addresses = list(dict.fromkeys(await (self._policy.resolve or self._resolve)(name, port)))
        allowed = [address for address in addresses if self._policy.allows(address)]
        if not allowed:
            raise _Refused(
                "permission",
                f"{name} has no public address; its operator may allow others",
                f"{name} resolves to {', '.join(addresses[:_MAX_TRIES])}, which HOTSWAP_SANDBOX__EGRESS_ALLOW_PRIVATE "
                "does not allow",
            )
        fault: OSError | None = None
        for address in allowed[:_MAX_TRIES]:
            try:
                return await self._connect_to(address, port)
            except OSError as refused:
                fault = refused
        assert fault is not None
        raise fault

    def _granted(self, host: str, port: int) -> str:
        """The name to connect to. Raises _Refused naming the permission that is missing."""
        target = f"{printable(host)[:100]}:{port}"
        try:
            name = normal_host(host)
        except ValueError as fault:
            raise _Refused("permission", f"this plugin may not connect to {target}: {fault}") from None
        if not any(grant.covers(name, port) for grant in self._grants):
            needed = f"{NETWORK_HTTP}:{name}" if port in DEFAULT_PORTS else f"{NETWORK_HTTP}:{name}:{port}"
            text = f"this plugin may not connect to {target}; ask for it in requiredPermissions: {needed}"
            raise _Refused("permission", text)
        return name

    async def _check_room(self) -> None:
        """Raises _Refused when as many connections are open as may be, those being made included."""
        most = self._policy.connections - len(self._asking) + 1
        if len(self._open) >= most:
            self._open &= await asyncio.to_thread(_tcp_sockets)
        if len(self._open) >= most:
            text = f"CONNECTION_LIMIT: this plugin has {len(self._open)} connections open already; close some"
            raise _Refused("limit", text)

    async def _resolve(self, host: str, port: int) -> list[str]:
        await self._looking.acquire()
        look_up = _LOOKUPS.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        look_up.add_done_callback(self._looked_up)
        return [str(entry[4][0]) for entry in await asyncio.wrap_future(look_up)]

    def _looked_up(self, look_up: Future[Any]) -> None:
        """When its thread is free, which may be long after the asker gave up. In that thread."""
        del look_up
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a turn any more
            self._loop.call_soon_threadsafe(self._looking.release)

    async def _connect_to(self, address: str, port: int) -> socket.socket:
        """To exactly the address that was checked: the name is not looked up again."""
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            await self._loop.sock_connect(made, (address, port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except BaseException:
            made.close()
            raise
        return made


class _Audit:
    """What was refused, in the log: once a minute for each target, a bounded number of lines a host, the rest counted."""

    def __init__(self, plugin: str, version: str) -> None:
        self._facts = {"plugin": plugin, "version": version}
        self._said: dict[str, float] = {}
        self._more = 0

    def refused(self, target: str, why: str) -> None:
        now = monotonic()
        self._said = {said: at for said, at in self._said.items() if now - at < _AUDIT_SECONDS}
        if target in self._said or len(self._said) >= _AUDIT_LINES:
            self._more += 1
            return
        self._said[target] = now
        logger.warning("refused a plugin's connection to %s: %s%s", target, why, self._counted(), extra=self._facts)

    def close(self) -> None:
        if self._more:
            logger.warning("the plugin's host ended%s", self._counted(), extra=self._facts)

    def _counted(self) -> str:
        more, self._more = self._more, 0
        return f" (and {more} refusals more that are not listed)" if more else ""


def _tcp_sockets() -> set[tuple[int, int]]:
    """Local port and inode of every TCP socket that some process holds, in this network namespace."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # no IPv6 here
            for line in Path(f"/proc/self/net/{table}").read_text("ascii").splitlines()[1:]:
                fields = line.split()
                found.add((int(fields[1].rpartition(":")[2], 16), int(fields[9])))
    return found
