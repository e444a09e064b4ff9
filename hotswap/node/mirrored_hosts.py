"""A router process's view of the node's plugin hosts: a channel to each process, and which of them serve which version.

The node decides and tells (hotswap.node.router_pool); hotswap.node.router_worker hears it and changes what is here, and the
router serves from it as it would from hotswap.node.hosts. A process that dies is seen here first, by its channel: its
standby takes over within the same turn, and only what the plugin had begun waits for the node to say why it ended.
"""

import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

from hotswap.domain.routes import ArtifactRef
from hotswap.node.journal import Counted
from hotswap.ports.hosts import HostSpec
from hotswap.ports.tenant_settings import TenantSettings
from hotswap.runtime import protocol
from hotswap.runtime.channel import HostChannel, Marks
from hotswap.runtime.masking import SecretMask
from hotswap.runtime.tenant_ledger import TenantLedger

LAST_WORDS = 5.0
"""Seconds after a host's end by which its line must have closed: it does at once, unless somebody else holds it open."""


class MirroredHost(HostChannel):
    """One host process, on a line of its own. Not alive while the node wants it drained, though what it has goes on."""

    def __init__(
        self,
        host_id: int,
        spec: HostSpec,
        line: int,
        watermark: int,
        mask: SecretMask,
        ledger: TenantLedger,
        report: Callable[[int, str], None],
    ) -> None:
        """Takes over `watermark`. `report(host_id, what)`: the node must end it, since it broke the protocol; or "": hung up."""
        memory = mmap.mmap(watermark, protocol.WATERMARK_BYTES)
        os.close(watermark)
        super().__init__(
            f"host of {spec.plugin} {spec.version}", spec.max_reply_bytes, Marks(memory, line), mask, ledger
        )
        self.id = host_id
        self._spec = spec
        self._words: memoryview | None = memoryview(memory).cast("I")[: protocol.marks_at(1 + spec.lines) // 4]
        self._report = report
        self._verdict: tuple[str, str] | None = None
        """Why it ended, or had to: the limit and the reason."""
        self._lost = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._alive = True
        if self._spec.config_defaults:
            self._write(protocol.encode_settings("", 0, self._spec.config_defaults, {}))

    def connection_lost(self, exc: Exception | None) -> None:
        """What the plugin never saw is answered at once, the rest when the node tells the reason."""
        self._alive = False
        self._lost = True
        self._answer_all("the host is gone and never began this call", "DIED", only_unseen=True)
        if self._verdict is None:
            self._report(self.id, "")  # a host that only shut this line must not live on
        else:
            self._finish(*self._verdict)

    def answered(self) -> int:
        """Calls of all routers that it has answered, modulo 2^32, as it tells itself."""
        return 0 if self._words is None else sum(self._words[protocol.ANSWERED_AT // 4 :: protocol.LINE_BYTES // 4])

    def retire(self) -> None:
        """Take no more calls."""
        self._alive = False

    def end(self, limit: str, reason: str) -> None:
        """The process is no more, or will soon be. What it said before may still be in the line: that is read first."""
        self._alive = False
        self._verdict = (limit, reason)
        if self._lost:
            self._finish(limit, reason)
        else:
            self._loop.call_later(LAST_WORDS, self.hang_up)

    def hang_up(self) -> None:
        """Nothing more is wanted of it here. Repeats are fine."""
        self._alive = False
        self._verdict = self._verdict or ("DIED", "the host was closed")
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def _finish(self, limit: str, reason: str) -> None:
        self._answer_all(reason, limit)
        self._in_flight.close()
        words, self._words = self._words, None
        if words is not None:
            words.release()
        self._watermark.close()

    def _end_reason(self) -> str:
        return self._verdict[1] if self._verdict is not None else "the host is gone"

    def _distrust(self, what: str) -> None:
        self._alive = False
        self._report(self.id, what)
        assert self._transport is not None
        self._transport.abort()


@dataclass(slots=True)
class Serving:
    """Who serves a version, as the node said last (hotswap.node.hosts.Lineup). Processes by number."""

    serving: list[int]
    standby: int | None
    evicted: bool
    back_at: float


class MirroredVersion:
    """Implements hotswap.node.serving.ServedVersion."""

    def __init__(self, ref: ArtifactRef, counter: Counted, wake: Callable[[ArtifactRef], None]) -> None:
        """`wake(ref)`: somebody wants it and it is evicted."""
        self.ref = ref
        self.counter = counter
        self._wake = wake
        self._live: list[MirroredHost] = []
        self._standby: MirroredHost | None = None
        self._evicted = False
        self._back_at = 0.0
        self._turn = 0

    @property
    def processes(self) -> int:
        return len(self._live)

    def answered(self) -> int:
        """Calls that its processes have answered, of all routers together."""
        return sum(host.answered() for host in self._live)

    def follow(self, serving: Serving, hosts: dict[int, MirroredHost]) -> None:
        """Serve by these from now on. Processes that this router has no line to are left out."""
        self._live = [hosts[number] for number in serving.serving if number in hosts]
        self._standby = hosts.get(serving.standby) if serving.standby is not None else None
        self._evicted = serving.evicted
        self._back_at = serving.back_at

    def pick(self) -> MirroredHost | None:
        live = self._live
        if len(live) == 1 and live[0].alive:
            return live[0]
        return self._choose()

    def _choose(self) -> MirroredHost | None:
        if self._evicted:
            self._evicted = False  # asked for once; what the node does about it comes as the next lineup
            self._wake(self.ref)
        best: MirroredHost | None = None
        least = 0
        live = self._live
        self._turn += 1  # among equals each has its turn: one core must not get all of a light load
        for index in range(len(live)):
            host = live[(index + self._turn) % len(live)]
            if not host.alive:
                if self._stand_in(host):
                    return self._choose()
                continue
            busy = host.in_flight
            if best is None or busy < least:
                best, least = host, busy
        return best

    def _stand_in(self, dead: MirroredHost) -> bool:
        """As the node will, once it hears of it."""
        spare = self._standby
        if spare is None or not spare.alive:
            return False
        self._standby = None
        self._live[self._live.index(dead)] = spare
        return True

    def back_within(self, seconds: float) -> bool:
        return bool(self._live) or self._back_at - monotonic() <= seconds


class MirroredTenants:
    """Settings of tenants as the node told them. Implements hotswap.ports.tenant_settings.TenantSettingsProvider."""

    def __init__(self) -> None:
        self.disabled: set[tuple[str, str]] = set()
        self._known: dict[str, dict[str, TenantSettings]] = {}
        self._masks: dict[str, SecretMask] = {}

    def current(self, tenant: str, plugin: str) -> TenantSettings | None:
        tenants = self._known.get(plugin)
        return tenants.get(tenant) if tenants is not None else None

    async def ensure(self, plugin: str) -> None:
        """The node tells before it names a host of the plugin."""

    async def refresh(self) -> None:
        """The node tells."""

    def mask(self, plugin: str) -> SecretMask:
        """Knows every secret that any host of the plugin may have been told."""
        return self._masks.setdefault(plugin, SecretMask())

    def learn(self, plugin: str, changed: dict[str, Any], gone: Iterable[str]) -> None:
        tenants = self._known.setdefault(plugin, {})
        for tenant in gone:
            tenants.pop(tenant, None)
        for tenant, (version, config, secrets) in changed.items():
            tenants[tenant] = TenantSettings(version, config, secrets)
            self.mask(plugin).add(cast(dict[str, str], secrets).values())
