"""Says of a version that turns requests away whether one tenant is to blame, or the version that is too slow for all of them.

Neighbours: hotswap.node.queues has a Strain for each version that was too busy and settles it every STRETCH_SECONDS,
hotswap.node.figures keeps both kinds apart, hotswap.analysis judges a version by one of them only (ADR 64). Pure data.

The question is what would be without the tenant that asks for most. If the version serves at least as many requests as
all others ask for, whoever was turned away was so for that one tenant: a flood. Otherwise the version is too slow for its
traffic. Until that is known, a second later at most, neither those turned away nor the calls that ended are told.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from hotswap.analysis.histogram import bucket_of
from hotswap.domain.routes import ArtifactRef
from hotswap.node.figures import Result, Slot

log = logging.getLogger(__name__)

STRETCH_SECONDS = 1.0
"""How often it is decided who is to blame."""

KEPT = 0.8
"""What each stretch before counts beside the one after it: five stretches in all, so that a version that ends a call every
two seconds is not found to have served nothing."""

CROWD = 32
"""Requests that wait at once before a tenant can be blamed for making others slow; fewer are the ordinary life of a busy
version, whose latencies count. Turning somebody away needs no crowd."""

_LEAST = 0.5
"""A tenant that counts for less is forgotten."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What one stretch adds to the figures of its version.

    `counted`: what the version answers for. `flood`: requests that were turned away for one tenant's flood, and the
    latencies of calls that ran beside it (which are among the requests of `counted`, where they have none).
    """

    counted: Slot
    flood: Slot | None


class Strain:
    """One version's queue on one router. Rates are requests in a stretch, those of earlier ones fading.

    Records calls that end (a hotswap.node.serving.Recorder) while it is `active`.
    """

    __slots__ = (
        "_asked",
        "_blamed",
        "_elsewhere",
        "_ended",
        "_is_late",
        "_peak",
        "_ref",
        "_settle",
        "_taken",
        "_turned_away",
    )

    def __init__(self, ref: ArtifactRef, settle: Callable[[Settled], None]) -> None:
        """`settle`: where a stretch is counted when it is over."""
        self._ref = ref
        self._settle = settle
        self._asked: dict[str, float] = {}
        """Requests that had to wait or were turned away, by tenant."""
        self._taken = 0.0
        """Of these, those whose turn came."""
        self._turned_away = self._elsewhere = self._peak = 0
        self._is_late = False
        """Whether any of those turned away had waited until its time was over."""
        self._ended = Slot(0.0)
        self._blamed = ""
        """Whose flood the stretch before was."""

    @property
    def active(self) -> bool:
        """Whether anybody had to wait lately."""
        return bool(self._asked)

    @property
    def unsettled(self) -> int:
        """Requests that have ended in this stretch."""
        return self._ended.requests + self._turned_away + self._elsewhere

    def asked(self, tenant: str, waiting: int) -> None:
        """One more request finds the version too busy and so many waiting."""
        self._asked[tenant] = self._asked.get(tenant, 0.0) + 1.0
        self._peak = max(self._peak, waiting)

    def taken(self) -> None:
        """The turn of one of them has come."""
        self._taken += 1.0

    def withdrawn(self, tenant: str, seconds: float) -> None:
        """One of them, that had waited for so long, waits no more and its turn has not come."""
        left = KEPT ** (seconds / STRETCH_SECONDS)
        self._asked[tenant] = max(0.0, self._asked.get(tenant, 0.0) - left)

    def came_late(self, tenant: str) -> None:
        """One that waited here, however long ago it began to, is over without an answer: it asked until now, in vain."""
        self._asked[tenant] = self._asked.get(tenant, 0.0) + 1.0
        self._turned_away += 1
        self._is_late = True

    def turned_away(self, *, elsewhere: bool = False) -> None:
        """There is no room for one of them. `elsewhere`: other versions have filled the node's."""
        if elsewhere:
            self._elsewhere += 1
        else:
            self._turned_away += 1

    def record(self, now: float, elapsed: float, result: Result) -> None:
        """A call of the version has ended."""
        self._ended.count(bucket_of(elapsed * 1000.0), result)

    def settle(self) -> None:
        """The stretch is over."""
        blamed = self._to_blame()
        counted, flood = self._ended, Slot(0.0)
        if blamed:
            flood.buckets, counted.buckets = counted.buckets, {}
        (flood if blamed else counted).turned_away(self._turned_away)
        flood.turned_away(self._elsewhere)
        self._settle(Settled(counted, flood if flood.requests or flood.buckets else None))
        if blamed and self._turned_away and blamed != self._blamed:
            log.warning(
                "tenant %s asks for more of %s %s than it serves, which could serve all others: %d requests were turned away "
                "in this second, which is not held against the version. A quota keeps the tenant in bounds",
                blamed,
                self._ref.plugin,
                self._ref.version,
                self._turned_away,
            )
        self._blamed = blamed
        self._ended = Slot(0.0)
        self._turned_away = self._elsewhere = self._peak = 0
        self._is_late = False
        self._taken *= KEPT
        self._asked = {tenant: left for tenant, count in self._asked.items() if (left := count * KEPT) >= _LEAST}

    def _to_blame(self) -> str:
        """The tenant but for which nobody would have been turned away, or waited; "" when it is the version."""
        if not self._asked or not (self._turned_away or self._peak >= CROWD):
            return ""
        if self._is_late and self._taken < _LEAST:
            return ""  # it takes nothing at all while time runs out: it hangs, whoever asks
        greedy, most = max(self._asked.items(), key=lambda item: item[1])
        others = sum(self._asked.values()) - most
        return greedy if others <= self._taken and (self._turned_away or others < most) else ""
