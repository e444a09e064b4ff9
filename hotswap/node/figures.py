"""Counts what each (plugin, version) did here, by time: 1 s slots for 5 minutes, minute slots for 25 hours, and totals.

Neighbours: hotswap.node.router records, hotswap.node.admin answers /figures and /metrics from it. One event loop writes
and reads: no locks. Recording is a few dict operations (under 0.5 us); everything else is paid when a second ends.
"""

from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from time import monotonic

from pydantic import BaseModel

from hotswap.analysis.histogram import bucket_of
from hotswap.domain.analysis import FloodFigures, VersionFigures

FINE_SECONDS = 300
"""How far back windows resolve to a second; further back to a minute."""

COARSE_SECONDS = 25 * 3600
"""How far back windows reach at all: a day's A/B test with an hour to spare."""


class Result(IntEnum):
    """How one request ended, as far as the version is to blame."""

    OK = 0
    ERROR = 1  # the plugin raised, or its host died, hung or broke a limit
    FAILURE = 2  # an error that never reached the plugin: no host was ready in time


@dataclass(slots=True)
class Slot:
    """Counts of one stretch of time that began at `start` (monotonic seconds)."""

    start: float
    requests: int = 0
    errors: int = 0
    failures: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    def count(self, bucket: int, result: Result) -> None:
        """One request; `bucket` is that of its latency (hotswap.analysis.histogram). Failures have none: nothing ran."""
        self.requests += 1
        if result:
            self.errors += 1
            if result is Result.FAILURE:
                self.failures += 1
                return
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def turned_away(self, count: int) -> None:
        """So many requests that the version was too busy for."""
        self.requests += count
        self.errors += count
        self.failures += count

    def add(self, other: "Slot") -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.failures += other.failures
        mine = self.buckets
        for index, count in other.buckets.items():
            mine[index] = mine.get(index, 0) + count


@dataclass(slots=True)
class _PackedMinute:
    """A closed minute; buckets as index, count, index, count... (8 bytes a bucket instead of about 100)."""

    start: float
    requests: int
    errors: int
    failures: int
    packed: "array[int]"

    @classmethod
    def of(cls, slot: Slot) -> "_PackedMinute":
        flat = array("I", [number for pair in slot.buckets.items() for number in pair])
        return cls(slot.start, slot.requests, slot.errors, slot.failures, flat)

    def slot(self) -> Slot:
        pairs = iter(self.packed)
        return Slot(self.start, self.requests, self.errors, self.failures, dict(zip(pairs, pairs, strict=True)))


ToldSlot = tuple[float, int, int, int, list[int]]
"""start, requests, errors, failures, and buckets as index, count, index, count..."""


class ToldCounter(BaseModel):
    """A VersionCounter on its way to another process of this machine, perhaps of another release."""

    seconds: list[ToldSlot]
    minutes: list[ToldSlot]
    flood: "ToldCounter | None" = None

    @classmethod
    def joined(cls, every: "list[ToldCounter]") -> "ToldCounter":
        """What all of them say, as one."""
        floods = [told.flood for told in every if told.flood is not None]
        return cls(
            seconds=sorted(slot for told in every for slot in told.seconds),
            minutes=sorted(slot for told in every for slot in told.minutes),
            flood=cls.joined(floods) if floods else None,
        )


def _told(slot: Slot) -> ToldSlot:
    return (
        slot.start,
        slot.requests,
        slot.errors,
        slot.failures,
        [part for pair in slot.buckets.items() for part in pair],
    )


def _heard(told: ToldSlot) -> Slot:
    start, requests, errors, failures, flat = told
    pairs = iter(flat)
    return Slot(start, requests, errors, failures, dict(zip(pairs, pairs, strict=True)))


class VersionCounter:
    """The figures of one version of one plugin on this node. Times are of one monotonic clock, in seconds."""

    __slots__ = ("_closed", "_minute", "_minutes", "_second", "_seconds", "flood", "last_at", "loads", "rejected")

    def __init__(self, now: float) -> None:
        self._second = Slot(now // 1)
        self._seconds: deque[Slot] = deque()
        self._minute = Slot(now // 60 * 60)
        self._minutes: deque[_PackedMinute] = deque()
        self._closed = Slot(now)
        self.rejected = 0
        """Requests that were the caller's fault (unknown method): in no window, so that a caller cannot fail a version."""
        self.loads: dict[int, int] = {}
        """Histogram of how long its hosts took to load."""
        self.flood: VersionCounter | None = None
        """What one tenant's flood did to this version (hotswap.node.strain), in none of the counts here; None before the first."""
        self.last_at = now

    def loaded(self, milliseconds: float) -> None:
        """Count one start of a host."""
        index = bucket_of(milliseconds)
        self.loads[index] = self.loads.get(index, 0) + 1

    def record(self, now: float, elapsed: float, result: Result) -> None:
        """Count one request that ended at `now` after `elapsed` seconds. Failures have no latency: nothing ran."""
        second = self._second
        if now >= second.start + 1.0:
            second = self._turn(now)
        second.count(bucket_of(elapsed * 1000.0), result)

    def reject(self) -> None:
        """Count one request that was the caller's fault."""
        self.rejected += 1

    def absorb(self, now: float, counted: Slot, rejected: int = 0, flood: Slot | None = None) -> None:
        """Add what was counted until now, a moment ago at most."""
        if now >= self._second.start + 1.0:
            self._turn(now)
        self._second.add(counted)
        self.rejected += rejected
        if flood is not None:
            if self.flood is None:
                self.flood = VersionCounter(now)
            self.flood.absorb(now, flood)

    def _turn(self, now: float) -> Slot:
        """Close the second that is over, and the minute if that is; drop what is too old."""
        done = self._second
        if done.requests or done.buckets:
            self.last_at = done.start
            self._seconds.append(done)
            self._closed.add(done)
            self._minute.add(done)
        if now >= self._minute.start + 60.0:
            if self._minute.requests or self._minute.buckets:
                self._minutes.append(_PackedMinute.of(self._minute))
            self._minute = Slot(now // 60 * 60)
        while self._seconds and self._seconds[0].start < now - FINE_SECONDS - 1:
            self._seconds.popleft()
        while self._minutes and self._minutes[0].start < now - COARSE_SECONDS - 60:
            self._minutes.popleft()
        self._second = Slot(now // 1)
        return self._second

    def window(self, since: float, now: float) -> Slot:
        """Everything since `since`, with the slot that holds it: up to 1 s more (1 min when older than 5 minutes)."""
        if now >= self._second.start + 1.0:
            self._turn(now)
        total = Slot(since)
        if since >= now - FINE_SECONDS:
            for second in reversed(self._seconds):
                if second.start + 1.0 <= since:
                    break
                total.add(second)
        else:
            for minute in reversed(self._minutes):
                if minute.start + 60.0 <= since:
                    break
                total.add(minute.slot())
            total.add(self._minute)
        total.add(self._second)
        return total

    def told(self) -> "ToldCounter":
        """What windows are made of, for the process that takes this one's place."""
        minute = Slot(self._minute.start)
        minute.add(self._minute)
        minute.add(self._second)
        return ToldCounter(
            seconds=[_told(one) for one in (*self._seconds, self._second) if one.requests or one.buckets],
            minutes=[_told(one.slot()) for one in self._minutes]
            + ([_told(minute)] if minute.requests or minute.buckets else []),
            flood=None if self.flood is None else self.flood.told(),
        )

    @classmethod
    def of(cls, told: "ToldCounter") -> "VersionCounter":
        """A counter that has what another process told. Monotonic time is one for all processes of a machine."""
        made = cls(0.0)
        made._seconds.extend(_heard(one) for one in told.seconds)
        made._minutes.extend(_PackedMinute.of(_heard(one)) for one in told.minutes)
        made.last_at = max((one[0] for one in (*told.seconds, *told.minutes)), default=0.0)
        if told.flood is not None:
            made.flood = cls.of(told.flood)
        return made

    @property
    def latest(self) -> float:
        """When the latest request ended, to the second; when it was made, before the first."""
        return self._second.start if self._second.requests else self.last_at

    def totals(self) -> Slot:
        """Everything since this counter was made, floods too (a copy)."""
        total = Slot(self._closed.start)
        total.add(self._closed)
        total.add(self._second)
        if self.flood is not None:
            total.add(self.flood.totals())
        return total


class FigureBook:
    """The counters of every (plugin, version) that this node served since it started."""

    def __init__(self, clock: Callable[[], float] = monotonic, wall: Callable[[], datetime] | None = None) -> None:
        self._clock = clock
        self._wall = wall or (lambda: datetime.now(UTC))
        self._counters: dict[tuple[str, str], VersionCounter] = {}
        self._inherited: dict[tuple[str, str], VersionCounter] = {}
        """What the process before this one counted: in windows, not in totals, which count from a process's start."""

    def inherit(self, plugin: str, version: str, told: ToldCounter) -> None:
        """Take over what the process before this one counted; a later word of it replaces an earlier one."""
        self._inherited[plugin, version] = VersionCounter.of(told)

    def told(self, plugin: str, version: str) -> ToldCounter:
        """What this process and those before it counted of a version, for the one that takes its place."""
        parts = [held[plugin, version] for held in (self._inherited, self._counters) if (plugin, version) in held]
        return ToldCounter.joined([part.told() for part in parts])

    def counter(self, plugin: str, version: str) -> VersionCounter:
        """The counter, made at the first call; routes keep it so that the hot path looks nothing up."""
        key = (plugin, version)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = VersionCounter(self._clock())
        return found

    def window(self, plugin: str, since: datetime) -> tuple[VersionFigures, ...]:
        """Figures of each version of the plugin since an instant, versions in order of name.

        The wall clock is only used to find how long ago that was, so a clock that is set cannot move counts.
        """
        now = self._clock()
        start = now - (self._wall() - since).total_seconds()
        versions = []
        for key in sorted(self._counters.keys() | self._inherited.keys()):
            name, version = key
            if name == plugin:
                slot, flood = Slot(start), Slot(start)
                for held in (self._inherited, self._counters):
                    if key in held:
                        slot.add(held[key].window(start, now))
                        if (beside := held[key].flood) is not None:
                            flood.add(beside.window(start, now))
                slot.add(flood)
                versions.append(
                    VersionFigures(
                        version=version,
                        requests=slot.requests,
                        errors=slot.errors,
                        failures=slot.failures,
                        latency_buckets=slot.buckets,
                        flood=FloodFigures(turned_away=flood.requests, latency_buckets=flood.buckets)
                        if flood.requests or flood.buckets
                        else None,
                    )
                )
        return tuple(versions)

    def known(self) -> set[tuple[str, str]]:
        """Every (plugin, version) of which this process or one before it counted anything."""
        return self._counters.keys() | self._inherited.keys()

    def keys(self) -> list[tuple[str, str]]:
        """Every (plugin, version) counted here, in order."""
        return sorted(self._counters)

    def forget(self, in_use: set[tuple[str, str]]) -> None:
        """Drop counters of versions that are no longer loaded and had no request for as long as windows reach."""
        horizon = self._clock() - COARSE_SECONDS
        for key, counter in list(self._counters.items()):
            if key not in in_use and counter.latest < horizon:
                del self._counters[key]
        for key, counter in list(self._inherited.items()):
            if counter.latest < horizon:
                del self._inherited[key]
