"""Tenants' quotas over several router processes: each counts in memory that all share, and adds up what the others counted.

Neighbours: hotswap.node.quotas meters within one process; hotswap.node.router_pool makes the memory and wipes the part of a
router that has died. Every router has a hash table of its own there and is its only writer, so there are no locks; the
others look a (tenant, plugin) up in it by its fingerprint. A call costs about 0.5 us for each other router.

What holds: two routers that admit at the same instant may not see each other, so each limit can be passed by one call for
each further router, never by more. A rate's bucket is kept by each router for itself (`Meter`): of another's calls since it
looked last it takes as many from the bucket, and it is never fuller than another's, which saw when its own calls came.
"""

import mmap
import os
import time
from collections.abc import Callable

from xxhash import xxh3_64_intdigest

from hotswap.domain.quota import Quota
from hotswap.node.quotas import Key, Meter, Meters

SLOTS = 1 << 17
"""In each router's table: 2.6 times hotswap.node.quotas.MAX_METERS, so that chains stay short. 8 MiB, touched as used."""

_WORDS = 8
_FINGERPRINT, _EPOCH, _CHARGED, _CONCURRENT, _BYTES, _FULL_AT = range(6)
"""Words of a slot, u64: whose it is, when it was taken (ns), requests charged since, calls and bytes under way, and when
the bucket is full again by what this router knows (ns of the monotonic clock, the same in all processes)."""

_FREE, _LEFT = 0, 1
"""Fingerprints of slots that are nobody's: never used, and used before (the search goes on behind it)."""

_PROBES = 8
"""Slots looked at for one key. At 50,000 meters one key in 2,000 finds no room; it is then metered by each router alone."""

_NS = 1e9


def table_bytes(routers: int) -> int:
    return routers * SLOTS * _WORDS * 8


class QuotaMemory:
    """The node's side: makes the memory, gives it away, wipes what a router left."""

    def __init__(self, routers: int) -> None:
        self.descriptor = os.memfd_create("hotswap-quotas", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, table_bytes(routers))
        self._memory = mmap.mmap(self.descriptor, table_bytes(routers))

    def wipe(self, router: int) -> None:
        """Nothing that it counted is under way any more."""
        size = table_bytes(1)
        self._memory.madvise(mmap.MADV_REMOVE, router * size, size)

    def close(self) -> None:
        """Repeats are fine."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self.descriptor)


class QuotaTables:
    """One router's view: its own table to write, the others' to read."""

    def __init__(self, descriptor: int, routers: int, own: int) -> None:
        """`own`: which of the routers this is, from 0. The descriptor stays the caller's."""
        self.words = memoryview(mmap.mmap(descriptor, table_bytes(routers))).cast("Q")
        self.others = [router for router in range(routers) if router != own]
        self._own = own

    def find(self, router: int, fingerprint: int) -> int:
        """Index of the first word of its slot in that router's table, or -1."""
        words = self.words
        for probe in range(_PROBES):
            at = self._slot(router, fingerprint, probe)
            there = words[at]
            if there == fingerprint:
                return at
            if there == _FREE:
                break
        return -1

    def claim(self, fingerprint: int) -> int:
        """A slot of our own for it, or -1 when there is no room near where it belongs."""
        words = self.words
        for probe in range(_PROBES):
            at = self._slot(self._own, fingerprint, probe)
            if words[at] in (_FREE, _LEFT):
                for word in (_CHARGED, _CONCURRENT, _BYTES, _FULL_AT):
                    words[at + word] = 0
                words[at + _EPOCH] = time.monotonic_ns()
                words[at] = fingerprint  # last: from here on others see it
                return at
        return -1

    def release(self, at: int) -> None:
        self.words[at] = _FREE if self.words[self._behind(at)] == _FREE else _LEFT

    def _slot(self, router: int, fingerprint: int, probe: int) -> int:
        return (router * SLOTS + ((fingerprint >> 8) + probe) % SLOTS) * _WORDS

    def _behind(self, at: int) -> int:
        slot = at // _WORDS
        return (slot - slot % SLOTS + (slot + 1) % SLOTS) * _WORDS


class _Peer:
    """Another router's slot for the same key, and what of it was taken into account."""

    __slots__ = ("at", "charged", "epoch", "router")

    def __init__(self, router: int) -> None:
        self.router = router
        self.at = -1
        self.epoch = 0
        self.charged = 0


class SharedMeter(Meter):
    """One (tenant, plugin) as all routers meter it together."""

    __slots__ = ("_at", "_fingerprint", "_looked_at", "_peers", "_tables", "_words")

    def __init__(self, quota: Quota, tables: QuotaTables, fingerprint: int, at: int) -> None:
        """`at`: the slot claimed for it."""
        super().__init__(quota)
        self._tables = tables
        self._words = tables.words
        self._fingerprint = fingerprint
        self._at = at
        self._looked_at = 0.0
        self._peers = [_Peer(router) for router in tables.others]
        for peer in self._peers:  # the bucket is as full as they left it; what they charged so far is in that
            if self._seen(peer):
                self._full_at = max(self._full_at, self._words[peer.at + _FULL_AT] / _NS)
                peer.epoch, peer.charged = self._words[peer.at + _EPOCH], self._words[peer.at + _CHARGED]

    def charge(self, now: float) -> float:
        self._learn(now)
        short = super().charge(now)
        if not short:
            words, at = self._words, self._at
            words[at + _FULL_AT] = int(self._full_at * _NS)
            words[at + _CHARGED] += 1
        return short

    def enter(self, size: int) -> str:
        words = self._words
        concurrent, held = self.concurrent, self.bytes
        for peer in self._peers:
            if self._seen(peer):
                concurrent += words[peer.at + _CONCURRENT]
                held += words[peer.at + _BYTES]
        if concurrent >= self.quota.concurrent:
            return "concurrent"
        if held + size > self.max_bytes:
            return "memoryMb"
        self.concurrent += 1
        self.bytes += size
        self._publish()
        return ""

    def leave(self, size: int) -> None:
        super().leave(size)
        self._publish()

    def under_way(self) -> int:
        return self.concurrent + sum(self._words[peer.at + _CONCURRENT] for peer in self._peers if self._seen(peer))

    def release(self) -> None:
        self._tables.release(self._at)

    def _learn(self, now: float) -> None:
        """Take from the bucket what others have charged since the last look."""
        words = self._words
        unseen, latest = 0, 0
        for peer in self._peers:
            if not self._seen(peer):
                continue
            epoch, charged = words[peer.at + _EPOCH], words[peer.at + _CHARGED]
            if epoch != peer.epoch:
                peer.epoch, peer.charged = epoch, 0
            unseen += max(0, charged - peer.charged)
            peer.charged = charged
            latest = max(latest, words[peer.at + _FULL_AT])
        full_at = self._full_at
        if unseen:
            full_at = max(full_at, self._looked_at) + unseen * self._interval
        self._full_at = max(full_at, latest / _NS)
        self._looked_at = now

    def _seen(self, peer: _Peer) -> bool:
        if peer.at < 0 or self._words[peer.at] != self._fingerprint:
            peer.at = self._tables.find(peer.router, self._fingerprint)
        return peer.at >= 0

    def _publish(self) -> None:
        self._words[self._at + _CONCURRENT] = self.concurrent
        self._words[self._at + _BYTES] = self.bytes


class SharedMeters(Meters):
    """Every meter of one of several routers."""

    def __init__(self, default: Quota, clock: Callable[[], float], tables: QuotaTables) -> None:
        """`clock` must be the same in all routers: time.monotonic."""
        super().__init__(default, clock)
        self._tables = tables

    def _made(self, key: Key, quota: Quota) -> Meter:
        fingerprint = xxh3_64_intdigest("\0".join(key).encode()) | 2  # neither _FREE nor _LEFT
        at = self._tables.claim(fingerprint)
        return SharedMeter(quota, self._tables, fingerprint, at) if at >= 0 else super()._made(key, quota)

    def _dropped(self, meter: Meter) -> None:
        if isinstance(meter, SharedMeter):
            meter.release()
