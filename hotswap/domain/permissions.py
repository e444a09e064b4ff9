"""What a manifest's requiredPermissions may ask for, and what each grants. Pure.

Neighbours: hotswap.domain.manifest validates with it, hotswap.runtime.egress obeys the network grants,
hotswap.runtime.tenant_ledger the one for secrets. A permission that is not known here grants nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

SECRETS_READ = "secrets.read"
"""The tenant's secrets are handed to the plugin."""

NETWORK_HTTP = "network.http"
"""`network.http:HOST` or `network.http:HOST:PORT`: connections to that host, through the node."""

DEFAULT_PORTS = (443, 80)

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_MAX_NAME_CHARS = 253
_EXAMPLE = "write network.http:api.example.com, network.http:api.example.com:8443 or network.http:*.example.com"


@dataclass(frozen=True, slots=True)
class NetworkGrant:
    """Connections a plugin may ask its node for: to `host`, or with `below` to every name under it (not itself)."""

    host: str
    ports: tuple[int, ...]
    below: bool = False

    def covers(self, host: str, port: int) -> bool:
        """`host` as normal_host gives it."""
        named = host.endswith(f".{self.host}") if self.below else host == self.host
        return named and port in self.ports


def normal_host(text: str) -> str:
    """A host's name in the one spelling that grants are compared in: ASCII, lower case, no final dot.

    Raises ValueError for what is no host name. An address is none: a grant names whom, and DNS says where.
    """
    name = text.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError(f"'{text[:100]}' is not a host name") from None
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_CHARS:
        raise ValueError(f"'{text[:100]}' is not a host name")
    # The last label of a name on the network is not a number (RFC 3696, 2); "127.1" and "0x7f000001" are addresses to libc.
    last = name.rpartition(".")[2]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        raise ValueError(f"'{text[:100]}' is an address; name a host")
    return name


def network_grants(permissions: Iterable[str]) -> tuple[NetworkGrant, ...]:
    """Raises ValueError naming the permission that cannot be read."""
    return tuple(
        _network_grant(permission) for permission in permissions if permission.partition(":")[0] == NETWORK_HTTP
    )


def check_permission(permission: str) -> str:
    """Raises ValueError with the remedy when the permission is about the network and cannot be read."""
    kind = permission.strip().lower().partition(":")[0]
    if kind == NETWORK_HTTP and permission.startswith(NETWORK_HTTP):
        _network_grant(permission)
    elif kind.startswith("network"):
        raise ValueError(f"'{permission[:100]}' grants nothing: {_EXAMPLE}")
    return permission


def _network_grant(permission: str) -> NetworkGrant:
    target = permission.partition(":")[2]
    name, colon, port_text = target.partition(":")
    ports: tuple[int, ...] = DEFAULT_PORTS
    if colon:
        if not (port_text.isascii() and port_text.isdigit() and 1 <= int(port_text[:6]) <= 65535):
            raise ValueError(f"'{permission[:100]}': '{port_text[:20]}' is not a port from 1 to 65535; {_EXAMPLE}")
        ports = (int(port_text),)
    below = name.startswith("*.")
    try:
        host = normal_host(name.removeprefix("*.") if below else name)
    except ValueError as fault:
        raise ValueError(f"'{permission[:100]}': {fault}; {_EXAMPLE}") from None
    if below and "." not in host:
        raise ValueError(f"'{permission[:100]}' would grant a whole top-level domain; {_EXAMPLE}")
    return NetworkGrant(host, ports, below)
