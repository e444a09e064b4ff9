"""SemVer as a text that sorts as versions do, so that PostgreSQL can order and page versions by an index. Pure."""

import semver


def precedence_key(version: str) -> str:
    """A key whose byte order (COLLATE "C") is the precedence of SemVer 2.0.0, section 11. Build metadata does not count.

    A number is written after the count of its digits: 9 -> 019, 10 -> 0210. `~` (no pre-release) sorts after `-`.
    An identifier ends in a space, which sorts below every character that an identifier may hold.
    """
    parsed = semver.Version.parse(version)
    core = "".join(_number(part) for part in (parsed.major, parsed.minor, parsed.patch))
    if not parsed.prerelease:
        return core + "~"
    return core + "-" + "".join(_identifier(part) for part in parsed.prerelease.split("."))


def _number(value: int) -> str:
    digits = str(value)
    return f"{len(digits):02d}{digits}"


def _identifier(part: str) -> str:
    return f"0{_number(int(part))} " if part.isdigit() else f"1{part} "
