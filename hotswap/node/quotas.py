"""Meters what each (tenant, plugin) asks of this node: requests a minute, calls at once, bytes held, longest call.

Neighbours: hotswap.node.router charges and releases, hotswap.node.reconcile brings rows' own limits, hotswap.domain.quota
says what they mean. One event loop, no locks; a charge is two dict look-ups and some arithmetic (under 0.5 us). A meter
that is full again and has nothing under way is as good as none, so memory follows who is active, up to MAX_METERS.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

from hotswap.domain.quota import MAX_CONCURRENT, MAX_MEMORY_MB, MAX_REQUESTS_PER_MINUTE, Quota, QuotaOverride

MIB = 1024 * 1024
MINUTE = 60.0

MAX_METERS = 50_000
"""About 15 MB. Past it (all of them busy) tenants that have no meter yet share one, so that inventing names gains nothing."""

LOOKED_AT = 2
"""Oldest meters looked at for each new one: more than one, so that idle ones go faster than new ones come."""

UNLIMITED = Quota(
    requests_per_minute=MAX_REQUESTS_PER_MINUTE,
    concurrent=MAX_CONCURRENT,
    execution_seconds=3600,
    memory_mb=MAX_MEMORY_MB,
)

Key = tuple[str, str]
"""(tenant, plugin)"""


class Meter:
    """One (tenant, plugin). The rate is a bucket of a minute's requests, kept as one instant (GCRA, ITU-T I.371)."""

    __slots__ = ("_full_at", "_interval", "bytes", "concurrent", "execution_seconds", "max_bytes", "quota")

    def __init__(self, quota: Quota) -> None:
        self.concurrent = 0
        self.bytes = 0
        self._full_at = 0.0
        """When the bucket is full again."""
        self.limit(quota)

    def limit(self, quota: Quota) -> None:
        """Meter by these limits from now on; what was used stays used."""
        self.quota = quota
        self.execution_seconds = quota.execution_seconds
        self.max_bytes = quota.memory_mb * MIB
        self._interval = MINUTE / quota.requests_per_minute

    def charge(self, now: float) -> float:
        """Take one request from the bucket: 0.0, or the seconds until there is one to take."""
        full_at = self._full_at
        after = (full_at if full_at > now else now) + self._interval
        short = after - now - MINUTE
        if short > 1e-6:
            return short
        self._full_at = after
        return 0.0

    def enter(self, size: int) -> str:
        """Count a call in that may need `size` bytes: "", or the name of the limit that forbids it."""
        if self.concurrent >= self.quota.concurrent:
            return "concurrent"
        if self.bytes + size > self.max_bytes:
            return "memoryMb"
        self.concurrent += 1
        self.bytes += size
        return ""

    def leave(self, size: int) -> None:
        self.concurrent -= 1
        self.bytes -= size

    def under_way(self) -> int:
        """Calls that count towards `concurrent`."""
        return self.concurrent

    def left(self, now: float) -> int:
        """Requests in the bucket."""
        return max(0, math.floor((now + MINUTE - max(self._full_at, now)) / self._interval + 1e-6))

    def idle(self, now: float) -> bool:
        return not self.concurrent and self._full_at <= now


class Meters:
    """Every meter of a node. `clock` in seconds, the one that `now` is of."""

    def __init__(self, default: Quota, clock: Callable[[], float], most: int = MAX_METERS) -> None:
        self._default = default
        self._clock = clock
        self._most = most
        self._meters: OrderedDict[Key, Meter] = OrderedDict()
        self._overrides: dict[Key, QuotaOverride] = {}
        self._shared = Meter(default)

    def __len__(self) -> int:
        return len(self._meters)

    def of(self, tenant: str, plugin: str) -> Meter:
        key = (tenant, plugin)
        return self._meters.get(key) or self._new(key)

    def set_overrides(self, overrides: Mapping[Key, QuotaOverride]) -> None:
        """Rows' own limits, all of them. Meters in use follow at once."""
        before, self._overrides = self._overrides, dict(overrides)
        for key in before.keys() | overrides.keys():
            meter = self._meters.get(key)
            if meter is not None and before.get(key) != overrides.get(key):
                meter.limit(self._quota(key))

    def _new(self, key: Key) -> Meter:
        now = self._clock()
        for _ in range(min(LOOKED_AT, len(self._meters))):
            oldest, meter = self._meters.popitem(last=False)
            if meter.idle(now):
                self._dropped(meter)
            else:
                self._meters[oldest] = meter
        if len(self._meters) >= self._most and key not in self._overrides:
            return self._shared
        made = self._meters[key] = self._made(key, self._quota(key))
        return made

    def _made(self, key: Key, quota: Quota) -> Meter:
        del key
        return Meter(quota)

    def _dropped(self, meter: Meter) -> None:
        """It was idle and is not here any more."""

    def _quota(self, key: Key) -> Quota:
        override = self._overrides.get(key)
        return self._default if override is None else override.over(self._default)
