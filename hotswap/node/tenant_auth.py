"""Who may call whose plugins on this node: tenants' tokens, verified offline, and the platform's own token if there is one.

`TenantAuth.known` is asked for every request by hotswap.node.router and costs a dictionary lookup once a token was seen.
`TenantKeys` reads public keys and revoked ids from PostgreSQL on the node's reconcile beat; while it is away, what was read
last holds. The tokens come from the api (api.services.tokens); neither it nor PostgreSQL is asked for a request.
"""

import asyncio
import hmac
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from hotswap.domain.accounts import KeyPurpose, PublicKey
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Unavailable
from hotswap.identity.tokens import DATA_PLANE_AUDIENCE, KeyRing, TenantClaims, TokenRejected, UnknownKey
from hotswap.node.outage import READ_TIMEOUT, Outage
from hotswap.node.refusals import Refusal

if TYPE_CHECKING:  # every model of the records: a router process needs none of them, and starts 0.2 s sooner
    from hotswap.ports.records import UnitOfWorkFactory

log = logging.getLogger(__name__)

MOST_REMEMBERED = 20_000
"""Tokens that were verified (0.1 to 0.4 ms each) and are remembered; all are dropped when full. About 20 MB."""

EXTRA_LOOK_SECONDS = 1.0
"""Between looks at PostgreSQL that an unknown key id asks for: whoever invents ids must not make us read for each."""

FORBIDDEN = Refusal(403, "FORBIDDEN", "this token does not reach that plugin of that tenant here")
"""One answer whatever is missing, and whether or not there is such a tenant."""

_CANONICAL = re.compile(rb"^Bearer [A-Za-z0-9_.-]{1,8192}$")
"""What is remembered. Otherwise one token, spelled in thousands of ways, would fill the memory."""


class Grant:
    """What a token opens. `tenant` None: everybody's plugins."""

    __slots__ = ("expires", "plugins", "tenant")

    def __init__(self, tenant: str | None, plugins: frozenset[str] = frozenset(), expires: float = math.inf) -> None:
        self.tenant = tenant
        self.plugins = plugins
        self.expires = expires
        """Seconds since the epoch."""

    def allows(self, tenant: str, plugin: str) -> bool:
        mine = self.tenant
        return mine is None or (mine == tenant and (not self.plugins or plugin in self.plugins))


class TenantAuth:
    """Judges Authorization headers. Belongs to one event loop; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        environment: Environment,
        platform_token: str = "",
        issuer: str = "hotswap",
        leeway: timedelta = timedelta(seconds=5),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Without a `platform_token` only tenants' own tokens open anything."""
        self.unknown_key = asyncio.Event()
        """Set when a token came whose key is not known here yet: time to look."""
        self._environment = environment
        self._platform = f"Bearer {platform_token}".encode() if platform_token else None
        self._issuer = issuer
        self._leeway = leeway
        self._clock = clock
        self._keys: tuple[PublicKey, ...] = ()
        self._ring = KeyRing(KeyPurpose.DATA_PLANE, ())
        self._revoked: frozenset[str] = frozenset()
        self._remembered: dict[bytes, Grant] = {}

    def known(self, authorization: bytes) -> Grant | None:
        """What the header's token opens; None when it is none of ours, has expired or was revoked."""
        grant = self._remembered.get(authorization)
        if grant is not None and self._clock() < grant.expires:
            return grant
        return self._judge(authorization)

    def learn(self, keys: Sequence[PublicKey], revoked: Collection[str]) -> None:
        """Verify by these keys from now on, and refuse these tokens."""
        if tuple(keys) == self._keys and self._revoked == frozenset(revoked):
            return
        if tuple(keys) != self._keys:
            self._ring = KeyRing(KeyPurpose.DATA_PLANE, keys)
        self._keys, self._revoked = tuple(keys), frozenset(revoked)
        self._remembered.clear()

    def _judge(self, authorization: bytes) -> Grant | None:
        # The scheme's name is case-insensitive (RFC 9110, 11.1); nearly nobody writes it otherwise.
        scheme, _, presented = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        token = presented.strip()
        if self._platform is not None and hmac.compare_digest(b"Bearer " + token, self._platform):
            grant = Grant(None)
        elif (verified := self._verified(token)) is not None:
            grant = verified
        else:
            self._remembered.pop(authorization, None)
            return None
        if authorization == self._platform or _CANONICAL.match(authorization):
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[authorization] = grant
        return grant

    def _verified(self, token: bytes) -> Grant | None:
        try:
            text = token.decode("ascii")
            claims = self._ring.verify(text, TenantClaims, self._issuer, DATA_PLANE_AUDIENCE, self._leeway)
        except UnknownKey:
            self.unknown_key.set()
            return None
        except (TokenRejected, UnicodeDecodeError):
            return None
        if claims.jti in self._revoked:
            return None
        if claims.env and self._environment not in claims.env:
            return Grant("", expires=claims.exp)  # known, and opens nothing here: no tenant has an empty name
        return Grant(claims.sub, frozenset(claims.plugins), claims.exp + self._leeway.total_seconds())


class Verifier(Protocol):
    """Who judges tokens by keys: a TenantAuth, or all those of router processes."""

    @property
    def unknown_key(self) -> asyncio.Event: ...

    def learn(self, keys: Sequence[PublicKey], revoked: Collection[str]) -> None: ...


class TenantKeys:
    """Keeps a TenantAuth true to PostgreSQL."""

    def __init__(self, auth: Verifier, unit_of_work: "UnitOfWorkFactory", every: timedelta) -> None:
        self._auth = auth
        self._unit_of_work = unit_of_work
        self._every = every.total_seconds()
        self._outage = Outage("PostgreSQL, for tenants' keys,")

    async def run(self) -> None:
        """Look on every beat, and sooner for a key that is not known yet, until cancelled."""
        while True:
            await asyncio.sleep(min(EXTRA_LOOK_SECONDS, self._every))
            try:
                async with asyncio.timeout(max(self._every - EXTRA_LOOK_SECONDS, 0)):
                    await self._auth.unknown_key.wait()
            except TimeoutError:
                pass  # an ordinary beat
            await self.look()

    async def look(self) -> None:
        """Read keys and revoked ids once. PostgreSQL away is logged once an outage, and what was read before holds."""
        self._auth.unknown_key.clear()
        try:
            async with asyncio.timeout(READ_TIMEOUT), self._unit_of_work() as uow:
                keys = await uow.signing_keys.public(KeyPurpose.DATA_PLANE)
                revoked = await uow.tenant_tokens.revoked()
        except (Unavailable, TimeoutError) as fault:
            self._outage.failed(fault)
        except Exception:
            # A bug here must not take a node down that serves.
            log.exception("reading tenants' keys failed")
        else:
            self._outage.passed()
            self._auth.learn(keys, revoked)
