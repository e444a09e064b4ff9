"""Turns what was typed after `hotswap freeze add` into the window of a freeze. Pure; whether it makes sense the api judges."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from hotswap.cli.durations import iso_duration
from hotswap.cli.faults import UsageFault

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SPAN = re.compile(r"^(\d{1,2}:\d\d)\s*-\s*(\d{1,2}:\d\d)$")
_WEEK = re.compile(r"^([A-Za-z,\s]+?)\s+(\d{1,2}:\d\d)\s*-\s*(?:([A-Za-z]+)\s+)?(\d{1,2}:\d\d)$")
_UNITS = re.compile(r"(\d+(?:\.\d+)?)([DHMS])")
_SECONDS = {"D": 86_400, "H": 3600, "M": 60, "S": 1}


def freeze_window(
    *,
    starts: str | None,
    until: str | None,
    lasting: str | None,
    daily: str | None,
    weekly: str | None,
    time_zone: str,
    now: datetime,
) -> dict[str, Any]:
    """The window's JSON. Raises UsageFault saying what was not understood."""
    once = [option for option, value in (("--from", starts), ("--until", until), ("--for", lasting)) if value]
    given = [*(["--daily"] if daily else []), *(["--weekly"] if weekly else []), *once[:1]]
    if len(given) > 1:
        raise UsageFault(f"{given[0]} and {given[1]} differ in kind", "give one of --daily, --weekly or --from/--until")
    if daily:
        return _daily(daily, time_zone)
    if weekly:
        return _weekly(weekly, time_zone)
    begins = _instant(starts, "--from") if starts else now.astimezone(UTC)
    window: dict[str, Any] = {"kind": "once", "starts": begins.isoformat()}
    if until and lasting:
        raise UsageFault("--until and --for both say when it ends", "give one of them")
    if until:
        window["ends"] = _instant(until, "--until").isoformat()
    if lasting:
        window["ends"] = (begins + _duration(lasting)).isoformat()
    return window


def window_text(window: dict[str, Any]) -> str:
    """A freeze's window in one line."""
    kind = window.get("kind")
    if kind == "once":
        end = window.get("ends")
        return f"{window.get('starts')} - {end}" if end else f"from {window.get('starts')}"
    days = ",".join(str(day)[:3] for day in window.get("days") or ()) if kind == "weekly" else "daily"
    end_day = f"{str(window['endDay'])[:3]} " if window.get("endDay") else ""
    return f"{days} {window.get('start')} - {end_day}{window.get('end')} {window.get('timeZone')}"


def _daily(text: str, time_zone: str) -> dict[str, Any]:
    span = _SPAN.match(text.strip())
    if span is None:
        raise UsageFault(f"--daily '{text}' is not a stretch of time", "write it like 22:00-06:00")
    return {"kind": "daily", "start": _wall(span[1]), "end": _wall(span[2]), "timeZone": time_zone}


def _weekly(text: str, time_zone: str) -> dict[str, Any]:
    week = _WEEK.match(text.strip())
    if week is None:
        raise UsageFault(
            f"--weekly '{text}' is not a stretch of a week",
            'write it like "Mon,Tue 09:00-17:00" or "Fri 16:00-Mon 08:00"',
        )
    window = {
        "kind": "weekly",
        "days": [_day(day) for day in re.split(r"[,\s]+", week[1].strip(" ,"))],
        "start": _wall(week[2]),
        "end": _wall(week[4]),
        "timeZone": time_zone,
    }
    if week[3]:
        window["endDay"] = _day(week[3])
    return window


def _day(text: str) -> str:
    found = [day for day in _DAYS if len(text) >= 2 and day.lower().startswith(text.lower())]
    if len(found) != 1:
        raise UsageFault(f"--weekly: '{text}' is not a day", f"known: {', '.join(_DAYS)}, or their beginnings")
    return found[0]


def _wall(text: str) -> str:
    return text.zfill(5)


def _instant(text: str, option: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UsageFault(f"{option} '{text}' is not an instant", "write it like 2026-12-24T18:00+01:00") from None
    return instant.astimezone(UTC)  # without an offset it is this machine's local time


def _duration(text: str) -> timedelta:
    parts = _UNITS.findall(iso_duration(text, "--for"))
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
