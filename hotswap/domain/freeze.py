"""Freezes: when an environment must not move forward, in people's own time zones. Pure: no clock, no I/O.

`standing` is the only judge: the stop switch beats everything, deny beats allow, and where windows of kind allow exist,
outside of them is frozen. Neighbours: activities.freezes asks it, workflows.freezes holds by it.

Where clocks change, doubt freezes. A wall time that the clocks skip is the instant of the jump. Of a wall time that comes
twice, a deny window takes the longest reading (first start, last end), an allow window the shortest.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from hotswap.domain.base import WALL_TIME_PATTERN, BoundedText, Instant, Model, PluginName
from hotswap.domain.deployment import Environment

MOST_CHANGES = 100
"""Changes of windows that `standing` looks ahead for the end of a freeze; behind them it is unknown."""

LIFTABLE_ID = r"^frz_[0-9a-f]{32}$"


class FreezeKind(StrEnum):
    DENY = "deny"
    ALLOW = "allow"
    STOP = "stop"


class Weekday(StrEnum):
    MONDAY = "Monday"
    TUESDAY = "Tuesday"
    WEDNESDAY = "Wednesday"
    THURSDAY = "Thursday"
    FRIDAY = "Friday"
    SATURDAY = "Saturday"
    SUNDAY = "Sunday"

    @property
    def number(self) -> int:
        """As `date.weekday` counts: Monday is 0."""
        return tuple(Weekday).index(self)


def _known_zone(name: str) -> str:
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"'{name[:50]}' is not an IANA time zone that this machine knows; e.g. Europe/Berlin"
        ) from None
    return name


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


TimeZone = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_known_zone)]
"""An IANA name such as Europe/Berlin."""

WallTime = Annotated[str, StringConstraints(pattern=WALL_TIME_PATTERN)]
"""HH:MM, 00:00 to 23:59."""


class Once(Model):
    """From one instant to another; without an end until it is lifted."""

    kind: Literal["once"] = "once"
    starts: Instant
    ends: Instant | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ends is not None and self.ends <= self.starts:
            raise ValueError("ends: must be later than starts")
        return self

    def around(self, at: datetime, *, generous: bool) -> Iterator[tuple[datetime, datetime | None]]:
        yield self.starts, self.ends


class _Recurring(Model):
    """A stretch of local time that comes again: `start` and `end` are wall times in `time_zone`."""

    start: WallTime
    end: WallTime
    time_zone: TimeZone

    @abstractmethod
    def days_until_end(self, begun: date) -> int | None:
        """Days from the day it begins to the day it ends; None when it does not begin on `begun`."""

    def around(self, at: datetime, *, generous: bool) -> Iterator[tuple[datetime, datetime | None]]:
        """Occurrences that may hold `at` or be the next after it, in order. `generous`: see the module."""
        zone = _zone(self.time_zone)
        today = at.astimezone(zone).date()
        # A week back holds the longest stretch that runs, a week and a day ahead the next of every pattern.
        for offset in range(-8, 9):
            begun = today + timedelta(days=offset)
            days = self.days_until_end(begun)
            if days is None:
                continue
            starts = _instant(begun, self.start, zone, first=generous)
            ends = _instant(begun + timedelta(days=days), self.end, zone, first=not generous)
            if starts < ends:
                yield starts, ends


class Daily(_Recurring):
    """Every day from `start` to the next `end`."""

    kind: Literal["daily"] = "daily"

    @model_validator(mode="after")
    def _ends_elsewhere(self) -> Self:
        if self.start == self.end:
            raise ValueError("end: must differ from start; for whole days take kind once, or weekly with an endDay")
        return self

    def days_until_end(self, begun: date) -> int | None:
        return 0 if self.end > self.start else 1


class Weekly(_Recurring):
    """On each of `days` from `start` to the next `end`, or to `end` on the next `end_day` (Friday 16:00 to Monday 08:00)."""

    kind: Literal["weekly"] = "weekly"
    days: tuple[Weekday, ...] = Field(min_length=1, max_length=7)
    end_day: Weekday | None = None

    @model_validator(mode="after")
    def _ends_elsewhere(self) -> Self:
        if self.end_day is None and self.start == self.end:
            raise ValueError("end: must differ from start; for longer stretches give an endDay")
        return self

    def days_until_end(self, begun: date) -> int | None:
        if begun.weekday() not in {day.number for day in self.days}:
            return None
        next_end = 0 if self.end > self.start else 1
        if self.end_day is None:
            return next_end
        days = (self.end_day.number - begun.weekday()) % 7
        return days if days >= next_end else days + 7


Window = Annotated[Once | Daily | Weekly, Field(discriminator="kind")]


class Freeze(Model):
    """One rule. `environment` or `plugin` None means all; lifted, it stands no more."""

    freeze_id: str = Field(pattern=LIFTABLE_ID)
    kind: FreezeKind
    environment: Environment | None = None
    plugin: PluginName | None = None
    window: Window
    reason: BoundedText = Field(min_length=1)
    created_by: str = Field(min_length=1, max_length=255)
    created_at: Instant
    lifted_at: Instant | None = None
    lifted_by: str | None = Field(default=None, max_length=255)
    lift_reason: BoundedText = ""

    @model_validator(mode="after")
    def _stop_is_for_everything(self) -> Self:
        if self.kind is FreezeKind.STOP:
            scoped = self.environment is not None or self.plugin is not None
            if scoped or not isinstance(self.window, Once) or self.window.ends is not None:
                raise ValueError("kind: the stop switch is for everything and without an end; make a deny instead")
        return self

    @property
    def ends_for_good(self) -> datetime | None:
        """When it can never stand again by itself. An allow window that is over still freezes what is outside of it."""
        return self.window.ends if isinstance(self.window, Once) and self.kind is FreezeKind.DENY else None

    def concerns(self, environment: str, plugin: str) -> bool:
        return self.environment in (None, environment) and self.plugin in (None, plugin)

    def lifted(self, at: datetime) -> bool:
        return self.lifted_at is not None and self.lifted_at <= at

    def within(self, at: datetime) -> bool:
        """Whether `at` lies in its window: starts included, ends not."""
        return any(starts <= at and (ends is None or at < ends) for starts, ends in self._around(at))

    def next_change(self, after: datetime) -> datetime | None:
        """The next instant at which `within` or `lifted` may change; None when never."""
        edges = [edge for pair in self._around(after) for edge in pair if edge is not None and edge > after]
        if self.lifted_at is not None and self.lifted_at > after:
            edges.append(self.lifted_at)
        return min(edges, default=None)

    def _around(self, at: datetime) -> Iterator[tuple[datetime, datetime | None]]:
        return self.window.around(at, generous=self.kind is not FreezeKind.ALLOW)


class FreezeVerdict(Model):
    """Whether a deployment may move forward. `until` is when it may again, None when nobody knows (somebody must lift it)."""

    frozen: bool = False
    stopped: bool = Field(default=False, description="by the stop switch, which no override passes")
    freeze_id: str = ""
    reason: BoundedText = ""
    until: Instant | None = None

    @property
    def text(self) -> str:
        """In a person's words, as `waiting_for` shows it."""
        end = f"until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else "until it is lifted"
        what = "everything is stopped" if self.stopped else "the freeze"
        return f"{what} '{self.reason}' {end}"


def standing(freezes: Iterable[Freeze], environment: str, plugin: str, at: datetime) -> FreezeVerdict:
    """What holds for `plugin` in `environment` at the aware instant `at`, and when that ends by itself."""
    concerned = [freeze for freeze in freezes if freeze.concerns(environment, plugin) and not freeze.lifted(at)]
    holding = _holding(concerned, at)
    if holding is None:
        return FreezeVerdict()
    return FreezeVerdict(
        frozen=True,
        stopped=holding.kind is FreezeKind.STOP,
        freeze_id=holding.freeze_id,
        reason=_why(holding),
        until=_end(concerned, at),
    )


def _holding(freezes: Sequence[Freeze], at: datetime) -> Freeze | None:
    """The rule that freezes at `at`, the strongest and oldest of them, or None."""
    live = sorted(
        (freeze for freeze in freezes if not freeze.lifted(at)), key=lambda one: (one.created_at, one.freeze_id)
    )
    for kind in (FreezeKind.STOP, FreezeKind.DENY):
        found = next((freeze for freeze in live if freeze.kind is kind and freeze.within(at)), None)
        if found is not None:
            return found
    allowing = [freeze for freeze in live if freeze.kind is FreezeKind.ALLOW]
    if allowing and not any(freeze.within(at) for freeze in allowing):
        return allowing[0]
    return None


def _why(freeze: Freeze) -> str:
    return f"outside of the window for {freeze.reason}" if freeze.kind is FreezeKind.ALLOW else freeze.reason


def _end(freezes: Sequence[Freeze], at: datetime) -> datetime | None:
    """The first instant from which nothing freezes: walks from change to change, so that overlaps count as one."""
    moment = at
    for _ in range(MOST_CHANGES):
        changes = [change for freeze in freezes if (change := freeze.next_change(moment)) is not None]
        if not changes:
            return None
        moment = min(changes)
        if _holding(freezes, moment) is None:
            return moment
    return None


@lru_cache(maxsize=8192)
def _instant(day: date, wall: str, zone: ZoneInfo, *, first: bool) -> datetime:
    """The instant of a wall time. Twice there: the first or the last. Never there: when the clocks jump over it."""
    local = datetime.combine(day, time.fromisoformat(wall))
    early, late = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early <= late:
        return early if first else late
    # A gap: read with the offset before it (fold 0) it lies after the jump, with the one behind it (fold 1) before.
    low, high = late, early
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)
