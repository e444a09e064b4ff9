"""Durations as people type them. Pure."""

import re

from hotswap.cli.faults import UsageFault

_SHORT = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_ISO = re.compile(r"^P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def iso_duration(text: str, option: str) -> str:
    """`10s`, `5m`, `250ms` or ISO 8601 (`PT10S`) as ISO 8601. Raises UsageFault naming `option`."""
    if _ISO.match(text.upper()):
        return text.upper()
    short = _SHORT.match(text.lower())
    if short is None:
        raise UsageFault(f"{option} '{text}' is not a duration", "write PT10S, PT5M or short: 10s, 5m, 2h, 1d")
    seconds = float(short[1]) * _SECONDS[short[2]]
    return f"PT{seconds:g}S" if seconds < 1e6 else f"PT{seconds:.0f}S"
